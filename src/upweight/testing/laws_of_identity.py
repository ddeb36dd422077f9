"""Laws of identity: whose answers are given, after a file, after a change in place, and what is left untouched."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from upweight.core.examples import Examples
from upweight.core.group_removal import GroupRemoval
from upweight.core.scores import Scores
from upweight.testing.assertions import CLOSE, close, hold, refused, same
from upweight.testing.case import Case, belongings, recipes
from upweight.testing.copies import new_ids
from upweight.testing.in_place import change

FEW = 3  # queries that are changed in place


def saved(case: Case) -> None:
    """A fit and its scores, written and read, are the same."""
    with tempfile.TemporaryDirectory() as folder:
        case.fitted.save(Path(folder) / "fit")
        loaded = case.recipe.load(Path(folder) / "fit", case.family.trained, case.family.train)
        same(loaded.attribute(case.family.queries).values, case.scores.values, "scores before and after the file")
        case.scores.save(Path(folder) / "scores")
        read = Scores.load(Path(folder) / "scores")
        same(read.values, case.scores.values, "scores written and read")
        hold(read.unit == case.scores.unit, f"scores written as {case.scores.unit} are read as {read.unit}")


def identity(case: Case) -> None:
    """`load` refuses another model, other examples and other settings, and says of what it is another."""
    family, recipe = case.family, case.recipe
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fit"
        case.fitted.save(path)
        for what, model in family.other_models.items():
            refused(f"other {what}", ValueError, "made with", recipe.load, path, model, family.train)
        for what, train in other_examples(family.train).items():
            refused(f"other {what}", ValueError, "another training set", recipe.load, path, family.trained, train)
        for name, other in recipes(type(recipe)):
            if other != recipe:
                what = f"other settings ({name or 'by default'})"
                refused(what, ValueError, "another recipe", other.load, path, family.trained, family.train)


def other_examples(train: Examples) -> Mapping[str, Examples]:
    """Training sets that differ from this one in one thing: what → the other."""
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


def changed_queries(case: Case) -> None:
    """Queries changed in place, in the caller's own object or in the examples' view of it, get their own scores."""
    original = case.family.queries.take(np.arange(FEW))
    mine = copy.deepcopy(original.x)
    queries = original.replaced(x=mine)
    close(case.fitted.attribute(queries).values, case.scores.values[:FEW], CLOSE, "scores of a copy of the queries")
    views = {"the caller's object": mine, "examples.x": queries.x}
    if queries.x is mine:
        del views["examples.x"]
    for place, x in views.items():
        change(x)
        expected = case.fitted.attribute(original.replaced(x=copy.deepcopy(queries.x)))
        again = case.fitted.attribute(queries)
        what = f"queries changed in {place} and the same made anew"
        close(again.values, expected.values, CLOSE, what)
        if again.measured is not None and expected.measured is not None:
            close(again.measured, expected.measured, CLOSE, f"measurements of {what}")


def changed_training(case: Case) -> None:
    """While inputs or labels of its training set are others, a fit gives no answer; put back, it gives the same."""
    fitted, train, queries = case.fitted, case.family.train, case.family.queries
    expected, words = case.scores.values, "changed in place"
    for what, undo in _changes(train):
        after = f"after a change of {what}"
        try:
            refused(f"attribute {after}", ValueError, words, fitted.attribute, queries)
            refused(f"top {after}", ValueError, words, fitted.top, queries)
            refused(f"self_influence {after}", ValueError, words, fitted.self_influence)
            with tempfile.TemporaryDirectory() as folder:
                refused(f"save {after}", ValueError, words, fitted.save, Path(folder) / "fit")
            if isinstance(fitted, GroupRemoval):
                groups = {"one": train.ids[:1].tolist()}
                refused(f"remove {after}", ValueError, words, fitted.remove, groups, queries)
        finally:
            undo()
    few = queries.take(np.arange(FEW))
    close(fitted.attribute(few).values, expected[:FEW], CLOSE, "scores before the change and after it was put back")


def _changes(train: Examples) -> Iterator[tuple[str, Callable[[], None]]]:
    yield "inputs", change(train.x)
    if train.y is not None and train.y.flags.writeable:
        yield "labels", change(train.y)


def untouched(case: Case) -> None:
    """Model, data and random state are as before: after a fit and its questions, and after one that failed."""
    _, stayed = case.again
    hold(stayed, "fitting and asking changed the model, the data or numpy's random state")
    before = belongings(case.family)
    wrong = Examples(np.full((2, 99), np.nan), None if case.family.queries.y is None else case.family.queries.y[:2])
    errors = ValueError, TypeError, RuntimeError
    refused("queries of another shape", errors, "", case.fitted.attribute, wrong)
    hold(belongings(case.family) == before, "a question that failed changed the model, the data or the random state")
