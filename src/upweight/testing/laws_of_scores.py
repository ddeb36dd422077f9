"""Laws of scores: shape, signs, order and grouping of what a method answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from upweight.core.group_removal import GroupRemoval
from upweight.core.model import Measurable
from upweight.core.scores import Unit
from upweight.testing.assertions import CLOSE, close, hold, refused, same
from upweight.testing.case import STRONGEST, Case, recipes

ALONE = 2  # training examples, those of the largest scores, that are removed as groups of one
SAME_EFFECT = 0.05  # what the effect of a group of one may differ by from the score, of the largest


def facts(case: Case) -> None:
    """Summary, cost, unit and needs; a floor against retraining or why there is none; variants that can be made.

    All that is missing is reported at once.
    """
    method, promises = type(case.recipe), case.recipe.promises
    name = method.__name__
    wrong = [
        f"expected {name}.{fact} in a line, got nothing" for fact in ("summary", "cost") if not getattr(method, fact)
    ]
    if "\n" in method.summary:
        wrong.append(f"expected {name}.summary in one line")
    if not all(isinstance(need, type) and issubclass(need, Measurable) for need in method.needs) or not method.needs:
        wrong.append(f"expected {name}.needs to name capabilities, got {method.needs!r}")
    if promises.correlation is None and not promises.no_floor:
        wrong.append(
            "expected a floor against retraining, Promises(correlation=…), or why there is none, Promises(no_floor='…')"
        )
    for variant, recipe in recipes(method):
        if not isinstance(recipe, method):
            wrong.append(f"the variant {variant!r} is no {name}")
    if not isinstance(method.unit, Unit):
        wrong.append(f"expected {name}.unit to be a Unit, got {method.unit!r}")
    hold(not wrong, "; ".join(wrong))
    units = {case.scores.unit, case.own.unit}
    hold(method.unit == Unit.EFFECT or units == {Unit.RANK}, f"{name}.unit is RANK, and this answer says EFFECT")


def shape(case: Case) -> None:
    """Shape, ids, finite numbers, and the array that `np.asarray` gives."""
    scores, train, queries = case.scores, case.family.train, case.family.queries
    hold(scores.values.shape == (len(queries), len(train)), f"expected (queries, train), got {scores.values.shape}")
    hold(scores.query_ids.tolist() == queries.ids.tolist(), "rows are not the queries in their order")
    hold(scores.train_ids.tolist() == train.ids.tolist(), "columns are not the training examples in their order")
    hold(bool(np.isfinite(scores.values).all()), "scores are not all finite")
    same(np.asarray(scores), scores.values, "np.asarray(scores) and scores.values")
    same(np.asarray(case.own), case.own.values, "np.asarray(self-influence) and its values")
    hold(case.own.values.shape == (1, len(train)), f"expected self-influence (1, n), got {case.own.values.shape}")


def copy(case: Case) -> None:
    """A training copy of a query has a positive score for it, one with another label a negative one."""
    train, query, model = case.family.copied
    row = case.recipe.fit(model, train).attribute(query).values[0]
    copied, flipped = row[-2:]
    hold(
        copied > 0 > flipped, f"the copy scores {copied:.3g} (expected above 0), the flipped one {flipped:.3g} (below)"
    )


def permutation(case: Case) -> None:
    """Another order of training examples and queries gives the same scores in that order."""
    order, query_order, model = case.family.shuffled
    train, queries = case.family.train.take(order), case.family.queries.take(query_order)
    scores = case.recipe.fit(model, train).attribute(queries)
    expected = case.scores.values[np.ix_(query_order, order)]
    close(scores.values, expected, case.family.permuted, "scores in another order")


def batches(case: Case) -> None:
    """Queries asked alone or a few at a time get the scores that they get among all."""
    parts = np.vstack([scores.values for scores in case.answers.parts])
    close(parts, case.scores.values, CLOSE, "queries in parts of 1 and more, and all together")


def history(case: Case) -> None:
    """Two fits that were asked in opposite orders say the same, in the same unit, to every question."""
    (again, _), answers = case.again, case.answers
    questions: list[tuple[Any, Any, str]] = [
        (answers.together, again.together, "all queries"),
        *zip(answers.parts, again.parts, ("the first query", "the second query"), strict=False),
        (answers.own, again.own, "self-influence"),
        (answers.top, again.top, "top"),
    ]
    for ours, theirs, question in questions:
        close(theirs.values, ours.values, CLOSE, f"{question} asked early and late")
        hold(theirs.unit == ours.unit, f"{question}: {ours.unit} asked in one order, {theirs.unit} in the other")


def seed(case: Case) -> None:
    """A second fit, and the first one asked again, give the same bits."""
    (again, _), question = case.again, case.family.queries
    same(again.together.values, case.scores.values, "scores of two fits")
    same(case.fitted.attribute(question).values, case.scores.values, "scores of one question asked twice")


def top(case: Case) -> None:
    """The strongest of the streamed answer are the strongest of the matrix."""
    top, scores = case.answers.top, case.scores
    for query in case.family.queries.ids.tolist():
        for kind in ("proponents", "opponents"):
            streamed, expected = getattr(top, kind)(query), getattr(scores, kind)(query, STRONGEST)
            ours, theirs = ([attribution.id for attribution in some] for some in (streamed, expected))
            hold(ours == theirs, f"top has {ours} as {kind} of {query!r}, the matrix {theirs}")


def self_influence(case: Case) -> None:
    """Self-influence is the diagonal of the training set's scores on itself."""
    diagonal = np.diagonal(case.fitted.attribute(case.family.train).values)
    close(case.own.values[0], diagonal, CLOSE, "self-influence and the scores of the training set on itself")


