"""The error of a curvature that is zero, which has no inverse without damping."""

from __future__ import annotations

import numpy as np
import torch

from upweight.core.blocks import blocks
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.outputs import outputs

CHECKED_TOGETHER = 16  # examples whose losses are differentiated twice at a time

NOTHING_TO_INVERT = "the loss has no curvature here and there is no damping, so nothing can be inverted; give a damping"


class NoCurvatureError(ValueError):
    """Neither the curvature nor the damping has an eigenvalue above zero."""


def require_curvature(name: str, largest: float) -> None:
    """Raise NoCurvatureError unless the largest eigenvalue, or any bound on it, is above zero."""
    if not largest > 0:
        raise NoCurvatureError(
            f"there is no curvature to invert for {name}(), and no damping: either the gradients of all training "
            "losses are zero (the net is certain of every example, or the loss has saturated), and no example has an "
            "effect, or the loss is linear in the outputs; give a damping or an l2, or use Identity()"
        )


def require_curved_loss(summed: SummedObjective) -> None:
    """Raise NoCurvatureError if the losses have gradients in the outputs but no second derivatives, as |z − y|.

    An l2 would make their Gauss–Newton matrix invertible, but that inverse would know nothing of the data. Examples are
    taken until one has a second derivative.
    """
    network, has_gradient = summed.network, False
    for where in blocks(len(summed.train), CHECKED_TOGETHER):
        part = summed.train.take(np.arange(where.start, where.stop))
        with network.preserved():
            out = outputs(network, network.batch(part), part.ids)
        u = torch.randn(out.values.shape, generator=torch.Generator().manual_seed(0)).to(out.wide_values())
        if bool(out.hessian_product()(u).any()):
            return
        has_gradient = has_gradient or bool(out.gradient().any())
    if has_gradient:
        raise NoCurvatureError("the loss has no curvature: it is linear in the outputs at every training example")
