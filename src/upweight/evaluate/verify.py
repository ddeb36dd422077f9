"""verify: train again without some examples and hold the scores against what happens."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples, Id
from upweight.core.model import Retrainable, require
from upweight.core.processes import available
from upweight.core.scores import Scores
from upweight.evaluate.agreement import Agreement, agreement
from upweight.evaluate.reproduction import reproduction
from upweight.evaluate.retrain import Engine, How, Progress, without

Array = NDArray[np.float64]
SIZES = (0.01, 0.05, 0.1)  # shares of the training set that random groups remove


@dataclass(frozen=True)
class Removal:
    """Training examples that were removed together."""

    name: str
    kind: Literal["one", "group"]
    ids: tuple[Id, ...]


@dataclass(frozen=True, eq=False)
class Check:
    """Predicted against actual effects, both (queries, removals): the measurement with the examples minus without.

    Attributes:
        scores: what was verified.
        removals: what was removed, one entry per column.
        diagnostics: number of refits, seconds, how far the model handed in was from its optimum, `warnings`.
    """

    predicted: Array
    actual: Array
    query_ids: NDArray[Any]
    removals: tuple[Removal, ...]
    scores: Scores
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def slope(self) -> float:
        """Least-squares slope of actual on predicted, all removals and queries; 1 = the predicted size is right."""
        return self.of().slope

    @property
    def pearson(self) -> float:
        """Linear correlation over all removals and queries."""
        return self.of().pearson

    @property
    def spearman(self) -> float:
        """Rank correlation over all removals and queries."""
        return self.of().spearman

    def of(self, kind: Literal["one", "group"] | None = None) -> Agreement:
        """Agreement over all removals, or over single examples or groups alone."""
        columns = [kind in (None, r.kind) for r in self.removals]
        return agreement(self.predicted[:, columns], self.actual[:, columns])

    def interval(self, ids: Sequence[Id], level: float = 0.9) -> tuple[Array, Array]:
        """(low, high), each (queries,): where the effect of removing these examples lies with this probability.

        Split-conformal (Vovk et al. 2005; Lei et al. 2018): residuals of the refits, in units of √Σ score² of what was
        removed (plus that of the query's usual removal), bound the residual of a removal of the same kind: one
        example, or a group of similar size.
        """
        if not 0 < level < 1:
            raise ValueError(f"expected a level between 0 and 1, got {level}")
        kind = "one" if len(ids) == 1 else "group"
        columns = np.array([r.kind == kind for r in self.removals])
        count = int(columns.sum())
        if count == 0:
            raise ValueError(f"no removal of kind {kind!r} was verified; pass removals= that include some")
        places = columns_of(self.scores, tuple(ids))
        predicted = self.scores.values[:, places].sum(axis=1)
        sizes = self._sizes[:, columns]
        floor = np.sqrt((sizes**2).mean(axis=1, keepdims=True))
        residuals = np.abs(self.actual - self.predicted)[:, columns] / np.hypot(sizes, floor)
        share = min(1.0, math.ceil((count + 1) * level) / count)
        own = np.sqrt((self.scores.values[:, places] ** 2).sum(axis=1))
        width = float(np.quantile(residuals, share, method="higher")) * np.hypot(own, floor[:, 0])
        return predicted - width, predicted + width

    @cached_property
    def _sizes(self) -> Array:
        """√Σ score² of every removal, (queries, removals): the unit of its residual."""
        squares = self.scores.values**2
        return np.stack(
            [np.sqrt(squares[:, columns_of(self.scores, r.ids, r.name)].sum(axis=1)) for r in self.removals], 1
        )

    def __repr__(self) -> str:
        return (
            f"Check({len(self.removals)} refits × {len(self.query_ids)} queries: slope {self.slope:.4f}, "
            f"Pearson {self.pearson:.5f}, Spearman {self.spearman:.5f})"
        )

    def _repr_html_(self) -> str:
        kinds = (("single examples", self.of("one")), ("groups", self.of("group")))
        cells = [
            (kind, a.count, f"{a.slope:.4f}", f"{a.pearson:.5f}", f"{a.spearman:.5f}") for kind, a in kinds if a.count
        ]
        rows = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in cells)
        notes = "".join(f"<li>{html.escape(w)}</li>" for w in self.diagnostics.get("warnings", ()))
        head = "<tr><th></th><th>pairs</th><th>slope</th><th>Pearson</th><th>Spearman</th></tr>"
        return f"<p><b>{html.escape(repr(self))}</b></p><ul>{notes}</ul><table>{head}{rows}</table>"


def verify(  # noqa: PLR0913 - five that everyone passes, three by keyword
    model: Any,
    train: Examples,
    queries: Examples,
    scores: Scores,
    removals: int | Mapping[str, Sequence[Id]] = 16,
    *,
    processes: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    how: How | None = None,
    folder: str | Path | None = None,
) -> Check:
    """Hold scores against real retraining.

    Args:
        model, train: as handed to `fit`.
        queries: as handed to `attribute`.
        scores: what to verify; columns are train ids, or names of `removals` (from `fitted.remove`).
        removals: how many (half of them the strongest proponents and opponents one by one, half random groups of 1, 5
            and 10 % of the training set), or which: name → train ids.
        processes: refits at a time; all processors where it is left out.
        seed: for the random groups. Trainings are the model's own run, so that what differs is what was removed.
        progress: called with (refits done, of how many).
        how, folder: as in `retrain`.

    Raises:
        ValueError: scores of other queries or other training examples.
    """
    require(model, [Retrainable], "verify")
    if scores.query_ids.tolist() != queries.ids.tolist():
        raise ValueError("expected scores of exactly these queries, in this order; call attribute(queries) again")
    chosen = _choose(scores, train, removals, seed) if isinstance(removals, int) else _named(removals)
    start = time.perf_counter()
    positions = [train.positions(r.ids) for r in chosen]
    many = available() if processes is None else processes
    engine = Engine(how=how, processes=many, folder=folder, progress=progress)
    base, after = without(engine, model, train, queries, positions)
    actual = base[:, None] - after
    predicted = np.stack([scores.values[:, columns_of(scores, r.ids, r.name)].sum(axis=1) for r in chosen], axis=1)
    diagnostics = {
        "refits": len(chosen) + 1,
        "seconds": round(time.perf_counter() - start, 3),
        **reproduction(model, train, queries, base, actual),
    }
    diagnostics["warnings"] += _lost_classes(train, chosen)
    return Check(predicted, actual, queries.ids, tuple(chosen), scores, diagnostics)


def columns_of(scores: Scores, ids: tuple[Id, ...], name: str | None = None) -> NDArray[np.intp]:
    """Which columns predict this removal: those of its examples, or in scores of groups the one of its name."""
    place = {identifier: i for i, identifier in enumerate(scores.train_ids.tolist())}
    missing = [i for i in ids if i not in place]
    if not missing:
        return np.array([place[i] for i in dict.fromkeys(ids)], dtype=np.intp)
    if name not in place:
        raise ValueError(f"expected a score for every removed example, there is none for {missing[0]!r}")
    return np.array([place[name]], dtype=np.intp)


def _choose(scores: Scores, train: Examples, count: int, seed: int) -> list[Removal]:
    """Strongest examples of the queries in turn, then random groups of several sizes."""
    if count < 1:
        raise ValueError(f"expected at least one removal, got {count}")
    if not set(scores.train_ids.tolist()) <= set(train.ids.tolist()):
        raise ValueError("the scores' columns are no train ids; pass removals={name: ids} for scores of groups")
    singles = min((count + 1) // 2, len(train) - 1)
    strength = np.argsort(-np.abs(scores.values), axis=1, kind="stable")
    in_turn = list(dict.fromkeys(scores.train_ids[strength.T.ravel()[: 50 * singles * len(strength)]].tolist()))
    chosen = [Removal(str(i), "one", (i,)) for i in in_turn[:singles]]
    rng = np.random.default_rng(seed)
    for number in range(count - len(chosen)):
        share = SIZES[number % len(SIZES)]
        size = min(max(2, round(share * len(train))), len(train) - 1)
        ids = tuple(train.ids[np.sort(rng.choice(len(train), size, replace=False))].tolist())
        chosen.append(Removal(f"random {size} ({number + 1})", "group", ids))
    return chosen


def _named(removals: Mapping[str, Sequence[Id]]) -> list[Removal]:
    if not removals:
        raise ValueError("expected at least one removal, e.g. removals=16 or {'children': [17, 42]}")
    chosen = []
    for name, ids in removals.items():
        different = tuple(dict.fromkeys(np.asarray(ids).tolist()))
        if not different:
            raise ValueError(f"expected at least one example in removal {name!r}, got none; leave it out or name some")
        chosen.append(Removal(str(name), "one" if len(different) == 1 else "group", different))
    return chosen


def _lost_classes(train: Examples, chosen: Sequence[Removal]) -> list[str]:
    """Removals after which a class has no example left: what a net says of that class then is where it began."""
    if train.y is None or train.y.ndim != 1 or train.y.dtype.kind == "f":
        return []
    classes, places = np.unique(train.y, return_inverse=True)
    found = []
    for removal in chosen:
        left = np.bincount(np.delete(places, train.positions(removal.ids)), minlength=len(classes))
        if (left == 0).any():
            label = classes.tolist()[int(np.argmin(left))]
            found.append(f"Without {removal.name!r} no example of class {train.labels.get(label, label)!r} is left.")
    return found