def groups(case: Case) -> None:
    """Grouped scores are sums of columns."""
    halves = np.where(np.arange(len(case.family.train)) % 2, "odd", "even")
    grouped = case.scores.group(halves)
    hold(grouped.train_ids.tolist() == ["even", "odd"], f"groups came as {grouped.train_ids.tolist()}")
    close(grouped.values[:, 1], case.scores.values[:, 1::2].sum(axis=1), 1e-12, "a group and the sum of its columns")


def cannot_remove(case: Case) -> str | None:
    """Why groups cannot be removed by this fit; None where they can."""
    if not isinstance(case.fitted, GroupRemoval):
        return "the method does not follow removals of groups"
    return case.fitted.lacks_removal()


def removal(case: Case) -> None:
    """One signature for all; and where scores are effects, one form at least gives a group of one its score."""
    fitted, train, queries = case.fitted, case.family.train, case.family.queries
    assert isinstance(fitted, GroupRemoval)
    strongest = np.argsort(-np.abs(case.scores.values).max(axis=0), kind="stable")[:ALONE]
    ids = train.ids[strongest].tolist()
    groups = {f"without {i}": [i] for i in ids}
    hold(bool(fitted.forms), "expected at least one form")
    removed = {form: fitted.remove(groups, queries, form) for form in fitted.forms}
    by_default = fitted.remove(groups, queries)
    for form, scores in {**removed, "the first by default": by_default}.items():
        named = scores.train_ids.tolist() == list(groups) and scores.query_ids.tolist() == queries.ids.tolist()
        hold(named, f"{form}: expected a column per group and a row per query, got {scores.train_ids.tolist()}")
    same(by_default.values, removed[fitted.forms[0]].values, "the form by default and the first one")
    wrong: list[tuple[Any, str | None, type[Exception]]] = [
        ({}, None, ValueError),
        ({"none": []}, None, ValueError),
        ({"all": train.ids.tolist()}, None, ValueError),
        (groups, "no such form", ValueError),
        ({"unknown": ["no such id"]}, None, KeyError),
    ]
    for members, wanted, kind in wrong:
        refused(f"remove({members}, form={wanted!r})", kind, "", fitted.remove, members, queries, wanted)
    if case.scores.unit != Unit.EFFECT:
        return
    expected = case.scores.values[:, strongest]
    scale = float(np.abs(case.scores.values).max())
    off = {form: float(np.abs(scores.values - expected).max()) / scale for form, scores in removed.items()}
    hold(min(off.values()) <= SAME_EFFECT, f"removed alone, effects differ from scores (of the largest): {off}")
