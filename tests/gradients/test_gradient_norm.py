"""The gradient norm of the training objective, from a pass of its own or from the passes that scoring made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

import upweight as uw  # noqa: E402
from upweight.gradients.gradient_totals import collecting_totals  # noqa: E402


class Counting:
    """A loss that counts the training examples it has seen with gradients."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, net: nn.Module, batch: Any) -> torch.Tensor:
        self.seen += len(batch.x) if len(batch.x) > 3 else 0  # the inspection is not counted
        return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def problem(l2: float) -> tuple[Any, uw.Examples, uw.Examples, Counting]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)).double()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(33, 6)), rng.integers(0, 3, 33)
    weights = rng.uniform(0.5, 2, 30)
    weights[4] = 0.0
    loss = Counting()
    model = uw.TorchModel(net, loss, objective=uw.Objective("mean", l2=l2))
    return model, uw.Examples(x[:30], y[:30], weights=weights), uw.Examples(x[30:], y[30:]), loss


def dense(model: Any, train: uw.Examples, l2: float) -> float:
    rows = model.loss_rows(train).dense() - train.weights[:, None] * l2 * model.parameters
    pull = l2 * train.weights.sum() * model.parameters
    return float(np.linalg.norm(rows.sum(0) + pull) / np.sqrt((rows**2).sum()))


@pytest.mark.sweep(3)
@pytest.mark.parametrize("l2", [0.0, 0.2])
@pytest.mark.parametrize(
    "recipe", [uw.Identity(), uw.Diagonal(), uw.EmpiricalFisher(), uw.EKFAC(), uw.DataInf(), uw.Hessian()], ids=str
)
def test_the_passes_of_scoring_give_the_same_norm(recipe: Any, l2: float) -> None:
    model, train, queries, _ = problem(l2)
    expected = dense(model, train, l2)
    assert model.gradient_norm(train) == pytest.approx(expected, rel=1e-9)
    scores = uw.Influence(curvature=recipe, damping=0.1).fit(model, train).attribute(queries)
    assert scores.diagnostics["gradient_norm"] == pytest.approx(expected, rel=1e-9)
    assert collecting_totals(model.network, train) is None  # later training must not be missed


def test_scoring_by_gradients_alone_is_one_pass_over_the_training_set() -> None:
    model, train, queries, loss = problem(0.0)
    model.loss_rows(train).squares(), model.measure_rows(queries).squares()  # the inspection
    loss.seen = 0
    fitted = uw.Influence(curvature=uw.Identity()).fit(model, train)
    assert fitted.attribute(queries).diagnostics["gradient_norm"] > 0
    assert loss.seen == len(train)


def test_training_after_the_fit_discards_the_collected_totals() -> None:
    model, train, _, _ = problem(0.0)
    uw.Influence(curvature=uw.EmpiricalFisher()).fit(model, train)
    with torch.no_grad():
        for parameter in model.network.parameters().values():
            parameter.mul_(0.5)
    assert model.gradient_norm(train) == pytest.approx(dense(model, train, 0.0), rel=1e-9)
