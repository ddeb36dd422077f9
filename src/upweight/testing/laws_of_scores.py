"""Laws of scores: their shape, signs, order and grouping."""

from __future__ import annotations

from typing import Any

import numpy as np

from upweight.core.group_removal import GroupRemoval
from upweight.core.model import Measurable
from upweight.core.scores import Unit
from upweight.testing.assertions import SOLVER_TOLERANCE, assert_close, assert_identical, assert_refused, assert_true
from upweight.testing.case import TOP_K, Case, recipes

GROUPS_OF_ONE = 2  # training examples that are removed as groups of one: those with the largest scores
EFFECT_TOLERANCE = 0.05  # share of the largest score by which the effect of a group of one may differ from its score


def check_facts(case: Case) -> None:
    """The class states summary, cost, unit, needs, a floor against retraining or why it has none, and valid variants.

    Everything that is missing is reported at once.
    """
    method, promises = type(case.recipe), case.recipe.promises
    name = method.__name__
    problems = [
        f"expected {name}.{fact} in a line, got nothing" for fact in ("summary", "cost") if not getattr(method, fact)
    ]
    if "\n" in method.summary:
        problems.append(f"expected {name}.summary in one line")
    if not all(isinstance(need, type) and issubclass(need, Measurable) for need in method.needs) or not method.needs:
        problems.append(f"expected {name}.needs to name capabilities, got {method.needs!r}")
    if promises.correlation is None and not promises.no_floor:
        problems.append(
            "expected a floor against retraining, Promises(correlation=…), or why there is none, Promises(no_floor='…')"
        )
    for variant, recipe in recipes(method):
        if not isinstance(recipe, method):
            problems.append(f"expected the variant {variant!r} to be a {name}, got {recipe!r}")
    if not isinstance(method.unit, Unit):
        problems.append(f"expected {name}.unit to be a Unit, got {method.unit!r}")
    assert_true(not problems, "; ".join(problems))
    units = {case.scores.unit, case.self_influence.unit}
    assert_true(
        method.unit == Unit.EFFECT or units == {Unit.RANK}, f"{name}.unit is RANK, but these scores are in EFFECT"
    )


def check_shape(case: Case) -> None:
    """Scores have the right shape and ids, are finite, and are what `np.asarray` returns."""
    scores, train, queries = case.scores, case.family.train, case.family.queries
    assert_true(
        scores.values.shape == (len(queries), len(train)), f"expected (queries, train), got {scores.values.shape}"
    )
    assert_true(
        scores.query_ids.tolist() == queries.ids.tolist(), "expected a row for each query in the order of the queries"
    )
    assert_true(
        scores.train_ids.tolist() == train.ids.tolist(), "expected a column for each training example in their order"
    )
    assert_true(bool(np.isfinite(scores.values).all()), "scores are not all finite")
    assert_identical(np.asarray(scores), scores.values, "np.asarray(scores) and scores.values")
    assert_identical(
        np.asarray(case.self_influence), case.self_influence.values, "np.asarray(self-influence) and its values"
    )
    assert_true(
        case.self_influence.values.shape == (1, len(train)),
        f"expected self-influence (1, n), got {case.self_influence.values.shape}",
    )


def check_copy(case: Case) -> None:
    """A training copy of a query has a positive score for it; a copy with another label has a negative score."""
    copied, flipped = case.copied.values[0][-2:]
    assert_true(
        copied > 0 > flipped, f"the copy scores {copied:.3g} (expected above 0), the flipped one {flipped:.3g} (below)"
    )


def check_permutation(case: Case) -> None:
    """If training examples and queries are reordered, the scores are the same, in that order."""
    order, query_order, model = case.family.shuffled
    train, queries = case.family.train.take(order), case.family.queries.take(query_order)
    scores = case.recipe.fit(model, train).attribute(queries)
    expected = case.scores.values[np.ix_(query_order, order)]
    assert_close(scores.values, expected, case.family.permuted, "scores in another order")


def check_batches(case: Case) -> None:
    """Queries attributed alone or a few at a time get the same scores as all queries together."""
    parts = np.vstack([scores.values for scores in case.answers.parts])
    assert_close(parts, case.scores.values, SOLVER_TOLERANCE, "queries in parts of 1 and more, and all together")


