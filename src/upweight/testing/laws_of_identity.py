"""Laws of identity: a fit answers only for its own model and data, and leaves them untouched."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from upweight.core.examples import Examples
from upweight.core.group_removal import GroupRemoval
from upweight.core.scores import Scores
from upweight.testing.assertions import SOLVER_TOLERANCE, assert_close, assert_identical, assert_refused, assert_true
from upweight.testing.case import Case, belongings, recipes
from upweight.testing.copies import new_ids
from upweight.testing.in_place import change

CHANGED_QUERIES = 3  # number of queries in the set that is changed in place


def check_saved(case: Case) -> None:
    """A fit and its scores are the same after they are written to a file and read."""
    with tempfile.TemporaryDirectory() as folder:
        case.fitted.save(Path(folder) / "fit")
        loaded = case.recipe.load(Path(folder) / "fit", case.family.trained, case.family.train)
        assert_identical(
            loaded.attribute(case.family.queries).values, case.scores.values, "scores before and after the file"
        )
        case.scores.save(Path(folder) / "scores")
        read = Scores.load(Path(folder) / "scores")
        assert_identical(read.values, case.scores.values, "scores written and read")
        assert_true(read.unit == case.scores.unit, f"scores written as {case.scores.unit} are read as {read.unit}")


def check_identity(case: Case) -> None:
    """`load` refuses another model, other examples and other settings, and the error says which of these differs."""
    family, recipe = case.family, case.recipe
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fit"
        case.fitted.save(path)
        for difference, model in family.other_models.items():
            assert_refused(f"other {difference}", ValueError, "made with", recipe.load, path, model, family.train)
        for difference, train in other_examples(family.train).items():
            assert_refused(
                f"other {difference}", ValueError, "another training set", recipe.load, path, family.trained, train
            )
        for name, other in recipes(type(recipe)):
            if other != recipe:
                what = f"other settings ({name or 'the default ones'})"
                assert_refused(what, ValueError, "another recipe", other.load, path, family.trained, family.train)


def other_examples(train: Examples) -> Mapping[str, Examples]:
    """Return training sets that each differ from this one in one respect: what differs → the other set."""
    n = len(train)
    x = copy.deepcopy(train.x)
    change(x)
    others = {
        "inputs": train.replaced(x=x),
        "ids": train.replaced(ids=[*new_ids(train, ["another"]), *train.ids[1:].tolist()]),
        "weights": train.replaced(weights=np.append(np.full(n - 1, 1.0), 2.0)),
        "order": train.take(np.arange(n)[::-1]),
    }
    if train.y is not None:
        y = train.y.copy()
        y[0] = y[y != y[0]][0]
        others["labels"] = train.replaced(y=y)
    return others


def check_changed_queries(case: Case) -> None:
    """Queries get new scores after a change in place, through the caller's object or the examples' view of it."""
    original = case.family.queries.take(np.arange(CHANGED_QUERIES))
    inputs = copy.deepcopy(original.x)
    queries = original.replaced(x=inputs)
    assert_close(
        case.fitted.attribute(queries).values,
        case.scores.values[:CHANGED_QUERIES],
        SOLVER_TOLERANCE,
        "scores of a copy of the queries",
    )
    views = {"the caller's object": inputs, "examples.x": queries.x}
    if queries.x is inputs:
        del views["examples.x"]
    for place, x in views.items():
        change(x)
        expected = case.fitted.attribute(original.replaced(x=copy.deepcopy(queries.x)))
        changed = case.fitted.attribute(queries)
        what = f"queries changed in {place} and new queries with the same content"
        assert_close(changed.values, expected.values, SOLVER_TOLERANCE, what)
        if changed.measured is not None and expected.measured is not None:
            assert_close(changed.measured, expected.measured, SOLVER_TOLERANCE, f"measurements of {what}")


def check_changed_training(case: Case) -> None:
    """A fit refuses to answer while its training inputs or labels are changed; once this is undone, it answers."""
    fitted, train, queries = case.fitted, case.family.train, case.family.queries
    expected, pattern = case.scores.values, "changed in place"
    for part, undo in _changes(train):
        after = f"after a change of {part}"
        try:
            assert_refused(f"attribute {after}", ValueError, pattern, fitted.attribute, queries)
            assert_refused(f"top {after}", ValueError, pattern, fitted.top, queries)
            assert_refused(f"self_influence {after}", ValueError, pattern, fitted.self_influence)
            with tempfile.TemporaryDirectory() as folder:
                assert_refused(f"save {after}", ValueError, pattern, fitted.save, Path(folder) / "fit")
            if isinstance(fitted, GroupRemoval):
                groups = {"one": train.ids[:1].tolist()}
                assert_refused(f"remove {after}", ValueError, pattern, fitted.remove, groups, queries)
        finally:
            undo()
    first_queries = queries.take(np.arange(CHANGED_QUERIES))
    assert_close(
        fitted.attribute(first_queries).values,
        expected[:CHANGED_QUERIES],
        SOLVER_TOLERANCE,
        "scores before the change and after it was undone",
    )


def _changes(train: Examples) -> Iterator[tuple[str, Callable[[], None]]]:
    yield "inputs", change(train.x)
    if train.y is not None and train.y.flags.writeable:
        yield "labels", change(train.y)


def check_untouched(case: Case) -> None:
    """A fit, its answers, and a call that failed leave model, data and random state unchanged."""
    _, is_unchanged = case.second_fit
    assert_true(is_unchanged, "fitting or attributing changed the model, the data or numpy's random state")
    before = belongings(case.family)
    misshapen = Examples(np.full((2, 99), np.nan), None if case.family.queries.y is None else case.family.queries.y[:2])
    errors = ValueError, TypeError, RuntimeError
    assert_refused("queries of another shape", errors, "", case.fitted.attribute, misshapen)
    assert_true(belongings(case.family) == before, "a call that failed changed the model, the data or the random state")
