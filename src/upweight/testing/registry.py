"""The laws of methods, each with the function that tries it and the pairs of which it says nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from upweight.core.laws import Law
from upweight.testing import laws_of_identity, laws_of_scores, laws_of_truth, laws_of_weights
from upweight.testing.case import Case
from upweight.testing.results import Outcome, Result, tried


def _always(case: Case) -> str | None:
    return None


def _one_order(case: Case) -> str | None:
    return case.family.not_permuted or None


@dataclass(frozen=True)
class Rule:
    """How a law is tried.

    Attributes:
        check: raises AssertionError where the law does not hold.
        silent: why the law says nothing of such a pair (the model cannot do what it is about); None where it does.
        excused: why this pair is excused from it; None where it is not. Counted like a waiver.
    """

    check: Callable[[Case], None]
    silent: Callable[[Case], str | None] = _always
    excused: Callable[[Case], str | None] = _always


RULES: Mapping[Law, Rule] = {
    Law.FACTS: Rule(laws_of_scores.facts),
    Law.SHAPE: Rule(laws_of_scores.shape),
    Law.COPY: Rule(laws_of_scores.copy),
    Law.PERMUTATION: Rule(laws_of_scores.permutation, excused=_one_order),
    Law.BATCHES: Rule(laws_of_scores.batches),
    Law.HISTORY: Rule(laws_of_scores.history),
    Law.SEED: Rule(laws_of_scores.seed),
    Law.TOP: Rule(laws_of_scores.top),
    Law.SELF: Rule(laws_of_scores.self_influence),
    Law.GROUPS: Rule(laws_of_scores.groups),
    Law.REMOVAL: Rule(laws_of_scores.removal, laws_of_scores.cannot_remove),
    Law.SAVED: Rule(laws_of_identity.saved),
    Law.IDENTITY: Rule(laws_of_identity.identity),
    Law.CHANGED_QUERIES: Rule(laws_of_identity.changed_queries),
    Law.CHANGED_TRAINING: Rule(laws_of_identity.changed_training),
    Law.UNTOUCHED: Rule(laws_of_identity.untouched),
    Law.WEIGHTS: Rule(laws_of_weights.weights, laws_of_weights.not_copies),
    Law.RETRAINING: Rule(laws_of_truth.retraining, laws_of_truth.not_promised, laws_of_truth.ranks_only),
}


def standing(law: Law, case: Case) -> tuple[Outcome, str] | None:
    """(waived or silent, the reason) where the law is not tried on this pair; None where it is."""
    reason = RULES[law].silent(case)
    if reason is not None:
        return Outcome.SILENT, reason
    reason = case.waived(law) or RULES[law].excused(case)
    return None if reason is None else (Outcome.WAIVED, reason)


def try_law(law: Law, case: Case) -> Result:
    """What comes of a law on a pair."""
    known = standing(law, case)
    if known is not None:
        return Result(str(law), case.name, *known)
    return tried(str(law), case.name, lambda: RULES[law].check(case))
