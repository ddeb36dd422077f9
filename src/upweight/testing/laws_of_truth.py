"""Laws of truth: scores against real retraining."""

from __future__ import annotations

from upweight.core.model import Retrainable, can
from upweight.core.scores import Unit
from upweight.evaluate.agreement import agreement
from upweight.testing.assertions import hold
from upweight.testing.case import Case


def not_promised(case: Case) -> str | None:
    """Why there is nothing to hold scores against; None where there is."""
    if not can(case.family.trained, Retrainable):
        return "the model cannot be trained again"
    promises = case.recipe.promises
    return f"no agreement with retraining is promised: {promises.no_floor}" if promises.correlation is None else None


def ranks_only(case: Case) -> str | None:
    """Why nothing is promised of this answer, though something is of others; None where it is."""
    promises = case.recipe.promises
    if promises.slope is None or promises.ranking is not None or case.scores.unit == Unit.EFFECT:
        return None
    return "the floor is one of effects, and on this model these settings give a ranking"


def retraining(case: Case) -> None:
    """Left out one by one and really retrained, examples have effects that correlate, and where promised in size."""
    promises = case.recipe.promises
    left_out, actual = case.family.truth
    agrees = agreement(case.scores.values[:, left_out], actual)
    in_size = promises.slope is not None and case.scores.unit == Unit.EFFECT
    floor = promises.correlation if in_size or promises.slope is None else promises.ranking
    assert floor is not None
    hold(agrees.pearson >= floor, f"expected a correlation of at least {floor}: {agrees}")
    if in_size and promises.slope is not None:
        low, high = promises.slope
        hold(low <= agrees.slope <= high, f"expected a slope from {low} to {high}: {agrees}")
