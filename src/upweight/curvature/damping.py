"""Damping that is not the user's job: the objective's l2, and what a spectrum needs beyond it."""

from __future__ import annotations

import numpy as np

from upweight.core.examples import Examples
from upweight.core.recipes import CurvatureRecipe, EmpiricalFisher, Identity
from upweight.curvature.expectation import expected_gradients
from upweight.curvature.objective import Summed
from upweight.gradients.rows import CapturedRows

SAMPLED = 256  # examples from which a trace is estimated
SHARE = 0.3  # of the mean nonzero eigenvalue of a Gauss–Newton matrix or Hessian
SHARE_EMPIRICAL = 1.0  # of an empirical Fisher's, whose gradients shrink as the model fits


def automatic(summed: Summed, recipe: CurvatureRecipe) -> tuple[float, str]:
    """(damping on the summed scale, where it comes from): a share of the mean nonzero eigenvalue, less the l2 there is.

    The mean is over the rank that n examples can give, min(p, n·outputs), not over all p parameters: otherwise the same
    share would mean less damping the wider the net is. The shares were chosen on an MLP and a softmax regression; the
    quality of scores is flat within a factor of three of them.
    """
    if isinstance(recipe, Identity):
        return 0.0, "the identity needs none"
    network, n = summed.network, len(summed.train)
    few = summed.train.take(np.unique(np.linspace(0, n - 1, min(n, SAMPLED)).astype(int)))
    if isinstance(recipe, EmpiricalFisher):
        trace = float(CapturedRows(network, few, "loss").squares().sum())
        rank, share = min(network.size, n), SHARE_EMPIRICAL
    else:
        trace, outputs = _trace(summed, few)
        rank, share = min(network.size, n * outputs), SHARE
    wanted = share * trace * (summed.weights.sum() / len(few)) / rank
    if wanted <= summed.ridge:
        return 0.0, f"none beyond the objective's l2, which is more than {share:g} of the mean eigenvalue"
    return (
        wanted - summed.ridge,
        f"{share:g} of the mean eigenvalue (trace over rank {rank:,}), the objective's l2 included",
    )


def _trace(summed: Summed, few: Examples) -> tuple[float, int]:
    """(trace of the Gauss–Newton matrix of these examples, directions that their outputs have)."""
    trace, directions = 0.0, 0
    for c, batch in expected_gradients(summed, few):
        trace += float(batch.squares().sum())
        directions = max(directions, c + 1)
    return trace, max(directions, 1)
