"""Recipes for curvature and its solvers: what to use, said without a framework."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Direct:
    """Assemble the matrix and factor it once (Cholesky): exact, for as many parameters as memory holds squared."""


@dataclass(frozen=True, kw_only=True)
class CG:
    """Preconditioned conjugate gradients (Hestenes & Stiefel 1952) to a relative residual of `tolerance`."""

    tolerance: float = 1e-8
    steps: int = 500

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1 or self.steps < 1:
            raise ValueError(f"expected 0 < tolerance < 1 and steps ≥ 1, got {self.tolerance} and {self.steps}")


@dataclass(frozen=True, kw_only=True)
class Hessian:
    """The Hessian of the training objective; `solver=None` takes the direct one up to 15,000 parameters, then CG."""

    solver: Direct | CG | None = None
