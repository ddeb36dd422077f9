"""The law of weights: an example of weight 0 is absent, and an example of weight k is k copies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.group_removal import GroupRemoval
from upweight.core.model import Retrainable
from upweight.core.scores import Scores, Unit
from upweight.testing.assertions import SOLVER_TOLERANCE, assert_close, assert_true
from upweight.testing.case import Case
from upweight.testing.copies import WeightedExamples

Array = NDArray[np.float64]

GIVEN_DAMPING = 0.01  # tried in addition to the automatic damping
COMPARED_DIAGNOSTICS = ("damping", "gradient_norm", "faithful")  # diagnostics that depend on the training set alone
JOINT_EFFECT_TOLERANCE = 1e-3  # largest error of Newton steps for all copies, as a share of the largest score


def not_copies(case: Case) -> str | None:
    """Return why the training of this family does not treat weights as copies; None if it does."""
    family = case.family
    if Retrainable in type(case.recipe).needs:
        return family.not_retrained_as_copies or None
    return family.not_weighted or family.not_permuted or None


def check_weights(case: Case) -> None:
    """Scores with weights are those of the expanded set, added up over copies.

    This is tried with the automatic damping and with a given one.
    """
    both, models = case.family.weights
    with_weights = case.recipe.fit(models.weighted, both.weighted)
    with_copies = case.recipe.fit(models.expanded, both.expanded)
    scores, expanded = _assert_same_scores(case, with_weights, with_copies, "")
    self_influence = with_weights.self_influence().values
    expected = _sum_copies(with_copies.self_influence().values, both)
    weights = np.asarray(both.weighted.weights)
    assert_true(
        not self_influence[:, weights == 0.0].any(), "expected a self-influence of 0 for an example of weight 0"
    )
    comparable = weights <= 1.0 if scores.unit == Unit.EFFECT else weights >= 0.0
    assert_close(
        self_influence[:, comparable],
        expected[:, comparable],
        case.family.weighted,
        "self-influence with weights and with copies",
    )
    for key in COMPARED_DIAGNOSTICS:
        if expanded.diagnostics.get(key) is not None:
            values = scores.diagnostics[key], expanded.diagnostics[key]
            assert_true(
                bool(np.isclose(*values, rtol=SOLVER_TOLERANCE, atol=SOLVER_TOLERANCE)),
                f"{key} is {values[0]} with weights and {values[1]} with copies",
            )
    _assert_joint_scores(case, scores, expanded, with_copies)
    if getattr(case.recipe, "damping", None) == "auto":
        given: Any = {"damping": GIVEN_DAMPING}
        recipe = replace(case.recipe, **given)
        with_weights = recipe.fit(models.weighted, both.weighted)
        with_copies = recipe.fit(models.expanded, both.expanded)
        _assert_same_scores(case, with_weights, with_copies, f" (damping {GIVEN_DAMPING})")


def _assert_same_scores(case: Case, with_weights: Any, with_copies: Any, settings: str) -> tuple[Scores, Scores]:
    """Compare scores of examples of weight 1 and 0; return (scores with weights, scores with copies)."""
    both, _ = case.family.weights
    scores, expanded = with_weights.attribute(case.family.queries), with_copies.attribute(case.family.queries)
    weights = np.asarray(both.weighted.weights)
    # A solver that gave up, as conjugate gradients on an indefinite Hessian do, says so and has no score to compare.
    if settings and False in (answer.diagnostics.get("converged") for answer in (scores, expanded)):
        return scores, expanded
    assert_true(
        scores.unit == expanded.unit,
        f"the unit is {scores.unit} with weights and {expanded.unit} with copies{settings}",
    )
    assert_true(
        not scores.values[:, weights == 0.0].any(), f"expected scores of 0 for an example of weight 0{settings}"
    )
    has_weight_1 = weights == 1.0
    expected = _sum_copies(expanded.values, both)[:, has_weight_1]
    assert_close(
        scores.values[:, has_weight_1], expected, case.family.weighted, f"scores with weights and with copies{settings}"
    )
    return scores, expanded


def _assert_joint_scores(case: Case, scores: Scores, expanded: Scores, with_copies: Any) -> None:
    """An example of weight k has the sum of the scores of its k copies; an effect may be that of all k together."""
    both, _ = case.family.weights
    repeated = np.flatnonzero(np.asarray(both.weighted.weights) > 1.0)
    with_weights, sums = scores.values[:, repeated], _sum_copies(expanded.values, both)[:, repeated]
    scale = np.abs(expanded.values).max()
    if scores.unit == Unit.RANK:
        assert_close(with_weights, sums, case.family.weighted, "scores of a weight k and sums over k copies")
    elif isinstance(with_copies, GroupRemoval) and with_copies.lacks_removal() is None:
        groups = {str(position): both.expanded.ids[both.origin == position].tolist() for position in repeated}
        effects = {form: with_copies.remove(groups, case.family.queries, form).values for form in with_copies.forms}
        off = {
            form: float(np.abs(with_weights - expected).max() / scale)
            for form, expected in {"sum": sums, **effects}.items()
        }
        assert_true(
            min(off.values()) <= JOINT_EFFECT_TOLERANCE,
            f"scores of a weight k differ from those of k copies by this share of the largest score: {off}",
        )


def _sum_copies(values: Array, both: WeightedExamples) -> Array:
    """Add up the columns of each example's copies, (m, n)."""
    columns = [values[:, both.origin == position].sum(axis=1) for position in range(len(both.weighted))]
    return np.stack(columns, axis=1)
