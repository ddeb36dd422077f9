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
class LiSSA:
    """Truncated Neumann series on random batches (Agarwal et al. 2017; Koh & Liang 2017, §3).

    v ← b + v − (H_B + λ) v / scale, `depth` times, averaged over `repeats`. `scale` is that of the summed
    objective (n times that of a mean loss); None takes 1.1 times the largest eigenvalue. A series that grows is started
    again at twice the scale; one that grows at every scale is an error.
    """

    depth: int = 1000
    repeats: int = 1
    scale: float | None = None
    batch: int = 64
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Arnoldi:
    """The largest `rank` eigenpairs from `steps` Krylov steps (Schioppa et al. 2022); what they miss has no effect."""

    rank: int = 50
    steps: int = 100
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Nystrom:
    """Rank-`rank` randomised Nyström approximation (Frangella, Tropp & Udell 2023), solved by Woodbury."""

    rank: int = 100
    seed: int = 0


Solver = Direct | CG | LiSSA | Arnoldi | Nystrom


@dataclass(frozen=True, kw_only=True)
class Identity:
    """No curvature: inner products of gradients."""


@dataclass(frozen=True, kw_only=True)
class Diagonal:
    """The diagonal of the empirical Fisher: one number per parameter."""


@dataclass(frozen=True, kw_only=True)
class Hessian:
    """The Hessian of the training objective; `solver=None` takes the direct one where it fits, then CG."""

    solver: Solver | None = None


@dataclass(frozen=True, kw_only=True)
class GaussNewton:
    """Σ Jᵀ Λ J: the Hessian without the curvature of the net, positive semidefinite; the same where it is linear.

    `solver=None` takes the direct one where it fits (in the dual form for wide nets), else preconditioned conjugate
    gradients, all queries at once.
    """

    solver: Solver | None = None


@dataclass(frozen=True, kw_only=True)
class EmpiricalFisher:
    """Σ g gᵀ of the true labels, in its dual n × n form: one Gram matrix, one Cholesky, exact."""


@dataclass(frozen=True, kw_only=True)
class DataInf:
    """Mean and inverse swapped, layer by layer (Kwon et al. 2024): the mean of the inverses of λ + gᵢgᵢᵀ.

    Close to the empirical Fisher's inverse for layers of few parameters, as adapters (LoRA) have.
    """


@dataclass(frozen=True, kw_only=True)
class KFAC:
    """Kronecker factors per layer (Martens & Grosse 2015), expectation over labels exact for up to 256 outputs."""


@dataclass(frozen=True, kw_only=True)
class EKFAC:
    """KFAC with eigenvalues corrected to the true second moments (George et al. 2018); labels as for KFAC."""


CurvatureRecipe = Identity | Diagonal | Hessian | GaussNewton | EmpiricalFisher | DataInf | KFAC | EKFAC
