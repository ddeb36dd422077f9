"""Laws of weights: an example of weight 0 is absent, one of weight k is k copies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.group_removal import GroupRemoval
from upweight.core.model import Retrainable
from upweight.core.scores import Scores, Unit
from upweight.testing.assertions import CLOSE, close, hold
from upweight.testing.case import Case
from upweight.testing.copies import Weighted

Array = NDArray[np.float64]

DAMPING = 0.01  # tried beside the automatic one
FACTS = ("damping", "gradient_norm", "faithful")  # that are numbers of the training set
TOGETHER = 1e-3  # what Newton steps leave of the effect of all copies together, of the largest


def not_copies(case: Case) -> str | None:
    """Why the training of this family takes weights otherwise than as copies; None where it does not."""
    family = case.family
    again = family.counts_rows if Retrainable in type(case.recipe).needs else ""
    return family.not_weighted or family.not_permuted or again or None


def weights(case: Case) -> None:
    """Scores are those of the set written out, copies added up; with the damping automatic and given."""
    both, models = case.family.weights
    ours, theirs = case.recipe.fit(models.weighted, both.weighted), case.recipe.fit(models.written, both.written)
    scores, written = _same_scores(case, ours, theirs, "")
    own, expected = ours.self_influence().values, _summed(theirs.self_influence().values, both)
    sample_weights = np.asarray(both.weighted.weights)
    hold(not own[:, sample_weights == 0.0].any(), "an example of weight 0 has a self-influence")
    alike = sample_weights <= 1.0 if scores.unit == Unit.EFFECT else sample_weights >= 0.0
    close(own[:, alike], expected[:, alike], case.family.weighted, "self-influence with weights and written out")
    for fact in FACTS:
        if written.diagnostics.get(fact) is not None:
            values = scores.diagnostics[fact], written.diagnostics[fact]
            hold(bool(np.isclose(*values, rtol=CLOSE, atol=CLOSE)), f"{fact} is {values[0]}, written out {values[1]}")
    _many(case, scores, written, theirs)
    if getattr(case.recipe, "damping", None) == "auto":
        given: Any = {"damping": DAMPING}
        recipe = replace(case.recipe, **given)
        ours, theirs = recipe.fit(models.weighted, both.weighted), recipe.fit(models.written, both.written)
        _same_scores(case, ours, theirs, f" (damping {DAMPING})")


def _same_scores(case: Case, ours: Any, theirs: Any, which: str) -> tuple[Scores, Scores]:
    """(scores with weights, scores written out), the same where weights are 1, and nothing where they are 0."""
    both, _ = case.family.weights
    scores, written = ours.attribute(case.family.queries), theirs.attribute(case.family.queries)
    sample_weights = np.asarray(both.weighted.weights)
    hold(scores.unit == written.unit, f"{scores.unit} with weights, {written.unit} written out{which}")
    hold(not scores.values[:, sample_weights == 0.0].any(), f"an example of weight 0 has scores{which}")
    once = sample_weights == 1.0
    expected = _summed(written.values, both)[:, once]
    close(scores.values[:, once], expected, case.family.weighted, f"scores with weights and written out{which}")
    return scores, written


def _many(case: Case, scores: Scores, written: Scores, theirs: Any) -> None:
    """An example of weight k has the scores of its k copies added up; or the effect of all of them, where it is one."""
    both, _ = case.family.weights
    many = np.flatnonzero(np.asarray(both.weighted.weights) > 1.0)
    ours, sums, scale = scores.values[:, many], _summed(written.values, both)[:, many], np.abs(written.values).max()
    if scores.unit == Unit.RANK:
        close(ours, sums, case.family.weighted, "scores of a weight k and sums over k copies")
    elif isinstance(theirs, GroupRemoval) and theirs.lacks_removal() is None:
        groups = {str(place): both.written.ids[both.origin == place].tolist() for place in many}
        effects = {form: theirs.remove(groups, case.family.queries, form).values for form in theirs.forms}
        off = {
            form: float(np.abs(ours - expected).max() / scale) for form, expected in {"sum": sums, **effects}.items()
        }
        hold(min(off.values()) <= TOGETHER, f"of the largest, a weight k differs from k copies by {off}")


def _summed(values: Array, both: Weighted) -> Array:
    """Columns of copies added up, (m, n)."""
    columns = [values[:, both.origin == place].sum(axis=1) for place in range(len(both.weighted))]
    return np.stack(columns, axis=1)
