"""Small nets in float64, and their Hessian and Gauss–Newton matrix as dense matrices."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import upweight as uw
from upweight.core.curvature import Curvature
from upweight.core.curvature_recipes import CG, Arnoldi, CurvatureRecipe, Direct, LiSSA, Nystrom, Solver
from upweight.curvature.limits import Limits
from upweight.curvature.operators import GaussNewtonOperator, HessianOperator, Operator
from upweight.curvature.registry import build
from upweight.curvature.solvers import Solution, prepare
from upweight.curvature.summed_objective import SummedObjective

SOLVERS: dict[str, Solver] = {
    "direct": Direct(),
    "cg": CG(tolerance=1e-10, steps=500),
    "lissa": LiSSA(depth=150, batch=1000),
    "arnoldi": Arnoldi(rank=1000, steps=1000),
    "nystrom": Nystrom(rank=1000),
}
INDEFINITE = [-0.2, -0.05, 0.0, 0.1, 0.5, 2.0]  # eigenvalues of a `bowl`
DUAL_FORM: dict[str, Any] = {"dense_parameters": 1, "dual_trace": 1.0}  # limits that lead to an exact dual form


class Attention(nn.Module):
    """One head over four positions of three numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(3, 12), nn.Linear(4, 3)
        self.place = nn.Parameter(torch.randn(4, 3) / 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x.view(-1, 4, 3) + self.place).chunk(3, dim=-1)
        return self.head(F.scaled_dot_product_attention(q, k, v).mean(dim=1))


class Bowl(nn.Module):
    """½ θᵀMθ times a number for each example: a loss whose Hessian is known."""

    def __init__(self, matrix: np.ndarray) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(len(matrix), dtype=torch.float64))
        self.matrix: Tensor
        self.register_buffer("matrix", torch.as_tensor(matrix, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0] * (self.theta @ self.matrix @ self.theta) / 2


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 4), nn.GELU(), nn.Linear(4, 3))


def cnn() -> nn.Module:
    layers = nn.Conv2d(1, 3, 2), nn.GELU(), nn.Conv2d(3, 2, 2, bias=False), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(nn.Unflatten(1, (1, 3, 4)), *layers)


MAKERS = {"mlp": mlp, "cnn": cnn, "attention": Attention}


def cross_entropy(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def examples(n: int, seed: int = 0, width: int = 12) -> uw.Examples:
    rng = np.random.default_rng(seed)
    return uw.Examples(rng.standard_normal((n, width)), rng.integers(0, 3, n))


@functools.cache
def untrained(name: str, l2: float = 0.0) -> uw.TorchModel:
    """A model that is not trained, so that its Hessian has negative eigenvalues."""
    torch.manual_seed(0)
    return uw.TorchModel(MAKERS[name]().double(), cross_entropy, objective=uw.Objective("mean", l2=l2))


def fit(
    model: uw.TorchModel, train: uw.Examples, recipe: CurvatureRecipe, damping: float | None, **limits: Any
) -> Curvature:
    """The curvature that `model.curvature` builds, with other limits."""
    return build(model, train, recipe, damping, Limits(**limits))


def with_limits(model: uw.TorchModel, **limits: Any) -> uw.TorchModel:
    """A copy of the model whose curvatures have other limits."""
    limited = copy.copy(model)
    limited.curvature = lambda train, recipe, damping: fit(model, train, recipe, damping, **limits)  # type: ignore[method-assign]
    return limited


def bowl(values: list[float], n: int = 40) -> tuple[Operator, np.ndarray]:
    """(operator of Σ xᵢ M, that matrix), where M has these eigenvalues and the xᵢ have mean 1."""
    rng = np.random.default_rng(1)
    q = np.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    matrix = q @ np.diag(values) @ q.T
    x = rng.uniform(0.5, 1.5, (n, 1))
    network = uw.TorchModel(Bowl(matrix), lambda net, batch: net(batch.x)).network
    return HessianOperator(SummedObjective(network, uw.Examples(x / x.mean()), np.ones(n), 0.0, 0.0)), matrix * n


def damped(operator: Operator, damping: float) -> Operator:
    """The same operator with another damping."""
    summed = operator.summed
    return type(operator)(SummedObjective(summed.network, summed.train, summed.weights, 0.0, damping))


def operators(name: str, n: int = 25, damping: float = 0.0) -> dict[str, Operator]:
    weights = np.random.default_rng(3).uniform(0.5, 2.0, n)
    summed = SummedObjective(untrained(name).network, examples(n), weights, 0.0, damping)
    return {"hessian": HessianOperator(summed), "gauss-newton": GaussNewtonOperator(summed)}


@functools.cache
def dense(name: str, kind: str, n: int = 25) -> np.ndarray:
    """The matrix without the shift, by torch.func on one vector of all parameters."""
    operator = operators(name, n)[kind]
    network, summed = operator.network, operator.summed
    weights, batch = torch.as_tensor(summed.weights), network.batch(summed.train)
    theta = torch.as_tensor(network.vector())

    def outputs(vector: Tensor) -> Tensor:
        blocks = {k: b[0] for k, b in zip(network.names, _parts(network, vector), strict=True)}
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return torch.func.functional_call(network.net, blocks, (batch.x,))

    def losses(z: Tensor) -> Tensor:
        return (weights * F.cross_entropy(z, batch.y, reduction="none")).sum()

    if kind == "hessian":
        matrix = torch.func.hessian(lambda v: losses(outputs(v)))(theta)
    else:
        jacobian = torch.func.jacrev(outputs)(theta).flatten(0, 1)
        z = outputs(theta).detach()
        output_hessian = torch.func.hessian(lambda flat: losses(flat.view_as(z)))(z.flatten())
        matrix = jacobian.T @ output_hessian @ jacobian
    return np.asarray(matrix.detach().numpy())


def _parts(network: Any, vector: Tensor) -> list[Tensor]:
    sizes = [int(np.prod(network.shapes[name])) for name in network.names]
    return [p.view(1, *network.shapes[n]) for n, p in zip(network.names, vector.split(sizes), strict=True)]


def columns(operator: Operator, k: int = 4, seed: int = 7) -> tuple[np.ndarray, dict[str, Tensor]]:
    """Right-hand sides as a matrix (k, size) and as blocks."""
    b = np.random.default_rng(seed).standard_normal((k, operator.size))
    return b, operator.network.split(b)


def solve(operator: Operator, recipe: Solver, blocks: dict[str, Tensor]) -> tuple[np.ndarray, Solution]:
    """(x as a matrix (k, size), the whole solution)."""
    solution = prepare(operator, recipe).solve(blocks)
    return operator.network.join(solution.blocks), solution
