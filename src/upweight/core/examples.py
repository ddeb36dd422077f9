"""Examples: the training set and the queries alike, with stable ids, labels and something to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.change_checks import SEEN_CHECKSUMS
from upweight.core.contents import UnidentifiedError
from upweight.core.identity import checksum, digest
from upweight.core.input_kinds import columns_of, index_of, join_rows, length_of, read_dataset, take_rows
from upweight.core.preview import Preview, preview_of

Id = int | str
PARTS = ("x", "y", "ids", "names", "weights", "labels", "shown")
KEEP: Any = object()  # an argument that was not given


class Examples:
    """A data set whose members keep their ids whatever is done to their order.

    Args:
        x: inputs as the model takes them: a numpy array (n, …), a scipy sparse matrix (n, d), a pandas or
            polars data frame, an Arrow table, or a list of texts.
        y: labels or target values, shape (n,) or (n, outputs); may be left out for queries without a label.
        ids: one unique int or str per example. Left out: the frame's own index if it has one, else 0 … n−1.
        names: one name per input column, used in previews. Left out: the frame's column names.
        weights: one non-negative sample weight per example, as passed to the estimator's `fit`. An example of weight
            0 is absent; whole weights count copies.
        labels: readable names of the labels, e.g. `{0: "ham", 1: "spam"}`.
        shown: what a person should see in place of the raw inputs (images or texts), one per example.

    Parts are never set anew: `replaced` gives other examples. Inputs and labels that were handed in are not copied
    (weights are). A change of them in place is noticed: what was made of queries before is made again, a fit of a
    training set is refused.

    Raises:
        ValueError: an empty set, lengths that disagree, ids that repeat, non-finite targets or weights.

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
        x = x.to_pandas() if _is_arrow(x) else x
        n = length_of(x)
        if n == 0:
            raise ValueError("expected at least one example, got an empty set; check the filter that made it")
        columns = columns_of(x) if names is None else [str(name) for name in names]
        if shown is not None and len(shown) != n:
            raise ValueError(f"expected `shown` to have one entry per example ({n}), got {len(shown)}")
        self._set(
            x=x,
            y=None if y is None else _column("y", y, n),
            ids=_ids(index_of(x, n) if ids is None else ids, n),
            names=_names(columns, x),
            weights=None if weights is None else _weights(weights, n),
            labels=dict(labels or {}),
            shown=shown,
        )

    def _set(self, **parts: Any) -> None:
        """All parts at once, after which they stay. Raises ValueError for ids that repeat."""
        parts["ids"].flags.writeable = False  # the array is our own
        self.__dict__.update(parts)
        self.__dict__["_position"] = {identifier: place for place, identifier in enumerate(self.ids.tolist())}
        if len(self._position) != len(self.ids):
            seen: set[Id] = set()
            repeated = next(i for i in self.ids.tolist() if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise ValueError(
                f"expected unique ids, got {repeated!r} more than once; pass ids= with one id per example "
                "(or reset the index of the data frame)"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in PARTS}

    def __setstate__(self, parts: dict[str, Any]) -> None:
        self._set(**parts)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"examples stay as they were made; use examples.replaced({name}=…), which gives new ones")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"examples stay as they were made; examples.replaced({name}=None) gives some without it")

    def replaced(
        self,
        *,
        x: Any = KEEP,
        y: Any = KEEP,
        ids: Any = KEEP,
        names: Any = KEEP,
        weights: Any = KEEP,
        labels: Any = KEEP,
        shown: Any = KEEP,
    ) -> Examples:
        """The same examples with other parts, checked as in a new set; what is not named stays as it is.

        A new frame brings the names of its own columns.

        >>> Examples([[1.0], [2.0]], [0, 1], ids=["a", "b"]).replaced(y=[1, 1]).label("a")
        1
        """
        parts = {name: getattr(self, name) for name in PARTS}
        if names is KEEP and x is not KEEP and columns_of(x) is not None:
            names = None
        given = {"x": x, "y": y, "ids": ids, "names": names, "weights": weights, "labels": labels, "shown": shown}
        return Examples(**{**parts, **{name: value for name, value in given.items() if value is not KEEP}})

    @classmethod
    def from_dataset(cls, dataset: Any, ids: Sequence[Id] | None = None) -> Examples:
        """Read a map-style data set (`len`, `[i]` → (x, y) pair, or a dict with x/y-like keys) into memory.

        Refuses a shuffling loader, an iterable without positions, and a data set that augments
        (an item read twice differs): the scores could not be traced back to an example.
        """
        x, y = read_dataset(dataset)
        return cls(x, y, ids=ids)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        kind = type(self.x).__name__
        return f"Examples({len(self)} examples, {kind}, ids {self.ids[0]!s} … {self.ids[-1]!s})"

    def digest(self) -> str:
        """A name for ids, inputs, labels and weights. Raises UnidentifiedError for inputs that have no contents."""
        return digest(self.ids, self.x, self.y, self.weights)

    def checksum(self) -> int | None:
        """To notice that arrays were changed in place; None for inputs of which that cannot be noticed."""
        seen = SEEN_CHECKSUMS.get()
        if seen is not None and id(self) in seen:
            return seen[id(self)][1]
        try:
            contents = checksum(self.x, self.y, self.weights)
        except UnidentifiedError:
            contents = None
        if seen is not None:
            seen[id(self)] = self, contents
        return contents

    def positions(self, ids: Sequence[Id] | NDArray[Any]) -> NDArray[np.intp]:
        """Where these ids stand, shape (len(ids),). Raises KeyError with the first unknown id."""
        plain = np.atleast_1d(np.asarray(ids)).tolist()
        try:
            return np.array([self._position[i] for i in plain], dtype=np.intp)
        except KeyError as error:
            raise KeyError(f"no example has the id {error.args[0]!r}; ids look like {self.ids[:3].tolist()}") from None

    def take(self, positions: Any) -> Examples:
        """The examples at these positions (or where this boolean mask is true), ids kept."""
        where = np.atleast_1d(np.asarray(positions))
        if where.dtype == bool and len(where) != len(self):
            raise ValueError(f"expected a mask with one entry per example ({len(self)}), got {len(where)}")
        where = np.flatnonzero(where) if where.dtype == bool else where.astype(np.intp)
        if len(where) == 0:
            raise ValueError("expected at least one example, got an empty set; check the filter that made it")
        part = object.__new__(Examples)
        part._set(  # parts of a set that was checked, which may hold nothing but weights of 0
            x=take_rows(self.x, where),
            y=None if self.y is None else self.y[where],
            ids=self.ids[where],
            names=self.names,
            weights=None if self.weights is None else self.weights[where],
            labels=self.labels,
            shown=None if self.shown is None else take_rows(self.shown, where),
        )
        return part

    def select(self, ids: Sequence[Id] | NDArray[Any]) -> Examples:
        """The examples with these ids, in this order."""
        return self.take(self.positions(ids))

    def without(self, ids: Sequence[Id] | NDArray[Any]) -> Examples:
        """All examples but these."""
        kept = np.ones(len(self), dtype=bool)
        kept[self.positions(ids)] = False
        return self.take(kept)

    def joined(self, other: Examples) -> Examples:
        """These examples, then the others, whose ids are none of these; names and readable labels are these.

        Raises ValueError where inputs do not fit, an id comes twice, or one side has labels and the other none.
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
        """The label of one example (its readable name where `labels` gives one), None without labels."""
        if self.y is None:
            return None
        value = self.y[self.positions([identifier])[0]]
        value = value.item() if isinstance(value, np.generic) else value
        return self.labels.get(value, value) if not isinstance(value, np.ndarray) else value.tolist()

    def preview(self, identifier: Id) -> Preview:
        """Image, text or table row of one example, for a report."""
        place = int(self.positions([identifier])[0])
        source = self.x if self.shown is None else self.shown
        return preview_of(
            take_rows(source, np.array([place])), self.names if self.shown is None else columns_of(source)
        )


def require_examples(given: Any, what: str = "the examples") -> None:
    """Raise TypeError if `given` is not an Examples, with the way to make one."""
    if not isinstance(given, Examples):
        raise TypeError(
            f"expected {what} as upweight.Examples(x, y), got {type(given).__name__}; a data set or loader goes "
            "through Examples.from_dataset(…)"
        )


def as_names(what: str, values: Any, n: int) -> NDArray[Any]:
    """One name per example as an array. Raises ValueError instead of quietly turning one kind into another."""
    array = np.asarray(values)
    if array.ndim != 1 or len(array) != n:
        raise ValueError(f"expected `{what}` to have one entry per example ({n}), got an array of shape {array.shape}")
    if array.dtype.kind in "OU" and all(isinstance(v, str) for v in values):
        return array.astype(str)
    if array.dtype.kind not in "iufb" or (array.dtype == np.uint64 and array.max() > np.iinfo(np.int64).max):
        kinds = " and ".join(sorted({type(v).__name__ for v in values}))
        raise ValueError(
            f"expected `{what}` to be all 64-bit int or all str, got {kinds}; e.g. [str(i) for i in {what}]"
        )
    return array


def _is_arrow(x: Any) -> bool:
    return hasattr(x, "to_pandas") and type(x).__module__.split(".")[0] == "pyarrow"


def _column(name: str, values: Any, n: int) -> NDArray[Any]:
    array = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    if array.ndim == 0 or len(array) != n:
        got = "a single value" if array.ndim == 0 else f"{len(array)} values"
        raise ValueError(f"expected `{name}` to have one entry per example ({n}), got {got}")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype == object and any(map(is_missing, array.ravel())):
        raise ValueError(f"`{name}` has missing values; drop or fill them before explaining the model")
    if array.dtype == object and np.isscalar(array.flat[0]) and len({type(value) for value in array.ravel()}) == 1:
        array = np.array(array.tolist())  # a frame's texts and categories: the same values, in numpy's own kind
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array.reshape(n, -1)).all(axis=1))[0])
        raise ValueError(f"`{name}` is NaN or infinite at position {bad}; drop or fill it before explaining the model")
    return array


def is_missing(value: Any) -> bool:
    """Whether this stands for a value that is not there: None, NaN, or a library's own NA."""
    # pandas' NA answers a comparison with neither yes nor no, so it is told by its name.
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and isnan(value))


def _weights(values: Any, n: int) -> NDArray[np.float64]:
    weights = _column("weights", values, n).astype(np.float64)
    if weights.ndim != 1:
        raise ValueError(f"expected one sample weight per example, shape ({n},), got shape {weights.shape}")
    if (weights < 0).any() or weights.sum() == 0:
        raise ValueError("expected non-negative sample weights that are not all zero; negative weights have no optimum")
    return weights


def _ids(values: Any, n: int) -> NDArray[Any]:
    array = as_names("ids", values, n)
    if array.dtype.kind in "fb":
        raise ValueError(f"expected `ids` to be all int or all str, got {array.dtype}; e.g. [str(i) for i in ids]")
    return array.astype(np.int64) if array.dtype.kind in "iu" else array


def _names(names: list[str] | None, x: Any) -> list[str] | None:
    shape = getattr(x, "shape", None)
    if names is not None and shape is not None and len(shape) == 2 and len(names) != shape[1]:
        raise ValueError(f"expected one name per column ({shape[1]}), got {len(names)}")
    return names
