"""Necessity and sufficiency of training examples: models retrained without the strongest, and on these alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import require_count
from upweight.core.examples import Examples
from upweight.core.model import Measurable
from upweight.core.notebook_table import notebook_table
from upweight.core.scores import Scores
from upweight.core.weights import sample_weights
from upweight.evaluate.agreement import finite_mean, finite_or_none, formatted
from upweight.evaluate.compare import Comparison
from upweight.evaluate.removals import Removal
from upweight.evaluate.retrain_truth import retrain_truth
from upweight.evaluate.truth import Truth
from upweight.retraining.retraining import Retraining

Array = NDArray[np.float64]
Positions = NDArray[np.intp]
SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)
RANDOM = "random"
HEAD = ("method", "necessity", "sufficiency")


@dataclass(frozen=True, eq=False)
class ExampleCriteria:
    """How necessary and how sufficient the strongest training examples of each method are, by retraining.

    Attributes:
        sizes: how many training examples were removed, and kept, (points,).
        necessity: method → m(all) − m(without the strongest), (queries, points). High is good.
        sufficiency: method → m(the strongest alone) − m(all), (queries, points). High is good: nothing is missing at 0.
        query_ids: the queries.
        trainings: how many models were trained.
        warnings: what could not be trained.
    """

    sizes: tuple[int, ...]
    necessity: Mapping[str, Array]
    sufficiency: Mapping[str, Array]
    query_ids: NDArray[Any]
    trainings: int
    warnings: tuple[str, ...] = ()

    def areas(self, method: str) -> tuple[float, float]:
        """The means of necessity and of sufficiency over queries and points; NaN if nothing could be trained.

        Raises KeyError for an unknown method.
        """
        if method not in self.necessity:
            raise KeyError(f"no method is called {method!r}; there are {', '.join(self.necessity)}")
        tables = (self.necessity[method], self.sufficiency[method])
        return tuple(float(finite_mean(finite_mean(table, axis=0), axis=0)) for table in tables)  # type: ignore[return-value]

    def cells(self) -> list[list[str]]:
        """One row per method, in the order of `HEAD`, the most necessary first."""
        order = sorted(self.necessity, key=lambda name: -np.nan_to_num(self.areas(name)[0], nan=-np.inf))
        return [[name, *(formatted(area) for area in self.areas(name))] for name in order]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: means over queries, None if no training was possible."""
        return {
            "sizes": list(self.sizes),
            "methods": {
                name: {
                    criterion: {
                        "area": finite_or_none(self.areas(name)[place]),
                        "curve": [finite_or_none(v) for v in finite_mean(curves[name], axis=0)],
                    }
                    for place, (criterion, curves) in enumerate(
                        (("necessity", self.necessity), ("sufficiency", self.sufficiency))
                    )
                }
                for name in self.necessity
            },
            "trainings": self.trainings,
            "warnings": list(self.warnings),
        }

    def __repr__(self) -> str:
        rows = "; ".join(f"{name} {n} and {s}" for name, n, s in self.cells())
        return f"ExampleCriteria({len(self.query_ids)} queries, areas of necessity and sufficiency: {rows})"

    def _repr_html_(self) -> str:
        return notebook_table(f"{len(self.query_ids)} queries", self.cells(), HEAD)


def example_criteria(
    model: Measurable,
    train: Examples,
    queries: Examples,
    methods: Comparison | Mapping[str, Scores],
    shares: Sequence[float] = SHARES,
    *,
    draws: int = 3,
    retraining: Retraining | None = None,
) -> ExampleCriteria:
    """Retrain without the strongest proponents of each query, and on them alone, for every method.

    The counterpart of `necessity` and `sufficiency` for training examples. Those that are kept are the strongest of
    each label, in the shares that the labels have in the training set: a model trained on one class would be right by
    itself. Random examples stand beside.

    Args:
        model, train, queries: as for `removal_curve`.
        methods: what `compare` returned, with all its methods and baselines that have scores; or name → scores.
        shares: shares of the training set that are removed, and kept.
        draws: how many random sets of each size.
        retraining: as in `retrain_truth`. Trainings: 2 · methods · queries · shares, and 2 · draws · shares.

    Raises:
        ValueError: no scores, scores of other queries or of groups, or shares outside (0, 1).
    """
    if isinstance(methods, Comparison):
        methods = {entry.name: entry.scores for entry in methods.entries if entry.scores is not None}
    require_count("draws", draws)
    if not methods or not shares or not all(0 < share < 1 for share in shares):
        raise ValueError(f"expected scores by name and shares between 0 and 1, got {list(methods)} and {list(shares)}")
    for scores in methods.values():
        scores.require_queries(queries)
    weighted = np.flatnonzero(sample_weights(train) > 0)
    sizes = tuple(
        dict.fromkeys(min(max(1, round(share * len(weighted))), len(weighted) - 1) for share in sorted(shares))
    )
    orders = {name: _orders(train, scores, weighted) for name, scores in methods.items()}
    rng = np.random.default_rng(0)
    random = [rng.permutation(weighted) for _ in range(draws)]
    sets = _Sets(train, weighted)
    columns = {
        (name, q, size): sets.add(f"{name} {size:,} {q}", order, size)
        for name, ordered in [*orders.items(), (RANDOM, random)]
        for q, order in enumerate(ordered)
        for size in sizes
    }
    truth = retrain_truth(model, train, queries, sets.removals, retraining=retraining)
    return _criteria(truth, columns, [*orders, RANDOM], sizes, draws)


