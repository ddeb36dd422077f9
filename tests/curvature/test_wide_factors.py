"""The Kronecker factor of a side as wide as a vocabulary keeps only its diagonal, and a warning names the layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import Tensor, nn  # noqa: E402

import upweight as uw  # noqa: E402
from upweight.core.rows import DenseRows  # noqa: E402

N, WIDE = 8, 2100
RECIPES = [uw.KFAC(), uw.EKFAC()]


def cross_entropy(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def wide_inputs() -> tuple[uw.TorchModel, uw.Examples]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = nn.Linear(WIDE, 3, bias=False).double()
    return uw.TorchModel(net, cross_entropy), uw.Examples(rng.standard_normal((N, WIDE)), rng.integers(0, 3, N))


def wide_outputs(words: int) -> tuple[uw.TorchModel, uw.Examples]:
    torch.manual_seed(0)
    tokens = np.random.default_rng(0).integers(0, words, size=(6, 5))
    net = nn.Sequential(nn.Embedding(words, 4), nn.Linear(4, words))

    def loss(net: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(net(batch.x)[:, :-1].transpose(1, 2), batch.x[:, 1:], reduction="none").sum(1)

    return uw.TorchModel(net, loss), uw.Examples(tokens)


@pytest.mark.parametrize("refined", [False, True])
def test_wide_inputs_are_not_rotated_and_outputs_are(refined: bool) -> None:
    model, train = wide_inputs()
    curvature = model.curvature(train, uw.EKFAC() if refined else uw.KFAC(), 0.0)
    x, weight = np.asarray(train.x), model.parameters.reshape(3, WIDE)
    z = x @ weight.T
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    hessians = np.stack([np.diag(each) - np.outer(each, each) for each in p])
    values, basis = np.linalg.eigh(hessians.sum(0))
    along = np.einsum("oc,nop,pc->nc", basis, hessians, basis)
    expected = along.T @ x**2 if refined else np.outer(values, (x**2).mean(0))
    v = np.random.default_rng(1).standard_normal((2, 3, WIDE))
    product = np.stack([basis @ (expected * (basis.T @ each)) for each in v])
    np.testing.assert_allclose(curvature.matvec(v.reshape(2, -1)), product.reshape(2, -1), atol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("wide", ["inputs", "outputs"])
def test_solving_undoes_multiplying_and_scores_agree_with_dense_rows(wide: str, recipe: Any) -> None:
    model, train = wide_inputs() if wide == "inputs" else wide_outputs(WIDE)
    curvature = model.curvature(train, recipe, 0.1)
    rows = model.loss_rows(train)
    vectors = rows.dense()[:2]
    solved = curvature.solve(DenseRows(vectors)).rows.dense()
    np.testing.assert_allclose(curvature.matvec(solved), vectors, atol=1e-5)
    expected = solved @ rows.dense().T
    np.testing.assert_allclose(curvature.solve(rows.take(np.arange(2))).rows.dot(rows), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_warning_names_the_wide_layer_and_appears_for_no_other(recipe: Any) -> None:
    def warnings(words: int) -> list[str]:
        model, train = wide_outputs(words)
        fitted = uw.Influence(curvature=recipe).fit(model, train)
        return [warning for warning in fitted.diagnostics["warnings"] if "Kronecker" in warning]

    assert warnings(300) == []
    (warning,) = warnings(WIDE)
    assert "'1.weight'" in warning and "2,100" in warning


def test_the_memory_of_a_wide_layer_grows_with_its_width_not_its_square() -> None:
    model, train = wide_outputs(WIDE)
    layer = model.curvature(train, uw.EKFAC(), None).layers["1.weight"]  # type: ignore[attr-defined]
    assert layer.slopes.numel() == WIDE
    assert layer.left is None
