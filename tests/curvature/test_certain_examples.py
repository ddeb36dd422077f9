"""Examples of which a net is certain: their losses have no curvature, alone, in whole batches, or all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

import upweight as uw  # noqa: E402
from upweight.curvature import label_expectation  # noqa: E402

EXAMPLES, WIDTH, CLASSES = 40, 5, 3
CURVATURES = [uw.KFAC(), uw.EKFAC()]


class Scaled(nn.Module):
    """Logits that are so large for examples with a positive last number that softmax is 0 or 1 to the last bit."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(WIDTH, 4, bias=bias), nn.Tanh(), nn.Linear(4, CLASSES, bias=bias)).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.body(x[:, :WIDTH]) * torch.where(x[:, WIDTH:] > 0, 1e9, 1.0)
        return logits


def cross_entropy(net: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def task(certain: int, *, bias: bool) -> tuple[uw.TorchModel, uw.Examples, uw.Examples]:
    """(model, training set, queries); the net is certain of this many examples, the first ones."""
    rng = np.random.default_rng(0)
    x = np.append(rng.normal(size=(EXAMPLES, WIDTH)), np.where(np.arange(EXAMPLES) < certain, 1, -1)[:, None], axis=1)
    net = Scaled(bias=bias)
    y = net(torch.tensor(x)).argmax(1).numpy()
    y[certain:] = rng.integers(0, CLASSES, EXAMPLES - certain)
    queries = uw.Examples(np.append(x[-4:, :-1], -np.ones((4, 1)), axis=1), y[-4:], ids=list("abcd"))
    return uw.TorchModel(net, cross_entropy), uw.Examples(x, y), queries


@pytest.mark.parametrize("is_stored", [False, True], ids=["captured", "stored"])
@pytest.mark.parametrize("bias", [True, False], ids=["biases", "no biases"])
@pytest.mark.parametrize("curvature", CURVATURES, ids=["KFAC", "EK-FAC"])
def test_a_first_batch_without_curvature_changes_nothing(curvature, bias, is_stored, tmp_path, monkeypatch):
    monkeypatch.setattr(label_expectation, "MAX_BATCH_EXAMPLES", 8)
    model, train, queries = task(16, bias=bias)
    recipe, last_first = uw.Influence(curvature=curvature, damping=1e-3), np.arange(EXAMPLES)[::-1]
    values = []
    for name, order in (("first", np.arange(EXAMPLES)), ("last", last_first)):
        store = uw.Store(tmp_path / name, uw.LowRank(precision="float32")) if is_stored else None
        scores = recipe.fit(model, train.take(order), store=store).attribute(queries)
        assert scores.diagnostics["kronecker_share"] == 1.0
        values.append(scores.values)
    np.testing.assert_allclose(values[0], values[1][:, last_first], rtol=1e-5, atol=1e-7 * np.abs(values[0]).max())


@pytest.mark.parametrize("recipe", [uw.GradDot(), *(uw.Influence(curvature=c, damping=0.5) for c in CURVATURES)])
@pytest.mark.parametrize("encoding", [uw.LowRank(), uw.Coordinates(), uw.LoGra()], ids=lambda e: type(e).__name__)
def test_a_store_of_certain_examples_answers_like_the_net_if_a_damping_is_given(recipe, encoding, tmp_path):
    model, train, queries = task(EXAMPLES, bias=True)
    expected = recipe.fit(model, train).attribute(queries).values
    values = recipe.fit(model, train, store=uw.Store(tmp_path, encoding)).attribute(queries).values
    assert (expected == 0).all() and (values == 0).all()
    with pytest.raises(ValueError, match="no curvature to invert for KFAC"):
        uw.Influence(curvature=uw.KFAC()).fit(model, train, store=uw.Store(tmp_path)).attribute(queries)


def test_the_pilot_of_a_store_may_see_certain_examples_alone(tmp_path):
    model, train, queries = task(EXAMPLES - 1, bias=True)
    recipe = uw.Influence(curvature=uw.EKFAC(), damping=1e-3)
    expected = recipe.fit(model, train).attribute(queries).values
    store = uw.Store(tmp_path, uw.LowRank(precision="float32"))
    values = recipe.fit(model, train.take(np.roll(np.arange(EXAMPLES), 4)), store=store).attribute(queries).values
    np.testing.assert_allclose(np.roll(values, -4, axis=1), expected, rtol=1e-5, atol=1e-7 * np.abs(expected).max())
