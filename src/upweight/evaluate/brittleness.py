"""Brittleness: the smallest removal that flips a prediction, found from scores and proved by retraining."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples, Id
from upweight.core.model import Retrainable, require
from upweight.core.processes import each
from upweight.core.scores import Scores
from upweight.evaluate.retrain import Progress

FIRST = 1  # the size that is tried first; it doubles until the prediction flips


@dataclass(frozen=True)
class Flip:
    """What it took to flip one prediction.

    Attributes:
        query: its id.
        before, after: the prediction with everything there, and without `removed`; `after` is None where it held.
        removed: the examples whose removal flips it, strongest first; retraining without one fewer does not. Empty
            where nothing up to `tried` did.
        tried: the largest removal that was retrained without.
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
        """How many examples; None where no flip was found."""
        return len(self.removed) or None

    def __str__(self) -> str:
        if self.size is None:
            return f"{self.query}: {self.before} not flipped up to {self.tried}" + (
                f" ({self.note})" if self.note else ""
            )
        return f"{self.query}: {self.before} → {self.after} without {self.size}"


@dataclass(frozen=True)
class Brittleness:
    """One `Flip` per query, and what the search cost."""

    flips: tuple[Flip, ...]
    most: int
    trainings: int

    @property
    def median(self) -> float:
        """Median size over all queries; infinite where fewer than half were flipped."""
        return float(np.median([f.size or np.inf for f in self.flips]))

    def share(self, size: int) -> float:
        """Share of the queries that a removal of at most this many examples flips."""
        return float(np.mean([f.size is not None and f.size <= size for f in self.flips]))

    def __repr__(self) -> str:
        found = sum(f.size is not None for f in self.flips)
        told = f"{found} of {len(self.flips)} predictions flipped up to {self.most}, {self.trainings} trainings"
        return f"Brittleness({told})"

    def _repr_html_(self) -> str:
        rows = "".join(f"<li>{html.escape(str(f))}</li>" for f in self.flips)
        return f"<p><b>{html.escape(repr(self))}</b></p><ul>{rows}</ul>"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `size` is None where nothing up to `tried` flipped the prediction."""
        flips = [
            {"query": f.query, "before": f.before, "after": f.after, "size": f.size, "removed": list(f.removed)}
            | {"tried": f.tried, "note": f.note}
            for f in self.flips
        ]
        return {"most": self.most, "trainings": self.trainings, "flips": flips}


def brittleness(
    model: Any,
    train: Examples,
    queries: Examples,
    scores: Scores,
    *,
    most: int | None = None,
    processes: int = 1,
    progress: Progress | None = None,
) -> Brittleness:
    """How few examples hold each prediction up (Ilyas et al. 2022, datamodels, §4; Broderick et al. 2021).

    Greedy: examples go in the order of their scores, proponents first where the prediction is the query's label and
    opponents first where it is not, which takes a measurement that speaks of the label (−loss, margin). The size
    doubles until a retrained model predicts something else and is then bisected, so a flip of size k comes with two
    trainings: without k it flips, without k − 1 it does not. Another choice of examples may need fewer: the size is
    an upper bound.

    Args:
        most: the largest removal that is tried; a fifth of the training set where it is left out.
        processes: queries that are searched at a time.
        progress: called with (queries done, of how many).

    Raises:
        TypeError: a model that cannot be retrained.
        ValueError: queries without labels, a model without classes, scores of other queries or of groups.
    """
    require(model, [Retrainable], "brittleness")
    said = model.predict(queries)
    if queries.y is None or not said.classes:
        raise ValueError("expected queries with labels and a model that predicts classes: amounts do not flip")
    if scores.query_ids.tolist() != queries.ids.tolist():
        raise ValueError("expected scores of exactly these queries, in this order; call attribute(queries) again")
    limit = max(1, len(train) // 5) if most is None else most
    if not 0 < limit < len(train):
        raise ValueError(f"expected most between 1 and {len(train) - 1}, got {limit}")
    columns = train.positions(scores.train_ids)
    shared, tasks = (model, train, queries, limit), []
    for place, identifier in enumerate(queries.ids.tolist()):
        held_up = said.predicted[place] == queries.label(identifier)
        support = scores.values[place] if held_up else -scores.values[place]
        order = np.argsort(-support, kind="stable")
        tasks.append((place, columns[order[support[order] > 0]]))
    flips: dict[int, tuple[Flip, int]] = {}
    for done, (place, found) in enumerate(each(_searched, shared, tasks, processes), start=1):
        flips[place] = found
        if progress is not None:
            progress(done, len(tasks))
    in_order = [flips[place] for place in range(len(tasks))]
    return Brittleness(tuple(flip for flip, _ in in_order), limit, sum(count for _, count in in_order))


def _searched(shared: tuple[Any, Examples, Examples, int], task: tuple[int, NDArray[np.intp]]) -> tuple[Flip, int]:
    """(the flip of one query, how many trainings it took)."""
    model, train, queries, limit = shared
    place, order = task
    query = queries.take([place])
    most, seen, note = min(limit, len(order)), dict[int, Any](), ""

    def without(size: int) -> Any:
        if size not in seen:
            weights = np.ones(len(train))
            weights[order[:size]] = 0.0
            seen[size] = model.retrain(train, weights, 0).predict(query).predicted[0]
        return seen[size]

    before, held, size = without(0), 0, FIRST
    while held < most:
        try:
            flipped = without(min(size, most)) != before
        except ValueError as error:  # most often the last of a class went
            note = f"the model cannot be trained without {min(size, most)}: {error}"
            most = min(size, most) - 1
            continue
        if flipped:
            size = min(size, most)
            while size - held > 1:
                middle = (held + size) // 2
                held, size = (held, middle) if without(middle) != before else (middle, size)
            removed = tuple(train.ids[order[:size]].tolist())
            return Flip(query.ids[0].item(), before, seen[size], removed, max(seen)), len(seen)
        held = min(size, most)
        size = 2 * held
    if not note and most < limit:
        note = f"only {most} examples speak for it"
    return Flip(query.ids[0].item(), before, None, (), held, note), len(seen)
