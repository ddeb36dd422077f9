"""Brittleness: the smallest removal that flips a prediction, chosen by scores and confirmed by retraining."""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from upweight.core.capability_checks import require
from upweight.core.deprecation import accept_old_keywords
from upweight.core.examples import Examples, Id
from upweight.core.model import Measurable, Retrainable
from upweight.core.scores import Scores
from upweight.core.tabular import Tabular
from upweight.core.weights import sample_weights, weighted_positions
from upweight.evaluate.removal_search import RemovalSearch
from upweight.retraining import deprecated_keywords
from upweight.retraining.engine import run_tasks, try_tasks
from upweight.retraining.retraining import Retraining
from upweight.retraining.task import Task, choose_stack, predicted


@dataclass(frozen=True)
class Flip:
    """The smallest removal found that flips one prediction.

    Attributes:
        query: id of the query.
        before: the prediction after training on everything.
        after: the prediction without `removed`; None if no removal flipped it.
        removed: the examples whose removal flips the prediction, strongest first. Retraining without one fewer does not
            flip it. Empty if no removal up to `tried` examples did.
        tried: the number of examples in the largest removal that was retrained.
        note: why the search ended early, in a sentence.
    """

    query: Id
    before: Any
    after: Any
    removed: tuple[Id, ...]
    tried: int
    note: str = ""

    @property
    def size(self) -> int | None:
        """How many examples; None if no flip was found."""
        return len(self.removed) or None

    def __str__(self) -> str:
        if self.size is None:
            return f"{self.query}: {self.before} not flipped up to {self.tried}" + (
                f" ({self.note})" if self.note else ""
            )
        return f"{self.query}: {self.before} → {self.after} without {self.size}"


@dataclass(frozen=True)
class Brittleness(Tabular):
    """One `Flip` per query, the largest removal `most` that the search allowed, and the number of its trainings."""

    _table: ClassVar = "flips"
    flips: tuple[Flip, ...]
    most: int
    trainings: int

    @property
    def median(self) -> float:
        """Median size over all queries; infinite if fewer than half were flipped."""
        return float(np.median([f.size or np.inf for f in self.flips]))

    def share(self, size: int) -> float:
        """Share of the queries that a removal of at most this many examples flips."""
        return float(np.mean([f.size is not None and f.size <= size for f in self.flips]))

    def __repr__(self) -> str:
        flipped = sum(f.size is not None for f in self.flips)
        text = f"{flipped} of {len(self.flips)} predictions flipped up to {self.most}, {self.trainings} trainings"
        return f"Brittleness({text})"

    def _repr_html_(self) -> str:
        rows = "".join(f"<li>{html.escape(str(f))}</li>" for f in self.flips)
        return f"<p><b>{html.escape(repr(self))}</b></p><ul>{rows}</ul>"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `size` is None if no removal up to `tried` flipped the prediction."""
        flips = [
            {"query": f.query, "before": f.before, "after": f.after, "size": f.size, "removed": list(f.removed)}
            | {"tried": f.tried, "note": f.note}
            for f in self.flips
        ]
        return {"most": self.most, "trainings": self.trainings, "flips": flips}


@accept_old_keywords(
    deprecated_keywords.keywords("processes", "how", "folder", "progress"), deprecated_keywords.retraining_builder()
)
def brittleness(
    model: Measurable,
    train: Examples,
    queries: Examples,
    scores: Scores,
    *,
    most: int | None = None,
    retraining: Retraining | None = None,
) -> Brittleness:
    """The smallest removal that flips each prediction (Ilyas et al. 2022, datamodels, §4; Broderick et al. 2021).

    The search is greedy. Examples are removed in the order of their scores: proponents first if the prediction is the
    query's label, opponents first if it is not. This needs a measurement that depends on the label (−loss, margin). The
    size doubles until a retrained model predicts another class, and is then narrowed down. A flip of size k is
    confirmed by two trainings: without k examples the prediction flips, without k − 1 it does not. Another choice of
    examples may need fewer, so the size is an upper bound.

    All queries are searched at the same time, so that their trainings run together. If many models are trained at once,
    every query tries several sizes at a time.

    Args:
        most: the largest removal that is tried; None for a fifth of the training set.
        retraining: where and how, with one seed; None for all processors. Its progress is called with the stage
            "search" and counts queries, since the number of trainings is not known in advance.

    Raises:
        TypeError: a model that cannot be retrained.
        ValueError: queries without labels, a model without classes, scores of other queries or of groups.
    """
    require(model, [Retrainable], "brittleness", train, queries)
    predictions = model.predict(queries)
    if queries.y is None or not predictions.classes:
        raise ValueError("expected queries with labels and a model that predicts classes; regression has no flips")
    scores.require_queries(queries)
    n = len(weighted_positions(train))
    limit = max(1, n // 5) if most is None else most
    if not 0 < limit < n:
        raise ValueError(f"expected most between 1 and {n - 1}, got {limit}")
    columns = train.positions(scores.train_ids)
    retraining = Retraining() if retraining is None else retraining
    seed = retraining.only_seed("brittleness")
    (before,) = run_tasks(replace(retraining, progress=None), model, train, [Task(seed=seed)], queries, predicted)
    searches = []
    for row, identifier in enumerate(queries.ids.tolist()):
        is_right = predictions.predicted[row] == queries.label(identifier)
        support = (scores.values[row] if is_right else -scores.values[row]) * (sample_weights(train)[columns] > 0)
        order = np.argsort(-support, kind="stable")
        searches.append(RemovalSearch(columns[order[support[order] > 0]], limit, float(before[row])))
    trainings = 1 + _run_searches(retraining, model, train, queries, searches)
    flips = (
        _flip(search, identifier, predictions.classes, train.ids)
        for identifier, search in zip(queries.ids.tolist(), searches, strict=True)
    )
    return Brittleness(tuple(flips), limit, trainings)


def _flip(search: RemovalSearch, query: Id, classes: tuple[Any, ...], ids: NDArray[Any]) -> Flip:
    """The result of the search for one query, with ids of the training set."""
    before = classes[int(search.before)]
    if search.flipped is not None:
        removed = tuple(ids[search.order[: search.flipped]].tolist())
        return Flip(query, before, classes[int(search.after)], removed, search.flipped)
    note = (
        search.note
        if search.note or search.most == search.limit
        else f"only {search.most} examples have scores that support it"
    )
    return Flip(query, before, None, (), search.unflipped, note)


def _run_searches(
    retraining: Retraining, model: Any, train: Examples, queries: Examples, searches: list[RemovalSearch]
) -> int:
    """Run all searches until they end; returns the number of trainings."""
    trainings, seed = 0, retraining.only_seed("brittleness")
    models_at_once = 1 if retraining.how == "processes" else choose_stack(model, train).size
    quiet = replace(retraining, progress=None)
    while True:
        open_rows = [row for row, search in enumerate(searches) if not search.is_done]
        if retraining.progress is not None:
            retraining.progress("search", len(searches) - len(open_rows), len(searches))
        if not open_rows:
            return trainings
        sizes_per_query = max(1, models_at_once // len(open_rows))
        removals = [(row, size) for row in open_rows for size in searches[row].sizes(sizes_per_query)]
        tasks = [Task(removed=searches[row].order[:size], seed=seed) for row, size in removals]
        outcomes = try_tasks(quiet, model, train, tasks, queries, predicted)
        for (row, size), outcome in zip(removals, outcomes, strict=True):
            searches[row].record(size, outcome if isinstance(outcome, str) else float(outcome[row]))
        trainings += len(tasks)