class _Sets:
    """The removals of all methods, each trained once."""

    def __init__(self, train: Examples, weighted: Positions) -> None:
        self.train, self.weighted = train, weighted
        self.labels = _labels(train, weighted)
        self.removals: list[Removal] = []
        self._names: dict[frozenset[int], str] = {}

    def add(self, name: str, order: Positions, size: int) -> tuple[str, str]:
        """The names of the removal of the first examples of this order, and of all but the first of each label."""
        others = np.setdiff1d(self.weighted, self._kept(order, size))
        return self._name(f"without {name}", order[:size]), self._name(f"only {name}", others)

    def _kept(self, order: Positions, size: int) -> Positions:
        if self.labels is None:
            return order[:size]
        labels = self.labels[order]
        values, counts = np.unique(labels, return_counts=True)
        shares = [max(1, round(size * count / len(order))) for count in counts]
        strongest = [order[labels == value][:share] for value, share in zip(values, shares, strict=True)]
        return np.concatenate(strongest)

    def _name(self, name: str, positions: Positions) -> str:
        key = frozenset(positions.tolist())
        if key not in self._names:
            self._names[key] = name
            ids = tuple(self.train.ids[np.sort(positions)].tolist())
            self.removals.append(Removal(name, "one" if len(ids) == 1 else "group", ids))
        return self._names[key]


def _labels(train: Examples, weighted: Positions) -> NDArray[Any] | None:
    """Codes of the labels at all positions, if they are classes; else None."""
    y = train.y
    if y is None or y.ndim != 1 or y.dtype.kind == "f" or len(np.unique(y[weighted])) > len(weighted) // 2:
        return None
    return np.unique(y, return_inverse=True)[1]


def _orders(train: Examples, scores: Scores, weighted: Positions) -> list[Positions]:
    """The positions of the training examples with weight, strongest proponents first, for every query."""
    columns = train.positions(scores.train_ids)  # raises an error for scores of groups, whose columns are not examples
    has_weight = np.isin(columns, weighted)
    values = np.where(np.isnan(scores.values), -np.inf, scores.values)
    return [columns[has_weight][np.argsort(-row[has_weight], kind="stable")] for row in values]


def _criteria(
    truth: Truth,
    columns: Mapping[tuple[str, int, int], tuple[str, str]],
    names: Sequence[str],
    sizes: tuple[int, ...],
    draws: int,
) -> ExampleCriteria:
    place = {removal.name: column for column, removal in enumerate(truth.removals)}
    m = len(truth.query_ids)

    def effect(name: str) -> Array:
        return truth.actual[:, place[name]] if name in place else np.full(m, np.nan)

    curves: list[dict[str, Array]] = [{}, {}]
    for side, sign in ((0, 1.0), (1, -1.0)):
        for name in names:
            if name == RANDOM:
                drawn = [[effect(columns[name, d, size][side]) for d in range(draws)] for size in sizes]
                curves[side][name] = sign * finite_mean(np.array(drawn), axis=1).T
            else:
                curves[side][name] = sign * np.array(
                    [[effect(columns[name, q, size][side])[q] for size in sizes] for q in range(m)]
                )
    trainings = (len(truth.removals) + 1) * len(truth.seeds)
    return ExampleCriteria(sizes, curves[0], curves[1], truth.query_ids, trainings, tuple(truth.warnings))
