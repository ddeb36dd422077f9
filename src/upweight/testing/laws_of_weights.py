"""Laws of weights: an example of weight 0 is absent, one of weight k is k copies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor
from upweight.core.group_removal import GroupRemoval
from upweight.core.model import Retrainable
from upweight.core.scores import Unit
from upweight.testing.assertions import CLOSE, close, hold
from upweight.testing.case import Case
from upweight.testing.copies import Weighted

Array = NDArray[np.float64]

DAMPING = 0.01  # tried beside the automatic one
TOGETHER = 1e-3  # what Newton steps leave of the effect of all copies together, of the largest
NOTHING = 1e-9  # what an absent example may score, of the largest


def not_copies(case: Case) -> str | None:
    """Why the training of this family takes weights otherwise than as copies; None where it does not."""
    family = case.family
    again = family.counts_rows if Retrainable in type(case.recipe).needs else ""
    return family.not_weighted or family.not_permuted or again or None


def weights(case: Case) -> None:
    """Scores are those of the set written out, copies added up; with the damping automatic and given."""
    _weighted(case, case.recipe, "")
    if getattr(case.recipe, "damping", None) == "auto":
        given: Any = {"damping": DAMPING}
        _weighted(case, replace(case.recipe, **given), f" (damping {DAMPING})")


def _weighted(case: Case, recipe: Attributor, which: str) -> None:
    both, models = case.family.weights
    ours, theirs = recipe.fit(models.weighted, both.weighted), recipe.fit(models.written, both.written)
    scores, written = ours.attribute(case.family.queries), theirs.attribute(case.family.queries)
    hold(scores.unit == written.unit, f"{scores.unit} with weights, {written.unit} written out{which}")
    own_weights = np.asarray(both.weighted.weights)
    expected, scale = _summed(written.values, both), float(np.abs(written.values).max())
    absent = float(np.abs(scores.values[:, own_weights == 0.0]).max())
    hold(absent <= NOTHING * scale, f"an example of weight 0 scores {absent:.3g}, of {scale:.3g} at most{which}")
    once = own_weights == 1.0
    what = f"with weights and written out{which}"
    close(scores.values[:, once], expected[:, once], CLOSE, f"scores {what}")
    own, own_expected = ours.self_influence().values, _summed(theirs.self_influence().values, both)
    close(own[:, once], own_expected[:, once], CLOSE, f"self-influence {what}")
    many = own_weights > 1.0
    if scores.unit == Unit.RANK:
        close(scores.values[:, many], expected[:, many], CLOSE, f"scores of a weight k and sums over k copies{which}")
        close(own[:, many], own_expected[:, many], CLOSE, f"self-influence of a weight k and sums over k copies{which}")
    elif isinstance(theirs, GroupRemoval) and theirs.lacks_removal() is None:
        groups = {f"{place}": both.written.ids[both.origin == place].tolist() for place in np.flatnonzero(many)}
        effects = {form: theirs.remove(groups, case.family.queries, form).values for form in theirs.forms}
        off = {form: float(np.abs(effect - scores.values[:, many]).max()) / scale for form, effect in effects.items()}
        hold(
            min(off.values()) <= TOGETHER,
            f"of the largest, effects of k copies and of a weight k differ by {off}{which}",
        )


def _summed(values: Array, both: Weighted) -> Array:
    """Columns of copies added up, (m, n)."""
    columns = [values[:, both.origin == place].sum(axis=1) for place in range(len(both.weighted))]
    return np.stack(columns, axis=1)
