"""Small problems of every family, with everything about them written out as dense matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from upweight.linear.features import Features
from upweight.linear.losses.binary import LogisticLoss, SmoothHingeLoss, SquaredHingeLoss
from upweight.linear.losses.loss import LinearLoss
from upweight.linear.losses.softmax import SoftmaxLoss
from upweight.linear.losses.squared import SquaredLoss
from upweight.linear.losses.tweedie import TweedieLoss
from upweight.linear.problem import Problem

Array = NDArray[np.float64]
TWO, THREE, FOUR = np.arange(2), np.arange(3), np.arange(4)
PAIRS = np.array([(0, 1), (0, 2), (1, 2)])
FAMILIES: dict[str, Callable[[], LinearLoss]] = {
    "squared": lambda: SquaredLoss(2),
    "squared_on_classes": lambda: SquaredLoss(3, THREE),
    "softmax": lambda: SoftmaxLoss(FOUR),
    "softmax_of_two": lambda: SoftmaxLoss(TWO),
    "logistic": lambda: LogisticLoss(1, TWO),
    "logistic_one_against_rest": lambda: LogisticLoss(3, THREE),
    "squared_hinge": lambda: SquaredHingeLoss(3, THREE),
    "smooth_hinge": lambda: SmoothHingeLoss(1, TWO, 0.5),
    "smooth_hinge_of_pairs": lambda: SmoothHingeLoss(3, THREE, 0.5, PAIRS),
    "normal": lambda: TweedieLoss(0.0, log_link=False),
    "normal_log": lambda: TweedieLoss(0.0, log_link=True),
    "poisson": lambda: TweedieLoss(1.0, log_link=True),
    "tweedie": lambda: TweedieLoss(1.5, log_link=True),
    "gamma": lambda: TweedieLoss(2.0, log_link=True),
    "inverse_gaussian": lambda: TweedieLoss(3.0, log_link=True),
    "poisson_identity": lambda: TweedieLoss(1.0, log_link=False),
    "tweedie_identity": lambda: TweedieLoss(1.5, log_link=False),
    "gamma_identity": lambda: TweedieLoss(2.0, log_link=False),
    "inverse_gaussian_identity": lambda: TweedieLoss(3.0, log_link=False),
}
CONVEX = [
    name for name in FAMILIES if not name.endswith("_identity") and name not in ("normal_log", "inverse_gaussian")
]
KINDS: dict[str, Callable[[Array], Any]] = {
    "float64": np.asarray,
    "float32": lambda x: x.astype(np.float32),
    "csr": sparse.csr_array,
    "csc": sparse.csc_matrix,
}


def draw(family: LinearLoss, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Outputs z (n, K) where the loss is smooth, and targets."""
    z = rng.standard_normal((n, family.outputs))
    if isinstance(family, TweedieLoss):
        targets = rng.uniform(0.3, 3.0, (n, 1))
        return (z * 0.5, targets) if family.log_link else (np.abs(z) + 0.5, targets)
    if family.classes is None:
        return z, rng.standard_normal((n, family.outputs))
    return z, family.encode(rng.integers(0, len(family.classes), n))


def problem_of(
    name: str,
    *,
    kind: str = "float64",
    intercept: float = 1.0,
    fixed: float = 0.7,
    each: float = 0.0,
    n: int = 30,
    columns: int = 4,
    weighted: bool = True,
    seed: int = 0,
) -> Problem:
    """A problem at parameters that are not an optimum."""
    rng = np.random.default_rng(seed)
    family = FAMILIES[name]()
    x = rng.standard_normal((n, columns)) * (rng.random((n, columns)) < 0.7)
    features = Features(KINDS[kind](x), intercept)
    _, targets = draw(family, n, rng)
    weights = rng.uniform(0.3, 2.0, n) if weighted else np.ones(n)
    theta = 0.3 * rng.standard_normal((family.outputs, features.width))
    return Problem(features, targets, weights, family, fixed, each, theta)


def curved(problem: Problem) -> Array:
    """wᵢAᵢ of every example, (n, K, K), entry by entry."""
    d, outputs = problem.derivatives, problem.family.outputs
    return problem.weights[:, None, None] * np.array(
        [[[d.second(c, k)[i] for k in range(outputs)] for c in range(outputs)] for i in range(len(problem.weights))]
    )


def penalty(problem: Problem, share: float) -> Array:
    """share · M ⊗ diag(penalised) as a matrix."""
    return np.asarray(share * np.kron(problem.family.metric(), np.diag(problem.features.penalised)), dtype=float)


def blocks_of(problem: Problem) -> Array:
    """X̃ᵢ = I_K ⊗ xᵢᵀ of every example, (n, K, K·d)."""
    return np.stack([np.kron(np.eye(problem.family.outputs), x) for x in problem.features.dense()])


def hessian(problem: Problem, weights: Array | None = None) -> Array:
    """H = Σ vᵢ wᵢ X̃ᵢᵀ Aᵢ X̃ᵢ + λ(v w) M under weights v, as a matrix."""
    v = np.ones(len(problem.weights)) if weights is None else weights
    wide = blocks_of(problem)
    data = np.einsum("n,ncp,nck,nkq->pq", v, wide, curved(problem), wide)
    return data + penalty(problem, problem.fixed + problem.each * (v * problem.weights).sum())


def gradients(problem: Problem) -> Array:
    """wᵢ(∇ℓᵢ + share of the regulariser) of every example, (n, K·d)."""
    data = np.einsum("ncp,nc->np", blocks_of(problem), problem.derivatives.gradient)
    return problem.weights[:, None] * (data + penalty(problem, problem.each) @ problem.theta.ravel())


def objective(problem: Problem, theta: Array, weights: Array | None = None) -> float:
    """J(θ; v w) from the losses alone."""
    w = problem.weights if weights is None else problem.weights * weights
    z = problem.features.dense() @ theta.reshape(problem.shape).T
    share = problem.fixed + problem.each * w.sum()
    return float(w @ problem.family.at(z, problem.targets).loss + 0.5 * theta @ penalty(problem, share) @ theta)


def slope_of(f: Callable[[Array], Any], at: Array, step: float = 1e-6) -> Array:
    """Central differences of a function of a vector, one column per entry."""
    columns = []
    for j in range(len(at)):
        h = np.zeros(len(at))
        h[j] = step
        columns.append((f(at + h) - f(at - h)) / (2 * step))
    return np.stack(columns, axis=-1)
