"""The laws of methods: the function that tries each, and the cases to which it does not apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from upweight.core.laws import Law
from upweight.core.model import Retrainable
from upweight.testing import laws_of_identity, laws_of_scores, laws_of_truth, laws_of_weights
from upweight.testing.case import Case
from upweight.testing.results import Outcome, Result, try_check


def _no_reason(case: Case) -> str | None:
    return None


def _depends_on_order(case: Case) -> str | None:
    retraining = case.family.retrained_in_order if Retrainable in type(case.recipe).needs else ""
    return case.family.not_permuted or retraining or None


def _unsolved(case: Case) -> str | None:
    """A solver that gave up says so in the answer, which is no score of influence then."""
    if getattr(getattr(case.recipe, "curvature", None), "solver", None) is None:  # others need no answer for this
        return None
    return "its solver did not converge, and says so" if case.copied.diagnostics.get("converged") is False else None


@dataclass(frozen=True)
class LawCheck:
    """How a law is tried.

    Attributes:
        check: raises AssertionError if the law does not hold.
        silent: returns why the law does not apply to a case (the model cannot do what the law is about), or None.
        excused: returns why a case is excused from the law, or None. An excuse counts like a waiver.
    """

    check: Callable[[Case], None]
    silent: Callable[[Case], str | None] = _no_reason
    excused: Callable[[Case], str | None] = _no_reason


LAW_CHECKS: Mapping[Law, LawCheck] = {
    Law.FACTS: LawCheck(laws_of_scores.check_facts),
    Law.SHAPE: LawCheck(laws_of_scores.check_shape),
    Law.COPY: LawCheck(laws_of_scores.check_copy, excused=_unsolved),
    Law.PERMUTATION: LawCheck(laws_of_scores.check_permutation, excused=_depends_on_order),
    Law.BATCHES: LawCheck(laws_of_scores.check_batches),
    Law.HISTORY: LawCheck(laws_of_scores.check_history),
    Law.SEED: LawCheck(laws_of_scores.check_seed),
    Law.TOP: LawCheck(laws_of_scores.check_top),
    Law.SELF: LawCheck(laws_of_scores.check_self_influence),
    Law.GROUPS: LawCheck(laws_of_scores.check_groups),
    Law.REMOVAL: LawCheck(laws_of_scores.check_removal, laws_of_scores.cannot_remove),
    Law.SAVED: LawCheck(laws_of_identity.check_saved),
    Law.IDENTITY: LawCheck(laws_of_identity.check_identity),
    Law.CHANGED_QUERIES: LawCheck(laws_of_identity.check_changed_queries),
    Law.CHANGED_TRAINING: LawCheck(laws_of_identity.check_changed_training),
    Law.UNTOUCHED: LawCheck(laws_of_identity.check_untouched),
    Law.WEIGHTS: LawCheck(laws_of_weights.check_weights, laws_of_weights.not_copies),
    Law.RETRAINING: LawCheck(laws_of_truth.check_retraining, laws_of_truth.not_promised, laws_of_truth.ranks_only),
}


def standing(law: Law, case: Case) -> tuple[Outcome, str] | None:
    """Return (WAIVED or SILENT, the reason) if the law is not tried on this case; None if it is."""
    reason = LAW_CHECKS[law].silent(case)
    if reason is not None:
        return Outcome.SILENT, reason
    reason = case.waived(law) or LAW_CHECKS[law].excused(case)
    return None if reason is None else (Outcome.WAIVED, reason)


def try_law(law: Law, case: Case) -> Result:
    """Try one law on one case and return the result."""
    outcome_and_reason = standing(law, case)
    if outcome_and_reason is not None:
        return Result(str(law), case.name, *outcome_and_reason)
    return try_check(str(law), case.name, lambda: LAW_CHECKS[law].check(case))
