"""Brittleness: the smallest removal that flips a prediction, found from scores and proved by retraining."""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.deprecation import accept_old_keywords
from upweight.core.examples import Examples, Id
from upweight.core.model import Measurable, Retrainable, require
from upweight.core.scores import Scores
from upweight.core.weights import sample_weights, weighted_positions
from upweight.retraining import deprecated_keywords
from upweight.retraining.engine import run_tasks, try_tasks
from upweight.retraining.retraining import Retraining
from upweight.retraining.task import Task, choose_stack, predicted

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
    """How few examples hold each prediction up (Ilyas et al. 2022, datamodels, §4; Broderick et al. 2021).

    Greedy: examples go in the order of their scores, proponents first where the prediction is the query's label and
    opponents first where it is not, which takes a measurement that speaks of the label (−loss, margin). The size
    doubles until a retrained model predicts something else and is then narrowed down, so a flip of size k comes with
    two trainings: without k it flips, without k − 1 it does not. Another choice of examples may need fewer: the size
    is an upper bound.

    All queries are searched side by side, so that trainings go out together; where the model is trained many at once,
    a query tries as many sizes at a time as there is room for.

    Args:
        most: the largest removal that is tried; a fifth of the training set where it is left out.
        retraining: where and how, with one seed; None for all processors. Its progress is called with the stage
            "search" and counts queries: how many trainings there will be is not known.

    Raises:
        TypeError: a model that cannot be retrained.
        ValueError: queries without labels, a model without classes, scores of other queries or of groups.
    """
    require(model, [Retrainable], "brittleness", train, queries)
    said = model.predict(queries)
    if queries.y is None or not said.classes:
        raise ValueError("expected queries with labels and a model that predicts classes: amounts do not flip")
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
    for place, identifier in enumerate(queries.ids.tolist()):
        held_up = said.predicted[place] == queries.label(identifier)
        support = (scores.values[place] if held_up else -scores.values[place]) * (sample_weights(train)[columns] > 0)
        order = np.argsort(-support, kind="stable")
        searches.append(_Search(columns[order[support[order] > 0]], limit, float(before[place])))
    trainings = 1 + _searched(retraining, model, train, queries, searches)
    flips = (one.told(i, said.classes, train.ids) for i, one in zip(queries.ids.tolist(), searches, strict=True))
    return Brittleness(tuple(flips), limit, trainings)


@dataclass
class _Search:
    """The search of one query.

    Attributes:
        order: positions in the training set, in which they go.
        limit: the largest size that is asked for.
        before: the class it is taken for when nothing is gone.
        held, flipped: the largest size known to hold below the smallest known to flip; None while there is none.
        after: the class it is taken for without those.
    """

    order: NDArray[np.intp]
    limit: int
    before: float
    held: int = 0
    flipped: int | None = None
    after: float = 0.0
    refused: int | None = None
    note: str = ""

    @property
    def most(self) -> int:
        """The largest size that can be tried."""
        return min(self.limit, len(self.order), self.limit if self.refused is None else self.refused - 1)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to try."""
        return self.held >= self.most if self.flipped is None else self.flipped - self.held <= 1

    def sizes(self, count: int) -> list[int]:
        """What to try next: doubled until something flips, then evenly between."""
        if self.flipped is None:
            doubled = (max(FIRST, 2 * self.held) * 2**step for step in range(count))
            return sorted({min(size, self.most) for size in doubled})
        between = np.linspace(self.held, self.flipped, count + 2)[1:-1].astype(int).tolist()
        return sorted({min(max(size, self.held + 1), self.flipped - 1) for size in between})

    def learn(self, size: int, found: float | str) -> None:
        """What came of a size; sizes come in ascending order, and those above one that flips say no more."""
        if self.flipped is not None and size > self.flipped:
            return
        if isinstance(found, str) and self.flipped is not None:
            raise ValueError(
                f"the model can be trained without {self.flipped} examples, but not without {size}: {found}"
            )
        if isinstance(found, str):  # most often the last of a class went
            self.refused = size if self.refused is None else min(size, self.refused)
            self.note = f"the model cannot be trained without {self.refused}: {found}"
        elif self.refused is not None and size > self.refused:
            return
        elif found != self.before:
            self.flipped, self.after = size, found
        else:
            self.held = max(size, self.held)

    def told(self, query: Id, classes: tuple[Any, ...], ids: NDArray[Any]) -> Flip:
        """What was found."""
        before = classes[int(self.before)]
        if self.flipped is not None:
            removed = tuple(ids[self.order[: self.flipped]].tolist())
            return Flip(query, before, classes[int(self.after)], removed, self.flipped)
        note = self.note if self.note or self.most == self.limit else f"only {self.most} examples speak for it"
        return Flip(query, before, None, (), self.held, note)


def _searched(retraining: Retraining, model: Any, train: Examples, queries: Examples, searches: list[_Search]) -> int:
    """Search all; how many trainings it took."""
    trainings, seed = 0, retraining.only_seed("brittleness")
    room = 1 if retraining.how == "processes" else choose_stack(model, train).size
    quiet = replace(retraining, progress=None)
    while True:
        left = [place for place, one in enumerate(searches) if not one.is_done]
        if retraining.progress is not None:
            retraining.progress("search", len(searches) - len(left), len(searches))
        if not left:
            return trainings
        asked = [(place, size) for place in left for size in searches[place].sizes(max(1, room // len(left)))]
        tasks = [Task(removed=searches[place].order[:size], seed=seed) for place, size in asked]
        answers = try_tasks(quiet, model, train, tasks, queries, predicted)
        for (place, size), answer in zip(asked, answers, strict=True):
            searches[place].learn(size, answer if isinstance(answer, str) else float(answer[place]))
        trainings += len(tasks)
