"""`Scores`, the labelled query × train matrix that every method returns, and `Top`, its strongest entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.core.archive import well_formed
from upweight.core.blocks import require_count
from upweight.core.example_columns import as_names
from upweight.core.examples import Examples, Id
from upweight.core.identity import checksum
from upweight.core.lookup import position_of
from upweight.core.model import Predictions
from upweight.core.notebook_table import notebook_table
from upweight.core.plottable import Plottable
from upweight.core.row_index import require_index_of_ids
from upweight.core.scores_file import read_scores, write_scores
from upweight.core.tabular import Tabular

if TYPE_CHECKING:
    import pandas


class Unit(StrEnum):
    """EFFECT: scores have the unit of the measurement and slope 1 against retraining. RANK: sign and order only."""

    EFFECT = "EFFECT"
    RANK = "RANK"


class Attribution(NamedTuple):
    """One training example (or group) and its score."""

    id: Id
    score: float


@dataclass(frozen=True, eq=False)
class Scores(Plottable, Tabular):
    """`values[query, train]` = the query's measurement with the training example minus without it.

    With the default measurement (−loss) a positive score means: removing the example raises the query's loss, so the
    example helped. It is −I_up,loss / n of Koh & Liang (2017), eq. 2, and in the measurement's own unit when
    `unit` is EFFECT.

    Attributes:
        values: float64, shape (queries, train examples or groups). NaN only for the training examples that
            `diagnostics["undefined"]` lists, such as one that the model cannot be trained without, and their groups.
        query_ids, train_ids: the ids of the two axes.
        unit: EFFECT or RANK.
        measurement: the measurement in words.
        recipe: the method and its settings.
        diagnostics: how far to trust the scores; `diagnostics["warnings"]` is a list of sentences.
        measured: the measurement of each query on the trained model, shape (queries,).
        predictions: the model's prediction for each query.
        at_optimum: the predictions at the optimum of the training objective, if scores are taken there and a reader
            would see a difference from `predictions`; else None.
        contents: checksums of the queries' ids and of their inputs and labels; None if they are not known.
        train_contents: the same of the training examples.
        half_widths: the score is estimated, and values ± half_widths contain what it estimates with a probability of
            90 %, shape (queries, train); None for scores that are not estimated from random trainings.
    """

    _display: ClassVar = ("InfluenceDisplay", "from_scores")
    values: NDArray[np.float64]
    query_ids: NDArray[Any]
    train_ids: NDArray[Any]
    unit: Unit
    measurement: str = "−loss"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    measured: NDArray[np.float64] | None = None
    predictions: Predictions | None = None
    contents: tuple[int, int | None] | None = None
    at_optimum: Predictions | None = None
    half_widths: NDArray[np.float64] | None = None
    train_contents: tuple[int, int | None] | None = None

    def __post_init__(self) -> None:
        plain = {"values": np.asarray(self.values, dtype=np.float64)}
        plain |= {name: np.asarray(getattr(self, name)) for name in ("query_ids", "train_ids")}
        for name, array in plain.items():
            object.__setattr__(self, name, array)
        expected = (len(self.query_ids), len(self.train_ids))
        if self.values.shape != expected:
            raise ValueError(f"expected values of shape [query, train] = {expected}, got {self.values.shape}")
        if self.measured is not None and np.shape(self.measured) != expected[:1]:
            raise ValueError(f"expected one measurement per query {expected[:1]}, got {np.shape(self.measured)}")
        if self.half_widths is not None and np.shape(self.half_widths) != expected:
            raise ValueError(f"expected one half width per score {expected}, got {np.shape(self.half_widths)}")
        require_finite(self.values, may_be_nan=bool(self.diagnostics.get("undefined")))

    def require_queries(self, queries: Examples) -> None:
        """Raise ValueError if these are not the unchanged queries of these scores, in the same order."""
        if self.query_ids.tolist() != queries.ids.tolist():
            raise ValueError("expected scores of exactly these queries, in this order; call attribute(queries) again")
        ids, contents = self.contents or (None, None)  # not known for a selection of the queries
        if ids == checksum(self.query_ids) and contents is not None and contents != queries.checksum():
            raise ValueError(
                "these queries have other inputs or labels than when they were scored; call attribute(queries) again"
            )

    def require_train(self, train: Examples) -> None:
        """Raise ValueError if these are the ids of all training examples, in any order, with other contents."""
        ids, contents = self.train_contents or (None, None)
        if contents is None or ids != checksum(self.train_ids) or len(train) != len(self.train_ids):
            return  # not known for a selection of the training examples
        if self.train_ids.tolist() != train.ids.tolist():
            if set(self.train_ids.tolist()) != set(train.ids.tolist()):
                return
            train = train.select(self.train_ids)
        if contents != train.checksum():
            raise ValueError(
                "these training examples have other inputs, labels or weights than those of the scores; "
                "fit again, and call attribute(queries)"
            )

    def row(self, query: Id) -> NDArray[np.float64]:
        """All scores of one query, shape (train,)."""
        row: NDArray[np.float64] = self.values[position_of(self.query_ids, query)]
        return row

    def interval(self, query: Id, train: Id) -> tuple[float, float] | None:
        """The 90 % interval of one score; None if scores are not estimated. KeyError for an unknown id."""
        if self.half_widths is None:
            return None
        place = position_of(self.query_ids, query), position_of(self.train_ids, train, "training example")
        value, half_width = float(self.values[place]), float(self.half_widths[place])
        return value - half_width, value + half_width

    def proponents(self, query: Id, k: int = 5) -> list[Attribution]:
        """The k training examples that raised this query's measurement most, strongest first."""
        require_count("k", k, least=0)
        return _strongest(self.row(query), self.train_ids, k, sign=1.0)

    def opponents(self, query: Id, k: int = 5) -> list[Attribution]:
        """The k training examples that lowered this query's measurement most, strongest first."""
        require_count("k", k, least=0)
        return _strongest(self.row(query), self.train_ids, k, sign=-1.0)

    def group(self, by: Mapping[Id, Any] | Sequence[Any] | NDArray[Any]) -> Scores:
        """Column sums: one column per group of training examples.

        `by` maps each train id to its group, or lists one group per column. The sum is first order in the group:
        for large groups use `fitted.remove`, which follows the model to its new optimum. Sums have no intervals: errors
        of scores that come from the same trainings are not independent.
        """
        names, group_of = groups_of(by, self.train_ids)
        sums = np.zeros((len(names), len(self.query_ids)))
        np.add.at(sums, group_of, self.values.T)
        return replace(self, values=sums.T, train_ids=names, half_widths=None)

    def total(self) -> Scores:
        """One row: the effect of each training example on the sum of all queries' measurements."""
        measured = None if self.measured is None else self.measured.sum(keepdims=True)
        values = self.values.sum(axis=0, keepdims=True)
        return replace(
            self,
            values=values,
            query_ids=np.array(["total"]),
            measured=measured,
            predictions=None,
            contents=None,
            at_optimum=None,
            half_widths=None,
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The values, shape (queries, train): what `np.asarray(scores)` gives."""
        return np.array(self.values, dtype=dtype, copy=True) if copy else np.asarray(self.values, dtype=dtype)

    def to_pandas(self, long: bool = False) -> pandas.DataFrame:
        """A data frame with query ids as index and train ids as columns; with `long`, one row per pair."""
        import pandas as pd

        if long:
            return pd.DataFrame(self.to_columns())
        return pd.DataFrame(
            self.values, index=pd.Index(self.query_ids, name="query"), columns=pd.Index(self.train_ids, name="train")
        )

    def save(self, path: str | Path) -> None:
        """Write to one file, atomically; `load` gives the same scores back, bit for bit."""
        write_scores(path, {part.name: getattr(self, part.name) for part in fields(self)})

    @classmethod
    def load(cls, path: str | Path, *, mapped: bool = False) -> Scores:
        """Read what `save` wrote. Raises ValueError for a damaged file or one of another kind.

        `mapped`: values stay in the file, which is read where they are used, and must not be written to meanwhile.
        """
        stored = read_scores(path, mapped)
        with well_formed(path):
            return cls(**{**stored, "unit": Unit(stored["unit"])})

    def to_columns(self) -> dict[str, Any]:
        """In long form: `query`, `train`, `score`, and `half_width` if there are some; one row per pair."""
        m, n = self.values.shape
        columns: dict[str, Any] = {
            "query": np.repeat(self.query_ids, n),
            "train": np.tile(self.train_ids, m),
            "score": np.ravel(self.values),
        }
        return columns if self.half_widths is None else columns | {"half_width": np.ravel(self.half_widths)}

    def __repr__(self) -> str:
        m, n = self.values.shape
        method = self.recipe.get("method", "scores")
        return f"Scores({m} queries × {n} train, {self.unit} of {self.measurement}, by {method})"

    def _repr_html_(self) -> str:
        rows = (
            (query, _in_words(self.proponents(query)), _in_words(self.opponents(query)))
            for query in self.query_ids[:10].tolist()
        )
        head = ("query", "proponents", "opponents")
        return notebook_table(repr(self), rows, head, self.diagnostics.get("warnings", ()))


@dataclass(frozen=True, eq=False)
class Top(Tabular):
    """The k strongest proponents and opponents of every query.

    `ids` and `values` have shape (queries, at most 2k) and hold both, largest score first. `groups` has the sums of all
    scores of each group of training examples, if groups were asked for.
    """

    query_ids: NDArray[Any]
    ids: NDArray[Any]
    values: NDArray[np.float64]
    k: int
    unit: Unit
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    groups: Scores | None = None

    def to_columns(self) -> dict[str, Any]:
        """In long form: `query`, `train`, `score`; one row per strongest example."""
        each = self.ids.shape[1]
        pairs = {"query": np.repeat(self.query_ids, each), "train": np.ravel(self.ids)}
        return {**pairs, "score": np.ravel(self.values)}

    def proponents(self, query: Id) -> list[Attribution]:
        """The selected training examples that raised this query's measurement, strongest first."""
        position = position_of(self.query_ids, query)
        return _strongest(self.values[position], self.ids[position], self.k, sign=1.0)

    def opponents(self, query: Id) -> list[Attribution]:
        """The selected training examples that lowered this query's measurement, strongest first."""
        position = position_of(self.query_ids, query)
        return _strongest(self.values[position], self.ids[position], self.k, sign=-1.0)


def groups_of(
    by: Mapping[Id, Any] | Sequence[Any] | NDArray[Any], train_ids: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """(names of the groups, the group of every training example). Raises ValueError if an example has none."""
    if isinstance(by, Mapping):
        missing = [i for i in train_ids.tolist() if i not in by]
        if missing:
            raise ValueError(f"expected a group for every training example, got none for {missing[:3]}")
        by = [by[i] for i in train_ids.tolist()]
    require_index_of_ids("by", by, train_ids)
    names, group_of = np.unique(as_names("by", by, len(train_ids)), return_inverse=True)
    return names, group_of


def require_finite(values: NDArray[np.float64], may_be_nan: bool = False) -> NDArray[np.float64]:
    """The values themselves. Raises ValueError if one of them is infinite, or NaN unless that has a meaning."""
    not_finite = int(np.isinf(values).sum()) if may_be_nan else values.size - int(np.isfinite(values).sum())
    if not_finite:
        raise ValueError(
            f"{not_finite} scores are NaN or infinite; "
            "check the features and the damping, a score is never anything but a number"
        )
    return values


def _strongest(row: NDArray[np.float64], ids: NDArray[Any], k: int, sign: float) -> list[Attribution]:
    order = np.argsort(-sign * row, kind="stable")[:k]
    return [Attribution(ids[i].item(), float(row[i])) for i in order if sign * row[i] > 0]


def _in_words(attributions: list[Attribution]) -> str:
    return ", ".join(f"{a.id} ({a.score:+.3g})" for a in attributions)
