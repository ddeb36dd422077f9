"""Removal curve: the effect of removing the strongest examples, by retraining, beside that of random removals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.deprecation import ReplacedBy, accept_old_keywords
from upweight.core.examples import Examples
from upweight.core.model import Measurable
from upweight.core.notebook_table import notebook_table
from upweight.core.plottable import Plottable
from upweight.core.scores import Scores
from upweight.core.tabular import Tabular
from upweight.core.weights import sample_weights, weighted_positions
from upweight.evaluate.agreement import finite_mean, finite_or_none
from upweight.evaluate.removals import Removal
from upweight.evaluate.retrain_truth import retrain_truth
from upweight.evaluate.truth import Truth
from upweight.retraining import deprecated_keywords
from upweight.retraining.retraining import Retraining

Array = NDArray[np.float64]
Side = Literal["proponents", "opponents", "random"]
SIDES: tuple[Side, ...] = ("proponents", "opponents", "random")
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True, eq=False)
class RemovalCurve(Plottable, Tabular):
    """Effects of removals, measured by retraining: the measurement with the examples minus without them.

    Attributes:
        sizes: how many examples were removed, (points,).
        effects: side → (queries, points); `random` is a mean over removals. NaN if the model cannot be trained so.
        spread: standard deviation over the random removals, (queries, points).
        warnings: removals that were left out, and a training that does not reproduce the model.
    """

    _display: ClassVar = ("RemovalCurveDisplay", "from_curves")
    sizes: tuple[int, ...]
    effects: dict[Side, Array]
    spread: Array
    query_ids: NDArray[Any]
    warnings: tuple[str, ...] = ()

    def mean(self, side: Side) -> Array:
        """Mean over queries, (points,)."""
        return np.asarray(finite_mean(self.effects[side], axis=0))

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        for side, effects in self.effects.items():
            for row, query in enumerate(self.query_ids.tolist()):
                for point, size in enumerate(self.sizes):
                    yield {"side": side, "query": query, "removed": size, "effect": float(effects[row, point])}

    def __repr__(self) -> str:
        last = {side: self.mean(side)[-1] for side in SIDES}
        text = ", ".join(f"{side} {value:+.3g}" for side, value in last.items())
        return f"RemovalCurve({len(self.query_ids)} queries, up to {self.sizes[-1]} removed: {text})"

    def _repr_html_(self) -> str:
        means = {side: self.mean(side) for side in SIDES}
        rows = ((size, *(f"{means[side][i]:+.3g}" for side in SIDES)) for i, size in enumerate(self.sizes))
        return notebook_table(repr(self), rows, ("removed", *SIDES))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: means over queries, None if no training was possible."""
        means: dict[str, Any] = {side: [finite_or_none(v) for v in self.mean(side)] for side in SIDES}
        return {"sizes": list(self.sizes), **means, "warnings": list(self.warnings)}


@accept_old_keywords(
    {"draws": ReplacedBy("removals"), **deprecated_keywords.KEYWORDS}, deprecated_keywords.retraining_builder()
)
def removal_curve(
    model: Measurable,
    train: Examples,
    queries: Examples,
    scores: Scores,
    shares: Sequence[float] = SHARES,
    *,
    removals: int = 5,
    retraining: Retraining | None = None,
) -> RemovalCurve:
    """Retrain without the strongest proponents of each query, without its strongest opponents, and at random.

    With good scores, the measurement falls when proponents are removed and rises when opponents are, both faster than
    with random removals. A curve tests the few strongest examples, LDS tests all. Each query has its own removals, so
    a curve costs 2 · queries · shares + removals · shares trainings. Examples are removed by rank, even if their score
    has the other sign.

    Args:
        shares: shares of the training set that are removed.
        removals: number of random removals per share, the same for all queries.
        retraining: as in `retrain_truth`.

    Raises:
        ValueError: scores of other queries or of groups, shares outside (0, 1).
    """
    scores.require_queries(queries)
    if not shares or not all(0 < share < 1 for share in shares) or removals < 1:
        raise ValueError(
            f"expected shares between 0 and 1 and at least one random removal, got {list(shares)} and {removals}"
        )
    n = len(weighted_positions(train))
    sizes = tuple(dict.fromkeys(min(max(1, round(share * n)), n - 1) for share in sorted(shares)))
    chosen = _removals(train, scores, sizes, removals)
    return _curve(retrain_truth(model, train, queries, chosen, retraining=retraining), sizes, removals)


def _removals(train: Examples, scores: Scores, sizes: Sequence[int], count: int) -> list[Removal]:
    """All removals of the curve, named "side size query" or "random size draw"."""
    columns = train.positions(scores.train_ids)  # raises an error for scores of groups, whose columns are not examples
    has_weight = sample_weights(train)[columns] > 0
    ids, weighted_ids = scores.train_ids[has_weight], train.ids[weighted_positions(train)]
    chosen: list[Removal] = []
    for query, row in enumerate(scores.values[:, has_weight]):
        for side, order in (
            ("proponents", np.argsort(-row, kind="stable")),
            ("opponents", np.argsort(row, kind="stable")),
        ):
            chosen += [_removal(f"{side} {size} {query}", ids[order[:size]]) for size in sizes]
    rng = np.random.default_rng(0)
    for draw in range(count):
        order = rng.permutation(len(weighted_ids))
        chosen += [_removal(f"random {size} {draw}", weighted_ids[order[:size]]) for size in sizes]
    return chosen


def _removal(name: str, ids: NDArray[Any]) -> Removal:
    return Removal(name, "one" if len(ids) == 1 else "group", tuple(ids.tolist()))


def _curve(truth: Truth, sizes: tuple[int, ...], count: int) -> RemovalCurve:
    """The curve from the effects of its removals, found by their names; `count` random removals per size."""
    columns = {removal.name: column for column, removal in enumerate(truth.removals)}
    m = len(truth.query_ids)

    def effect(side: str, size: int, number: int) -> Array:
        column = columns.get(f"{side} {size} {number}")
        return np.full(m, np.nan) if column is None else truth.actual[:, column]

    random = np.array([[effect("random", size, draw) for draw in range(count)] for size in sizes])  # (points, count, m)
    middle = finite_mean(random, axis=1)
    effects: dict[Side, Array] = {"random": middle.T}
    for side in SIDES[:2]:
        effects[side] = np.array([[effect(side, size, q)[q] for size in sizes] for q in range(m)])
    spread = np.sqrt(finite_mean((random - middle[:, None]) ** 2, axis=1)).T
    return RemovalCurve(sizes, effects, spread, truth.query_ids, tuple(truth.warnings))
