"""Laws of weights: an example of weight 0 is absent, one of weight k is k copies."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from typing import Any

import numpy as np

from upweight.core.attributor import Attributor
from upweight.testing.assertions import CLOSE, close, hold
from upweight.testing.case import Case

DAMPING = 0.01  # tried beside the automatic one
NOTHING = 1e-9  # what an absent example may score, of the largest


def not_copies(case: Case) -> str | None:
    """Why the training of this family takes weights otherwise than as copies; None where it does not."""
    if case.family.not_weighted:
        return case.family.not_weighted
    if case.family.not_permuted:
        return case.family.not_permuted
    return None


def weights(case: Case) -> None:
    """Scores of all other examples are those of the set written out, with the damping automatic and given."""
    _weighted(case, case.recipe, "")
    if is_dataclass(case.recipe) and getattr(case.recipe, "damping", None) == "auto":
        settings: dict[str, Any] = {"damping": DAMPING}
        _weighted(case, replace(case.recipe, **settings), f" (damping {DAMPING})")


def _weighted(case: Case, recipe: Attributor, which: str) -> None:
    both, models = case.family.weights
    ours, theirs = recipe.fit(models.weighted, both.weighted), recipe.fit(models.written, both.written)
    own_weights = both.weighted.weights
    assert own_weights is not None
    once = np.flatnonzero(own_weights == 1.0)
    there = np.searchsorted(both.origin, once)
    scores, expected = ours.attribute(case.family.queries), theirs.attribute(case.family.queries)
    close(scores.values[:, once], expected.values[:, there], CLOSE, f"scores with weights and written out{which}")
    hold(scores.unit == expected.unit, f"{scores.unit} with weights, {expected.unit} written out{which}")
    absent, scale = float(np.abs(scores.values[:, own_weights == 0.0]).max()), float(np.abs(expected.values).max())
    hold(absent <= NOTHING * scale, f"an example of weight 0 scores {absent:.3g}, of {scale:.3g} at most{which}")
    own, own_expected = ours.self_influence().values[0], theirs.self_influence().values[0]
    close(own[once], own_expected[there], CLOSE, f"self-influence with weights and written out{which}")
