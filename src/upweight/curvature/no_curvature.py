"""The error of a curvature that is zero, which has no inverse without damping."""

from __future__ import annotations

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
