"""The law of truth: scores agree with real retraining."""

from __future__ import annotations

from upweight.core.capability_checks import can
from upweight.core.model import Retrainable
from upweight.core.scores import Unit
from upweight.evaluate.agreement import agreement
from upweight.testing.assertions import assert_true
from upweight.testing.case import Case


def not_promised(case: Case) -> str | None:
    """Return why scores cannot be compared with retraining; None if they can."""
    if not can(case.family.trained, Retrainable):
        return "the model cannot be retrained"
    promises = case.recipe.promises
    return f"no agreement with retraining is promised: {promises.no_floor}" if promises.correlation is None else None


def ranks_only(case: Case) -> str | None:
    """Return why the method promises nothing for these scores, though it does for others; None if it does."""
    promises = case.recipe.promises
    if promises.slope is None or promises.ranking is not None or case.scores.unit == Unit.EFFECT:
        return None
    return "the floor is promised for effects, and on this model these settings give a ranking"


def check_retraining(case: Case) -> None:
    """Scores correlate with the effects of leaving out examples one by one with real retraining.

    If the method promises a slope, the sizes agree too.
    """
    promises = case.recipe.promises
    left_out, actual = case.family.truth
    result = agreement(case.scores.values[:, left_out], actual)
    checks_slope = promises.slope is not None and case.scores.unit == Unit.EFFECT
    floor = promises.correlation if checks_slope or promises.slope is None else promises.ranking
    assert floor is not None
    assert_true(result.pearson >= floor, f"expected a correlation of at least {floor}: {result}")
    if checks_slope and promises.slope is not None:
        low, high = promises.slope
        assert_true(low <= result.slope <= high, f"expected a slope from {low} to {high}: {result}")
