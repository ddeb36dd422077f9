"""A single trainable layer: its Hessian in closed form equals that of products. Other nets are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

import upweight as uw  # noqa: E402
from support.curved_nets import with_limits  # noqa: E402
from upweight.curvature.linear_head import _weighted_gram, linear_head_matrix  # noqa: E402
from upweight.curvature.operators import HessianOperator  # noqa: E402
from upweight.curvature.solvers.direct import _factor, assemble  # noqa: E402
from upweight.curvature.solvers.factorisation import cholesky, cholesky_solve  # noqa: E402
from upweight.curvature.summed_objective import SummedObjective  # noqa: E402


class FrozenBody(nn.Module):
    """A trainable layer behind frozen ones, its weight declared after its bias."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.Tanh()).requires_grad_(False)
        self.last = nn.Linear(6, 3)
        weight = self.last.weight
        del self.last.weight
        self.last.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.body(x))


class Conv1D(nn.Module):
    """A linear layer whose weight is stored as (inputs, outputs), as in transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.bias


def cross_entropy(net: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def summed(net: nn.Module, n: int = 11) -> SummedObjective:
    rng = np.random.default_rng(0)
    train = uw.Examples(rng.normal(size=(n, 4)), rng.integers(0, 3, n), weights=rng.uniform(0, 2, n))
    model = uw.TorchModel(net.double(), cross_entropy)
    return SummedObjective(model.network, train, model.weights(train), 0.0, 0.0)


@pytest.mark.parametrize("make", [lambda: nn.Linear(4, 3), lambda: nn.Linear(4, 3, bias=False), FrozenBody, Conv1D])
def test_the_matrix_is_that_of_products(make) -> None:
    torch.manual_seed(0)
    problem = summed(make())
    matrix = linear_head_matrix(problem, batch_examples=4)
    assert matrix is not None
    np.testing.assert_allclose(matrix, assemble(HessianOperator(problem)), atol=1e-12)


class Squashed(nn.Linear):
    """A linear layer whose own forward applies tanh."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(super().forward(x))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Squashed(4, 3),
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh()),
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)),
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1)),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3).requires_grad_(False)),
    ],
)
def test_other_nets_are_left_to_products(make) -> None:
    torch.manual_seed(0)
    assert linear_head_matrix(summed(make())) is None


def test_a_wide_head_is_factored_although_other_nets_of_its_size_are_not() -> None:
    rng, n = np.random.default_rng(0), 120
    x, y = rng.normal(size=(n + 4, 150)), rng.integers(0, 3, n + 4)
    torch.manual_seed(0)
    model = uw.TorchModel(nn.Linear(150, 3).double(), cross_entropy)
    train, queries = uw.Examples(x[:n], y[:n], weights=rng.uniform(0, 2, n)), uw.Examples(x[n:], y[n:])
    recipe, limits = uw.Influence(curvature=uw.GaussNewton(), damping=0.02), {"dense_parameters": 100, "dual_rows": 10}
    exact = recipe.fit(model, train).attribute(queries)
    factored = recipe.fit(with_limits(model, **limits), train).attribute(queries)
    iterated = recipe.fit(with_limits(model, **limits, head_parameters=100), train).attribute(queries)
    assert factored.diagnostics["solver"] == "Cholesky"
    assert iterated.diagnostics["solver"].startswith("conjugate gradients")
    np.testing.assert_allclose(factored.values, exact.values, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(iterated.values, exact.values, atol=2e-3 * np.abs(exact.values).max())


@pytest.mark.parametrize("width", [1, 63, 64, 150])
def test_a_weighted_gram_matrix_is_symmetric_for_any_width(width) -> None:
    a, w = torch.randn(20, width).double(), torch.randn(20).double()  # weights of either sign
    out = torch.full((width, width), torch.nan).double()
    _weighted_gram(a, w, out)
    torch.testing.assert_close(out, a.T @ torch.diag(w) @ a)


@pytest.mark.parametrize("lowest", [-2.0, -1.0, -1 + 1e-9, -0.5, 0.0])
def test_a_factor_is_made_once_only_where_the_lowest_eigenvalue_is_clear(lowest) -> None:
    rotation = torch.linalg.qr(torch.randn(60, 60).double())[0]
    matrix = rotation @ torch.diag(torch.tensor([lowest, *np.linspace(0, 50, 59)])) @ rotation.T
    factor = _factor(matrix, 1.0, 1e-6)  # the lowest eigenvalue of the shifted matrix is 1 + lowest
    assert (factor is not None) == (1 + lowest > 1e-4)
    if factor is not None:
        torch.testing.assert_close(factor @ factor.T, matrix + torch.eye(60).double())


@pytest.mark.parametrize("turn", [lambda matrix: matrix, lambda matrix: matrix.T])
def test_a_factor_and_its_solves_are_those_of_torch(turn) -> None:
    root, right = torch.randn(7, 9).double(), torch.randn(7, 3).double()
    matrix = turn(root @ root.T)
    expected = torch.linalg.cholesky(matrix)
    factor = cholesky(matrix.clone())
    assert factor is not None
    torch.testing.assert_close(factor, expected)
    torch.testing.assert_close(cholesky_solve(right.T, factor).T, torch.cholesky_solve(right, expected))
    torch.testing.assert_close(cholesky_solve(right.T.contiguous(), factor).T, torch.cholesky_solve(right, expected))


@pytest.mark.parametrize("lowest", [-1.0, float("nan")])
def test_what_is_not_positive_definite_has_no_factor(lowest) -> None:
    assert cholesky(torch.diag(torch.tensor([1.0, 2.0, lowest]).double())) is None
