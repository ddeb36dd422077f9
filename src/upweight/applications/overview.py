"""Which training examples matter over all queries, and for which mistakes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import require_count
from upweight.core.choices import require_choice
from upweight.core.examples import Examples, Id
from upweight.core.scores import Attribution, Scores, Unit
from upweight.core.tabular import Tabular

if TYPE_CHECKING:
    import pandas

Order = Literal["strength", "helped", "harmed", "mistakes"]
MAX_COUNTED = 10  # strongest proponents or opponents of a query that are counted
LARGEST_ERRORS = 0.1  # share of the queries whose regression errors are called mistakes


@dataclass(frozen=True, eq=False)
class Mistakes:
    """Queries that the model gets wrong in the same way.

    Attributes:
        name: `true label → predicted label`, or the side on which regression targets are missed.
        query_ids: these queries, as the scores list them.
        opponents: the training examples that lowered their mean measurement most, with their mean scores.
    """

    name: str
    query_ids: tuple[Id, ...]
    opponents: tuple[Attribution, ...]


@dataclass(frozen=True, eq=False)
class Overview(Tabular):
    """The training examples over all queries.

    Attributes:
        train_ids: shape (train,).
        mean: the mean score of each training example over the queries, shape (train,), in the unit of the scores. RANK
            scores, whose size means nothing, are first divided by the root mean square of their query.
        strength: the mean absolute score, shape (train,).
        helped, harmed: for how many queries each example is among the ten strongest proponents or opponents, (train,).
        mistakes: for how many wrongly predicted queries it is among the ten strongest opponents, (train,).
        groups: the mistakes by kind, most frequent first.
        queries: the number of queries.
        unit: of the scores.
        notes: what is not known, in sentences.
    """

    train_ids: NDArray[Any]
    mean: NDArray[np.float64]
    strength: NDArray[np.float64]
    helped: NDArray[np.intp]
    harmed: NDArray[np.intp]
    mistakes: NDArray[np.intp]
    groups: tuple[Mistakes, ...]
    queries: int
    unit: Unit
    notes: tuple[str, ...] = ()

    def strongest(self, k: int = 10, by: Order = "strength") -> list[Id]:
        """The ids of the k training examples that matter most.

        Args:
            k: how many at most; an example without any effect of the kind is not listed.
            by: `strength` (mean absolute score), `helped` (largest mean score), `harmed` (lowest mean score), or
                `mistakes` (behind most mistakes; of equal ones, the lowest mean score first).
        """
        require_count("k", k)
        by_size = {"strength": self.strength, "helped": self.mean, "harmed": -self.mean, "mistakes": self.mistakes}
        require_choice("by", by, *by_size)
        sizes = np.nan_to_num(np.asarray(by_size[by], dtype=np.float64))
        order = (
            np.lexsort((np.nan_to_num(self.mean), -sizes)) if by == "mistakes" else np.argsort(-sizes, kind="stable")
        )
        return [self.train_ids[i].item() for i in order[:k] if sizes[i] > 0]

    def to_columns(self) -> dict[str, Any]:
        """One row per training example, in the order of the scores."""
        names = ("mean", "strength", "helped", "harmed", "mistakes")
        return {"train": self.train_ids, **{name: getattr(self, name) for name in names}}

    def to_pandas(self) -> pandas.DataFrame:
        """One row per training example, the strongest first: mean, strength, helped, harmed, mistakes."""
        import pandas as pd

        columns = {name: getattr(self, name) for name in ("mean", "strength", "helped", "harmed", "mistakes")}
        frame = pd.DataFrame(columns, index=pd.Index(self.train_ids, name="train"))
        return frame.sort_values("strength", ascending=False, kind="stable")

    def as_dict(self, k: int = 10) -> dict[str, Any]:
        """Plain values for JSON: `queries`, `unit`, `strongest` (k examples), `mistakes` (by kind), `notes`."""
        place = {identifier: i for i, identifier in enumerate(self.train_ids.tolist())}
        return {
            "queries": self.queries,
            "unit": str(self.unit),
            "strongest": [self._row(place[identifier]) for identifier in self.strongest(k)],
            "mistakes": [
                {
                    "name": group.name,
                    "queries": list(group.query_ids),
                    "opponents": [{"id": a.id, "mean": a.score} for a in group.opponents[:k]],
                }
                for group in self.groups
            ],
            "notes": list(self.notes),
        }

    def _row(self, place: int) -> dict[str, Any]:
        numbers = {name: float(getattr(self, name)[place]) for name in ("mean", "strength")}
        counts = {name: int(getattr(self, name)[place]) for name in ("helped", "harmed", "mistakes")}
        known = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        return {"id": self.train_ids[place].item(), **known, **counts}


def overview(scores: Scores, queries: Examples) -> Overview:
    """Which training examples matter over all queries of these scores, and for which mistakes.

    Args:
        scores: of a fitted method, one row per query.
        queries: the examples behind the rows, with the labels that make a prediction a mistake. Of regression targets,
            the tenth of the queries with the largest errors counts as mistakes.

    Raises:
        ValueError: scores of queries that are not in `queries`.
    """
    try:
        positions = queries.positions(scores.query_ids)
    except KeyError as error:
        raise ValueError(f"expected the queries of these scores: {error.args[0]}") from None
    kinds, notes = _mistakes(scores, queries, positions)
    if scores.unit == Unit.RANK:
        notes = [*notes, "RANK scores were divided by the root mean square of their query."]
    n = len(scores.train_ids)
    total, strength = np.zeros(n), np.zeros(n)
    helped, harmed, mistakes = (np.zeros(n, dtype=np.intp) for _ in range(3))
    totals = {kind: np.zeros(n) for kind in kinds if kind is not None}
    for row, kind in zip(comparable_rows(scores), kinds, strict=True):
        total += row
        strength += np.abs(row)
        helped[_largest(row)] += 1
        lowest = _largest(-row)
        harmed[lowest] += 1
        if kind is not None:
            mistakes[lowest] += 1
            totals[kind] += row
    m = len(kinds)
    groups = _groups(scores, totals, kinds)
    return Overview(
        scores.train_ids, total / m, strength / m, helped, harmed, mistakes, groups, m, scores.unit, tuple(notes)
    )


def comparable_rows(scores: Scores) -> Iterator[NDArray[np.float64]]:
    """The scores of every query, (train,) each; RANK scores are divided by the root mean square of their query.

    One row is in memory at a time, if the scores themselves are in a file.
    """
    for values in scores.values:
        row = np.array(values)
        if scores.unit == Unit.RANK:
            size = float(np.sqrt(np.nanmean(row**2)))
            row /= size if size > 0 else 1.0
        yield row


def _largest(row: NDArray[np.float64]) -> NDArray[np.intp]:
    """The columns of the largest positive scores."""
    row = np.nan_to_num(row)
    columns = np.argpartition(-row, MAX_COUNTED - 1)[:MAX_COUNTED] if len(row) > MAX_COUNTED else np.arange(len(row))
    return columns[row[columns] > 0]


def _mistakes(scores: Scores, queries: Examples, positions: NDArray[np.intp]) -> tuple[list[str | None], list[str]]:
    """The kind of mistake of every query, None where there is none, and notes on what is not known."""
    nothing: list[str | None] = [None] * len(positions)
    predictions = scores.predictions
    if predictions is None or None in predictions.predicted or queries.y is None:
        return nothing, ["Mistakes are not known: they need labels of the queries and predictions of the model."]
    if not scores.measurement.startswith(("−loss", "-loss", "margin")):
        return nothing, [
            f"Mistakes are traced for the loss and the margin, whose opponents speak against the true label; "
            f"{scores.measurement} was measured."
        ]
    true = queries.y[positions]
    if predictions.classes:
        pairs = zip(true.tolist(), predictions.predicted, strict=True)
        return [_confusion(label, predicted, queries.labels) for label, predicted in pairs], []
    residuals = np.asarray(predictions.predicted, dtype=np.float64) - np.asarray(true, dtype=np.float64)
    if residuals.ndim > 1:
        return nothing, ["Mistakes are not listed for queries with several targets."]
    least = np.sort(np.abs(residuals))[-math.ceil(LARGEST_ERRORS * len(residuals))]
    sides = ["predicted too high" if residual > 0 else "predicted too low" for residual in residuals]
    wrong = (np.abs(residuals) >= least) & (residuals != 0)
    share = f"{LARGEST_ERRORS:.0%}"
    return [side if is_wrong else None for side, is_wrong in zip(sides, wrong, strict=True)], [
        f"The {share} of the queries with the largest errors are called mistakes."
    ]


def _confusion(label: Any, predicted: Any, labels: dict[Any, str]) -> str | None:
    """`true → predicted`; None if they are the same. Predictions may be labels or their readable names."""
    predicted = predicted.item() if isinstance(predicted, np.generic) else predicted
    readable = labels.get(label, label)
    return None if predicted in (label, readable) else f"{readable} → {labels.get(predicted, predicted)}"


def _groups(scores: Scores, totals: dict[str, NDArray[np.float64]], kinds: list[str | None]) -> tuple[Mistakes, ...]:
    """The mistakes by kind. `totals` are the sums of the scores of their queries, (train,) each."""
    members: dict[str, list[int]] = {}
    for place, kind in enumerate(kinds):
        if kind is not None:
            members.setdefault(kind, []).append(place)
    groups = []
    for name, places in sorted(members.items(), key=lambda item: -len(item[1])):
        mean = totals[name] / len(places)
        columns = _largest(-mean)
        columns = columns[np.argsort(mean[columns], kind="stable")]
        opponents = tuple(Attribution(scores.train_ids[c].item(), float(mean[c])) for c in columns.tolist())
        groups.append(Mistakes(name, tuple(scores.query_ids[places].tolist()), opponents))
    return tuple(groups)