def check_history(case: Case) -> None:
    """Two fits that are used in opposite orders give the same scores, in the same unit, for every call."""
    (second, _), answers = case.second_fit, case.answers
    calls: list[tuple[Any, Any, str]] = [
        (answers.all_queries, second.all_queries, "all queries"),
        *zip(answers.parts, second.parts, ("the first query", "the second query"), strict=False),
        (answers.self_influence, second.self_influence, "self-influence"),
        (answers.top, second.top, "top"),
    ]
    for first, second_answer, call in calls:
        assert_close(second_answer.values, first.values, SOLVER_TOLERANCE, f"{call}, called early and late")
        assert_true(
            second_answer.unit == first.unit,
            f"{call}: {first.unit} if called in one order, {second_answer.unit} in the other",
        )


def check_seed(case: Case) -> None:
    """A second fit gives the same bits, and so does a second call of the first one."""
    (second, _), queries = case.second_fit, case.family.queries
    assert_identical(second.all_queries.values, case.scores.values, "scores of two fits")
    assert_identical(
        case.fitted.attribute(queries).values, case.scores.values, "scores of the same queries, attributed twice"
    )


def check_top(case: Case) -> None:
    """`top` returns the examples that are strongest in the score matrix."""
    top, scores = case.answers.top, case.scores
    for query in case.family.queries.ids.tolist():
        for kind in ("proponents", "opponents"):
            streamed, expected = getattr(top, kind)(query), getattr(scores, kind)(query, TOP_K)
            top_ids, matrix_ids = ([attribution.id for attribution in ranked] for ranked in (streamed, expected))
            assert_true(top_ids == matrix_ids, f"top has {top_ids} as {kind} of {query!r}, the matrix has {matrix_ids}")


def check_self_influence(case: Case) -> None:
    """Self-influence is the diagonal of the training set's scores on itself."""
    diagonal = np.diagonal(case.fitted.attribute(case.family.train).values)
    assert_close(
        case.self_influence.values[0],
        diagonal,
        SOLVER_TOLERANCE,
        "self-influence and the scores of the training set on itself",
    )


def check_groups(case: Case) -> None:
    """The score of a group is the sum of its columns."""
    halves = np.where(np.arange(len(case.family.train)) % 2, "odd", "even")
    grouped = case.scores.group(halves)
    assert_true(
        grouped.train_ids.tolist() == ["even", "odd"], f"expected groups even and odd, got {grouped.train_ids.tolist()}"
    )
    assert_close(
        grouped.values[:, 1], case.scores.values[:, 1::2].sum(axis=1), 1e-12, "a group and the sum of its columns"
    )


def cannot_remove(case: Case) -> str | None:
    """Return why this fit cannot remove groups; None if it can."""
    if not isinstance(case.fitted, GroupRemoval):
        return "the method does not compute effects of removed groups"
    return case.fitted.lacks_removal()


def check_removal(case: Case) -> None:
    """`remove` behaves the same for all methods; if scores are effects, one form gives a group of one its score.

    The form that is best at this may differ between methods; at least one has to agree.
    """
    fitted, train, queries = case.fitted, case.family.train, case.family.queries
    assert isinstance(fitted, GroupRemoval)
    strongest = np.argsort(-np.abs(case.scores.values).max(axis=0), kind="stable")[:GROUPS_OF_ONE]
    ids = train.ids[strongest].tolist()
    groups = {f"without {i}": [i] for i in ids}
    assert_true(bool(fitted.forms), "expected `forms` to name at least one form, got none")
    removed = {form: fitted.remove(groups, queries, form) for form in fitted.forms}
    by_default = fitted.remove(groups, queries)
    for form, scores in {**removed, "the first by default": by_default}.items():
        has_ids = scores.train_ids.tolist() == list(groups) and scores.query_ids.tolist() == queries.ids.tolist()
        assert_true(
            has_ids, f"{form}: expected a column per group and a row per query, got {scores.train_ids.tolist()}"
        )
    assert_identical(by_default.values, removed[fitted.forms[0]].values, "the form by default and the first one")
    invalid: list[tuple[Any, str | None, type[Exception]]] = [
        ({}, None, ValueError),
        ({"none": []}, None, ValueError),
        ({"all": train.ids.tolist()}, None, ValueError),
        (groups, "no such form", ValueError),
        ({"unknown": ["no such id"]}, None, KeyError),
    ]
    for members, form_name, error in invalid:
        assert_refused(f"remove({members}, form={form_name!r})", error, "", fitted.remove, members, queries, form_name)
    if case.scores.unit != Unit.EFFECT:
        return
    expected = case.scores.values[:, strongest]
    scale = float(np.abs(case.scores.values).max())
    off = {form: float(np.abs(scores.values - expected).max()) / scale for form, scores in removed.items()}
    assert_true(
        min(off.values()) <= EFFECT_TOLERANCE,
        f"effects of examples removed alone differ from their scores by this share of the largest score: {off}",
    )
