"""Damping that is not the user's job: the objective's l2, and what a spectrum needs beyond it."""

from __future__ import annotations

import numpy as np

from upweight.core.recipes import CurvatureRecipe, DataInf, EmpiricalFisher, GaussNewton, Hessian, Identity
from upweight.curvature.expectation import expected_gradients
from upweight.curvature.objective import Summed
from upweight.gradients.rows import CapturedRows

SAMPLED = 256  # examples from which a trace is estimated
SHARE = 0.7  # of the mean eigenvalue of a Gauss–Newton matrix or Hessian, over the rank that n examples give
SHARE_FACTORED = 0.05  # of the same, for matrices that only approximate it
SHARE_EMPIRICAL = 1.0  # of an empirical Fisher's, whose gradients shrink as the model fits

LAYERED = (
    "a tenth of the mean squared gradient per parameter in every layer, beyond the objective's l2 (Kwon et al. 2024)"
)


def automatic(summed: Summed, recipe: CurvatureRecipe) -> tuple[float, str]:
    """(damping on the summed scale, where it comes from): a share of the mean nonzero eigenvalue, less the l2 there is.

    The mean is over min(p, n) eigenvalues, not over all p: otherwise the same share would mean less damping the wider
    the net is. The shares were chosen by the LDS of the scores of MLPs (784-512-256-10 on 2,000 digits, after which .96
    and 1.00 of them are classified right).
    """
    if isinstance(recipe, Identity):
        return 0.0, "the identity needs none"
    if isinstance(recipe, DataInf):
        return 0.0, LAYERED
    network, n = summed.network, len(summed.train)
    few = summed.train.take(np.unique(np.linspace(0, n - 1, min(n, SAMPLED)).astype(int)))
    if isinstance(recipe, EmpiricalFisher):
        trace = float(CapturedRows(network, few, "loss").squares().sum())
        share = SHARE_EMPIRICAL
    else:
        trace = sum(float(batch.squares().sum()) for _, batch in expected_gradients(summed, few))
        share = SHARE if isinstance(recipe, GaussNewton | Hessian) else SHARE_FACTORED
    rank = min(network.size, n)
    wanted = share * trace * (summed.weights.sum() / len(few)) / rank
    if wanted <= summed.ridge:
        return 0.0, f"none beyond the objective's l2, which is more than {share:g} of the mean eigenvalue"
    return (
        wanted - summed.ridge,
        f"{share:g} of the mean eigenvalue (trace over {rank:,}), the objective's l2 included",
    )
