"""`Examples`: a data set with stable ids, for training sets and queries alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.change_checks import SEEN_CHECKSUMS
from upweight.core.contents import UnidentifiedError
from upweight.core.dataset_rows import as_rows, column_values, version_of
from upweight.core.example_columns import as_column, as_column_names, as_ids, as_weights, is_arrow_table
from upweight.core.identity import checksum, digest
from upweight.core.input_kinds import columns_of, ids_of_subset, join_rows, length_of, read_dataset, take_rows
from upweight.core.preview import Preview, preview_of
from upweight.core.row_index import ids_of, require_index_of_ids, require_same_index

Id = int | str
PARTS = ("x", "y", "ids", "names", "weights", "labels", "shown")
UNCHANGED: Any = object()  # the default of an argument that was not passed


class Examples:
    """A data set whose examples keep their ids when they are reordered or selected.

    Args:
        x: inputs as the model takes them: a numpy array (n, …), a scipy sparse matrix (n, d), a pandas or
            polars data frame, an Arrow table, a list of texts, or a `datasets.Dataset`, whose rows are read when they
            are needed.
        y: labels or target values, shape (n,) or (n, outputs). Queries may have none. A column (n, 1) is held as (n,);
            the loss of a network gets it as (n, 1) again, as it came.
        ids: one unique int or str per example. Default: the index of the data frame if x has one (dates, pairs and
            other labels as texts, with a warning), else 0 … n−1.
        names: one name per input column, used in previews. Default: the column names of the data frame.
        weights: one non-negative sample weight per example, as passed to the estimator's `fit`. An example of
            weight 0 is absent; if all weights are whole numbers, weight k means k copies.
        labels: readable names of the labels, e.g. `{0: "ham", 1: "spam"}`.
        shown: images or texts to show in reports in place of the raw inputs, one per example.

    Attributes:
        is_column: whether y came as a column (n, 1).

    Examples are immutable: `replaced` returns a new set with other parts. Inputs and labels are not copied, weights
    are. If arrays are changed in place, the change is noticed: results for queries are recomputed, and a fit refuses a
    training set that has changed.

    Raises:
        ValueError: the set is empty, lengths disagree, ids repeat, targets or weights are not finite, or two frames or
            series have different indexes (they are never paired by position).

    >>> import numpy as np
    >>> train = Examples(np.eye(3), [0, 1, 1], ids=["a", "b", "c"], names=["u", "v", "w"])
    >>> train.label("b"), train.select(["c", "a"]).ids.tolist()
    (1, ['c', 'a'])
    """

    x: Any
    y: NDArray[Any] | None
    ids: NDArray[Any]
    names: list[str] | None
    weights: NDArray[np.float64] | None
    labels: dict[Any, str]
    shown: Any
    is_column: bool
    _position: dict[Id, int]

    def __init__(
        self,
        x: Any,
        y: Any = None,
        ids: Sequence[Id] | NDArray[Any] | None = None,
        names: Sequence[str] | None = None,
        *,
        weights: Any = None,
        labels: dict[Any, str] | None = None,
        shown: Any = None,
    ) -> None:
        x = x.to_pandas() if is_arrow_table(x) else as_rows(x)
        y, ids, weights, shown = (column_values(part) for part in (y, ids, weights, shown))
        n = length_of(x)
        if n == 0:
            raise ValueError("expected at least one example, got an empty set; check the filter that made it")
        require_same_index({"x": x, "y": y, "ids": ids, "weights": weights, "shown": shown})
        columns = columns_of(x) if names is None else [str(name) for name in names]
        if shown is not None and len(shown) != n:
            raise ValueError(f"expected `shown` to have one entry per example ({n}), got {len(shown)}")
        self._set(
            x=x,
            y=None if y is None else as_column("y", y, n),
            is_column=_is_column(y),
            ids=as_ids(ids_of(x, n) if ids is None else ids, n),
            names=as_column_names(columns, x),
            weights=None if weights is None else as_weights(weights, n),
            labels=dict(labels or {}),
            shown=shown,
        )

    def _set(self, **parts: Any) -> None:
        """Set all parts, once. Raises ValueError if ids repeat."""
        parts["ids"].flags.writeable = False  # this array is a copy
        self.__dict__.update(parts)
        self.__dict__["_position"] = {identifier: position for position, identifier in enumerate(self.ids.tolist())}
        if len(self._position) != len(self.ids):
            seen: set[Id] = set()
            repeated = next(i for i in self.ids.tolist() if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise ValueError(
                f"expected unique ids, got {repeated!r} more than once; pass ids= with one id per example "
                "(or reset the index of the data frame)"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*PARTS, "is_column")}

    def __setstate__(self, parts: dict[str, Any]) -> None:
        self._set(**{"is_column": False, **parts})

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"examples are immutable; use examples.replaced({name}=…), which returns new ones")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"examples are immutable; examples.replaced({name}=None) returns new ones without it")

    def replaced(
        self,
        *,
        x: Any = UNCHANGED,
        y: Any = UNCHANGED,
        ids: Any = UNCHANGED,
        names: Any = UNCHANGED,
        weights: Any = UNCHANGED,
        labels: Any = UNCHANGED,
        shown: Any = UNCHANGED,
    ) -> Examples:
        """A new set with these parts replaced, checked as in the constructor; parts that are not named stay the same.

        With a new data frame come the names of its columns. New labels (n,) of a set whose labels were a column (n, 1)
        are a column too.

        >>> Examples([[1.0], [2.0]], [0, 1], ids=["a", "b"]).replaced(y=[1, 1]).label("a")
        1
        """
        parts = {name: getattr(self, name) for name in PARTS}
        if names is UNCHANGED and x is not UNCHANGED and columns_of(x) is not None:
            names = None
        given = {"x": x, "y": y, "ids": ids, "names": names, "weights": weights, "labels": labels, "shown": shown}
        replaced = Examples(**{**parts, **{name: value for name, value in given.items() if value is not UNCHANGED}})
        replaced.__dict__["is_column"] |= self.is_column and replaced.y is not None and replaced.y.ndim == 1
        return replaced

    @classmethod
    def from_dataset(cls, dataset: Any, ids: Sequence[Id] | None = None) -> Examples:
        """Read a map-style data set (`len`, `[i]` → (x, y) pair, or a dict with x/y-like keys) into memory.

        The examples of a torch `Subset` keep their positions in the data set behind it as ids, unless `ids` are given.

        Raises an error for a shuffling loader, an iterable without positions, and a data set that augments (an item
        differs when it is read twice): scores could not be traced back to an example.
        """
        x, y = read_dataset(dataset)
        return cls(x, y, ids=ids_of_subset(dataset) if ids is None else ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        kind = type(self.x).__name__
        return f"Examples({len(self)} examples, {kind}, ids {self.ids[0]!s} … {self.ids[-1]!s})"

    def digest(self) -> str:
        """A digest of ids, inputs, labels and weights. Raises UnidentifiedError if inputs cannot be compared."""
        return digest(self.ids, self.x, self.y, self.weights)

    def checksum(self) -> int | None:
        """A checksum that changes when arrays are changed in place; None for inputs that cannot be checked."""
        seen = SEEN_CHECKSUMS.get()
        if seen is not None and id(self) in seen:
            return seen[id(self)][1]
        try:
            contents = checksum(version_of(self.x), self.y, self.weights)
        except UnidentifiedError:
            contents = None
        if seen is not None:
            seen[id(self)] = self, contents
        return contents

    def with_column(self) -> Examples:
        """The same examples, whose `y` is (n, 1) if it came so; for functions of the user that make batches."""
        if not self.is_column or self.y is None:
            return self
        given = copy(self)
        given.__dict__["y"] = self.y[:, None]
        return given

    def positions(self, ids: Sequence[Id] | NDArray[Any]) -> NDArray[np.intp]:
        """Positions of these ids, shape (len(ids),). KeyError for an unknown id, TypeError for a mask (False == 0)."""
        plain = np.atleast_1d(np.asarray(ids)).tolist()
        if any(isinstance(i, bool) for i in plain):
            raise TypeError("expected ids, got booleans; those of a mask are `examples.ids[mask]`")
        try:
            return np.array([self._position[i] for i in plain], dtype=np.intp)
        except KeyError as error:
            raise KeyError(f"no example has the id {error.args[0]!r}; ids look like {self.ids[:3].tolist()}") from None

    def take(self, positions: Any) -> Examples:
        """The examples at these positions (or where a boolean mask is true), with their ids."""
        where = np.atleast_1d(np.asarray(positions))
        if where.dtype == bool:
            require_index_of_ids("mask", positions, self.ids)
        if where.dtype == bool and len(where) != len(self):
            raise ValueError(f"expected a mask with one entry per example ({len(self)}), got {len(where)}")
        where = np.flatnonzero(where) if where.dtype == bool else where.astype(np.intp)
        if len(where) == 0:
            raise ValueError("expected at least one example, got an empty set; check the filter that made it")
        part = object.__new__(Examples)
        part._set(  # these parts were checked before; their weights may all be 0
            x=take_rows(self.x, where),
            y=None if self.y is None else self.y[where],
            ids=self.ids[where],
            names=self.names,
            weights=None if self.weights is None else self.weights[where],
            labels=self.labels,
            shown=None if self.shown is None else take_rows(self.shown, where),
            is_column=self.is_column,
        )
        return part

    def select(self, ids: Sequence[Id] | NDArray[Any]) -> Examples:
        """The examples with these ids, in this order."""
        return self.take(self.positions(ids))

    def without(self, ids: Sequence[Id] | NDArray[Any]) -> Examples:
        """All examples except these."""
        mask = np.ones(len(self), dtype=bool)
        mask[self.positions(ids)] = False
        return self.take(mask)

    def joined(self, other: Examples) -> Examples:
        """These examples followed by the others. Names and readable labels are those of this set.

        Raises ValueError if inputs do not fit, an id occurs twice, or only one of the sets has labels.
        """
        if (self.y is None) != (other.y is None):
            raise ValueError("expected labels on both sides or on none")
        weights = None
        if self.weights is not None or other.weights is not None:
            weights = np.concatenate([np.ones(len(e)) if e.weights is None else e.weights for e in (self, other)])
        if self.ids.dtype.kind != other.ids.dtype.kind:
            raise ValueError(f"expected ids of one kind, got ones like {self.ids[0]!r} and like {other.ids[0]!r}")
        return self.replaced(
            x=join_rows(self.x, other.x),
            y=None if self.y is None or other.y is None else np.concatenate([self.y, other.y]),
            ids=np.concatenate([self.ids, other.ids]),
            weights=weights,
            shown=None if self.shown is None or other.shown is None else join_rows(self.shown, other.shown),
        )

    def batches(self, size: int) -> Iterator[Examples]:
        """Consecutive examples, at most `size` at a time."""
        if size < 1:
            raise ValueError(f"expected batches of at least 1 example, got {size}")
        for start in range(0, len(self), size):
            yield self.take(np.arange(start, min(start + size, len(self))))

    def label(self, identifier: Id) -> Any:
        """The label of one example, by its readable name if `labels` has one; None without labels."""
        if self.y is None:
            return None
        value = self.y[self.positions([identifier])[0]]
        value = value.item() if isinstance(value, np.generic) else value
        return self.labels.get(value, value) if not isinstance(value, np.ndarray) else value.tolist()

    def preview(self, identifier: Id) -> Preview:
        """Image, text or table row of one example, for a report; of a row the first columns."""
        position = int(self.positions([identifier])[0])
        source = self.x if self.shown is None else self.shown
        names = self.names if self.shown is None else columns_of(source)
        return preview_of(take_rows(source, np.array([position])), names)


def _is_column(y: Any) -> bool:
    """Whether labels are a column of shape (n, 1)."""
    shape = getattr(y, "shape", None)
    if shape is None:
        return isinstance(y, list | tuple) and isinstance(y[0], list | tuple) and len(y[0]) == 1
    return len(shape) == 2 and int(shape[1]) == 1


def require_examples(given: Any, what: str = "the examples") -> None:
    """Raise TypeError if `given` is not an Examples; the message says how to make one."""
    if not isinstance(given, Examples):
        raise TypeError(
            f"expected {what} as upweight.Examples(x, y), got {type(given).__name__}; a data set or loader goes "
            "through Examples.from_dataset(…)"
        )
