"""Automatic damping: from the objective's l2, the training time, or the trace of the curvature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray

from upweight.core.curvature_recipes import (
    EKFAC,
    KFAC,
    CurvatureRecipe,
    DataInf,
    Diagonal,
    EmpiricalFisher,
    GaussNewton,
    Hessian,
    Identity,
)
from upweight.core.examples import Examples
from upweight.curvature.early_stopping import DAMPING_TIMES_TIME
from upweight.curvature.label_expectation import expected_gradients, independent_losses
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.outputs import NoOutputsError

Array = NDArray[np.float64]
NEIGHBOUR_RATIOS = {"λ/3": 1 / 3, "3λ": 3.0}  # dampings that the scores are compared at, over the one chosen
COMPARED_QUERIES = 8  # queries whose scores are compared
POLYNOMIAL_DEGREE = 5
MAX_TRACE_EXAMPLES = 256  # examples from which a trace is estimated
CURVATURE_SHARE = 0.7  # damping over the mean eigenvalue of a Gauss–Newton matrix or Hessian of rank n
DIAGONAL_SHARE = 0.05  # damping over the same mean eigenvalue, for the diagonal alone
FISHER_SHARE = 0.3  # of the mean eigenvalue of an empirical Fisher: its gradients shrink as the model fits

DATAINF_DAMPING_FROM = (
    "a tenth of the mean squared gradient per parameter in every layer, beyond the objective's l2 (Kwon et al. 2024)"
)


def match_to_time(summed: SummedObjective, time: float) -> SummedObjective:
    """The objective with damping 2/τ for a training of τ = Σ ηₜ/(1 − β).

    Early stopping acts like a ridge; 2/τ is the ridge of the later half of the training. In the first half the features
    were different, so gradients at the end say little about it. On MLPs and a CNN that stop early, LDS is .01 to .08
    higher with 2/τ and `earlier` than with 1/τ; after long trainings it is up to .02 lower.
    """
    if not (np.isfinite(time) and time > 0):
        raise ValueError(f"expected a training time Σ ηₜ/(1 − β) above zero, got {time}; give a damping instead")
    source = f"2/τ beyond the objective's l2, for a training of τ = Σ ηₜ/(1 − β) = {time:.4g}"
    return replace(summed, damping=DAMPING_TIMES_TIME * summed.total / time, damping_from=source, time_matched=True)


def choose_damping(summed: SummedObjective, recipe: CurvatureRecipe, time: float | None = None) -> SummedObjective:
    """The objective with a damping for this recipe.

    It is matched to the training time if that is known. Otherwise it is a share of the mean nonzero eigenvalue, less
    the objective's l2. An empirical Fisher does not use the time: its scale is not that of the curvature.

    The mean is over the eigenvalues that can be nonzero, not over all p: otherwise the same share would mean less
    damping the wider the net is. The shares were chosen by the LDS of the scores of MLPs (784-512-256-10 on 2,000
    digits, of which they classify .96 and 1.00 correctly).
    """
    if isinstance(recipe, Identity):
        return replace(summed, damping_from="the identity needs none")
    if isinstance(recipe, DataInf):
        return replace(summed, damping_from=DATAINF_DAMPING_FROM)
    if isinstance(recipe, EmpiricalFisher):
        return summed  # chosen later from the trace of the Gram matrix
    if time is None and isinstance(recipe, KFAC | EKFAC):
        return summed  # chosen later from the factors, layer by layer
    if time is not None and not isinstance(recipe, Diagonal):
        return match_to_time(summed, time)
    sample, weights = _sample(summed)
    scale = summed.weights.sum() / weights.sum()
    share = CURVATURE_SHARE if isinstance(recipe, GaussNewton | Hessian) else DIAGONAL_SHARE
    try:
        trace = sum(float(batch.squares().sum()) for _, batch in expected_gradients(summed, (sample, weights)))
        damping, source = damping_from_trace(summed, trace * scale, share, curvature_rank(summed))
    except NoOutputsError:  # the Hessian and the diagonal need no outputs, nor does their damping
        if isinstance(recipe, GaussNewton):
            raise
        trace = float(CapturedRows(summed.network, sample, "loss", weights=np.sqrt(weights)).squares().sum())
        damping, source = damping_from_trace(summed, trace * scale, min(share, FISHER_SHARE))
        source += ", estimated from gradients of the true labels"
    return replace(summed, damping=damping, damping_from=source)


def _sample(summed: SummedObjective) -> tuple[Examples, Array]:
    """Examples spread evenly over the training set as if copies were written out, and their weights in the sample."""
    ends = np.cumsum(summed.copies)
    points = np.linspace(0, ends[-1] - 1, int(min(ends[-1], MAX_TRACE_EXAMPLES))).astype(int)
    where, counts = np.unique(np.searchsorted(ends, points, side="right"), return_counts=True)
    return summed.train.take(where), counts * summed.weights[where] / summed.copies[where]


def curvature_rank(summed: SummedObjective) -> float:
    """How many eigenvalues count as nonzero: one for each loss in the sum, of an example or of one of its tokens."""
    return min(summed.network.size, independent_losses(summed))


def damping_from_trace(
    summed: SummedObjective, trace: float, share: float = FISHER_SHARE, rank: float | None = None
) -> tuple[float, str]:
    """(damping, its origin): what the objective's l2 lacks of this share of the mean eigenvalue, trace / rank.

    The rank defaults to the number of examples, which have one gradient each.
    """
    rank = min(summed.network.size, float(summed.copies.sum())) if rank is None else rank
    target = share * trace / rank
    if target <= summed.ridge:
        return 0.0, f"none beyond the objective's l2, which is more than {share:g} of the mean eigenvalue"
    return (
        target - summed.ridge,
        f"{share:g} of the mean eigenvalue (trace over {rank:,.0f}), the objective's l2 included",
    )


def neighbouring_solutions(dual: Array, solve: Callable[[Array], Array]) -> dict[str, Array]:
    """(K + ratio · λ)⁻¹ b for the `NEIGHBOUR_RATIOS`, from dual = (K + λ)⁻¹ b and solve: x ↦ λ (K + λ)⁻¹ x.

    They are dual / (1 + (ratio − 1) t) for a matrix t with eigenvalues in [0, 1]. A polynomial in t comes within .2 %
    of that, and its powers serve all ratios.
    """
    powers = [dual]
    for _ in range(POLYNOMIAL_DEGREE):
        powers.append(solve(powers[-1]))
    solutions = {}
    for name, ratio in NEIGHBOUR_RATIOS.items():
        series = Chebyshev.interpolate(_quotient, POLYNOMIAL_DEGREE, domain=[0, 1], args=(ratio,))
        coefficients = np.asarray(series.convert(kind=Polynomial).coef, dtype=np.float64)
        solutions[name] = np.asarray(np.tensordot(coefficients, np.stack(powers), axes=1))
    return solutions


def _quotient(t: Array, ratio: float) -> Array:
    return 1 / (1 + (ratio - 1) * t)


def mean_rank_correlation(scores: Array, others: Array) -> float:
    """Mean over queries (rows) of the rank correlation of two matrices of scores."""
    ranks = [each.argsort(axis=1).argsort(axis=1) for each in (scores, others)]
    left, right = (rank - (rank.shape[1] - 1) / 2 for rank in ranks)
    return float(((left * right).sum(axis=1) / np.maximum((left**2).sum(axis=1), 0.5)).mean())
