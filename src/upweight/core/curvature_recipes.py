"""Recipes that name a curvature and its solver. They are settings only, so that this file needs no framework."""

from __future__ import annotations

from dataclasses import dataclass, field

from upweight.core.identity import AS_BEFORE


@dataclass(frozen=True, kw_only=True)
class Direct:
    """Assemble the matrix and factor it once (Cholesky). Exact; memory grows with the square of the parameters."""


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

    v ← b + v − (H_B + λ) v / scale, `depth` times, averaged over `repeats`. `scale` is for the summed
    objective (n times that for a mean loss); None takes 1.1 times the largest eigenvalue. If the series diverges it is
    restarted at twice the scale; if it diverges at every scale, an error is raised.
    """

    depth: int = 1000
    repeats: int = 1
    scale: float | None = None
    batch: int = 64
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Arnoldi:
    """The largest `rank` eigenpairs from `steps` Krylov steps (Schioppa et al. 2022); the others are ignored."""

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
    """The identity in place of a curvature: plain inner products of gradients."""


@dataclass(frozen=True, kw_only=True)
class Diagonal:
    """The diagonal of the empirical Fisher: one number per parameter."""


@dataclass(frozen=True, kw_only=True)
class Hessian:
    """The Hessian of the training objective; `solver=None` is direct if the matrix fits, else CG."""

    solver: Solver | None = None


@dataclass(frozen=True, kw_only=True)
class GaussNewton:
    """Σ Jᵀ Λ J: the Hessian without the curvature of the network; positive semidefinite, exact for linear models.

    `solver=None` is direct if the matrix fits (in the dual form for wide networks), else preconditioned conjugate
    gradients for all queries at once.
    """

    solver: Solver | None = None


@dataclass(frozen=True, kw_only=True)
class EmpiricalFisher:
    """Σ g gᵀ with the gradients of the true labels. Solved exactly in its dual n × n form, by Cholesky."""


@dataclass(frozen=True, kw_only=True)
class DataInf:
    """The mean of the inverses of λ + gᵢgᵢᵀ in place of the inverse of their mean, layer by layer (Kwon et al. 2024).

    Close to the inverse of the empirical Fisher for layers with few parameters, such as adapters (LoRA).
    """


@dataclass(frozen=True, kw_only=True)
class KFAC:
    """Kronecker factors per layer (Martens & Grosse 2015).

    The expectation over labels is exact for up to 256 outputs, unless that takes too many numbers, as in deep
    convolutional nets; then it is taken from a few draws per example.
    """


@dataclass(frozen=True, kw_only=True)
class EKFAC:
    """KFAC with eigenvalues corrected to the true second moments (George et al. 2018); labels as for KFAC.

    Args:
        eigenvalue_examples: about how many examples the eigenvalues are estimated from, chosen by their curvature and
            contents. A small part saves half of the fit; eigenvectors are those of all examples. None for all, or for a
            quarter (at least 100) where the label directions of each example are added in groups, as in convolutional
            nets of many examples; then a number of at least that of the examples (Σ of their weights) takes all.

    Raises:
        ValueError: fewer than one example.
    """

    eigenvalue_examples: int | None = field(default=None, metadata={AS_BEFORE: None})

    def __post_init__(self) -> None:
        if self.eigenvalue_examples is not None and self.eigenvalue_examples < 1:
            raise ValueError(
                f"expected eigenvalues from at least one example, got {self.eigenvalue_examples}; None is the default"
            )

    def __repr__(self) -> str:
        """Without the default, which is the usual case."""
        return f"EKFAC(eigenvalue_examples={self.eigenvalue_examples})" if self.eigenvalue_examples else "EKFAC()"


@dataclass(frozen=True, kw_only=True)
class WithinBudget:
    """The best curvature that a budget allows, for networks; `Influence()` takes it.

    In order: `GaussNewton()` for a net that is linear in its parameters (its objective is convex) or has at most 3,000
    of them, `EKFAC()`, `KFAC()`, `EmpiricalFisher()`, `Diagonal()`. The flops of each are counted from the sizes of the
    layers before it is computed, so that the choice is the same on every machine.

    Args:
        passes: the budget in forward-backward passes over the training set. Less than 5·10¹¹ flops, which a processor
            core takes a few seconds for, are always within it.
    """

    passes: float = 60.0

    def __post_init__(self) -> None:
        if not self.passes > 0:
            raise ValueError(f"expected a budget of more than 0 passes over the training set, got {self.passes}")


CurvatureRecipe = WithinBudget | Identity | Diagonal | Hessian | GaussNewton | EmpiricalFisher | DataInf | KFAC | EKFAC
