"""The parts of an input that can be erased: words of a text, columns of a row, numbers of an array."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.example_columns import is_missing
from upweight.core.examples import Examples
from upweight.core.input_kinds import columns_of, is_sparse

Parts = Literal["words", "columns", "numbers"]
Mask = NDArray[np.bool_]
WORD = re.compile(r"\w+(?:['’]\w+)*")


class Eraser:
    """Copies of examples from which parts are erased.

    Args:
        examples: the examples.
        baseline: what stands in for an erased part: one value or one per part; None: the mean or most frequent value
            of `train`, or 0. Words are left out.
        train: the training set.

    Raises:
        ValueError: a baseline of another shape, or a column that is not a number without a baseline or a training set.
    """

    def __init__(self, examples: Examples, baseline: Any = None, train: Examples | None = None) -> None:
        self.examples = examples
        self.is_text = has_texts(examples)
        self._frame = columns_of(examples.x)
        self._baseline = None if self.is_text else self._stand_ins(baseline, train)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the parts of one example that is not a text."""
        return (len(self._frame),) if self._frame is not None else tuple(np.shape(self.examples.x)[1:])

    @property
    def kind(self) -> Parts:
        """What the parts are."""
        if self.is_text:
            return "words"
        return "numbers" if self.examples.names is None else "columns"

    def names(self, position: int) -> tuple[str, ...]:
        """The name of every part of one example: the word, the column, or the place in the array."""
        if self.is_text:
            return tuple(self.parts(position))
        if self.examples.names is not None:
            return tuple(self.examples.names)
        return tuple(index_name(index) for index in np.ndindex(*self.shape))

    def parts(self, position: int) -> list[Any]:
        """The words, or the values of the columns or numbers, of one example."""
        if self.is_text:
            return [match.group() for match in WORD.finditer(self.examples.x[position])]
        return _values(self.examples.x, position)

    def differs(self, position: int) -> Mask:
        """Which parts differ from what stands in for them, so that erasing them changes the input."""
        if self.is_text:
            return np.ones(len(self.parts(position)), dtype=bool)
        assert self._baseline is not None
        return np.array([not _equal(v, b) for v, b in zip(self.parts(position), self._baseline, strict=True)])

    def erased(self, position: int, masks: Mask) -> Examples:
        """Copies of one example, one per row of masks (m, parts), without the parts where the row is true.

        Raises ValueError if the examples are data frames or arrays whose kind cannot hold the baseline.
        """
        single = self.examples.take([position])
        if self.is_text:
            x: Any = [self._without_words(position, mask) for mask in masks]
        else:
            x = self._filled(single.x, masks)
        y = None if single.y is None else np.repeat(single.y, len(masks), axis=0)
        return Examples(x, y, names=self.examples.names, labels=self.examples.labels)

    def _without_words(self, position: int, mask: Mask) -> str:
        text, end, remaining = self.examples.x[position], 0, []
        for match, is_erased in zip(WORD.finditer(text), mask, strict=True):
            remaining.append(text[end : match.start() if is_erased else match.end()])
            end = match.end()
        return "".join([*remaining, text[end:]])

    def _filled(self, single: Any, masks: Mask) -> Any:
        """Copies of inputs that hold a single example, with stand-ins where the masks are true."""
        assert self._baseline is not None
        if self._frame is not None:
            return self._filled_frame(single, masks)
        dense = single.toarray() if is_sparse(single) else np.asarray(single)
        flat = np.repeat(dense.reshape(1, -1), len(masks), axis=0)
        stand_ins = np.asarray(self._baseline)
        if flat.dtype.kind not in "OUS":
            kind = flat.dtype if flat.dtype.kind != "i" or np.all(stand_ins == np.rint(stand_ins)) else np.float64
            flat = flat.astype(np.result_type(kind, np.float64) if kind == np.float64 else kind)
        filled = np.where(masks, stand_ins.astype(flat.dtype), flat).reshape(len(masks), *dense.shape[1:])
        return type(single)(filled) if is_sparse(single) else filled

    def _filled_frame(self, single: Any, masks: Mask) -> Any:
        assert self._baseline is not None
        if not hasattr(single, "iloc"):  # polars
            lists = {}
            for j, (name, value) in enumerate(zip(single.columns, single.row(0), strict=True)):
                values = np.where(masks[:, j], np.array(self._baseline[j], object), np.array(value, object)).tolist()
                has_float = any(isinstance(v, float) for v in values)
                lists[name] = [float(v) if has_float and isinstance(v, int) else v for v in values]
            return type(single)(lists)
        frame = single.iloc[np.zeros(len(masks), dtype=np.intp)].reset_index(drop=True)
        for j in np.flatnonzero(masks.any(axis=0)).tolist():
            column, stand_in = frame.iloc[:, j], self._baseline[j]
            is_whole = column.dtype.kind not in "iub" or stand_in == int(stand_in)
            column = column if is_whole else column.astype(np.float64)
            frame.isetitem(j, column.where(~masks[:, j], int(stand_in) if column.dtype.kind in "iu" else stand_in))
        return frame

    def _stand_ins(self, baseline: Any, train: Examples | None) -> list[Any]:
        count = int(np.prod(self.shape))
        if baseline is not None:
            values = [baseline] if np.ndim(baseline) == 0 else np.asarray(baseline, dtype=object).ravel().tolist()
            if len(values) not in (1, count):
                raise ValueError(f"expected a baseline of one value or one per part ({count}), got {len(values)}")
            return values * count if len(values) == 1 else values
        if train is None:
            return self._zeros(count)
        if self._frame is not None:
            return [_usual(_column(train.x, j)) for j in range(count)]
        rows = train.x.toarray() if is_sparse(train.x) else np.asarray(train.x)
        if int(np.prod(rows.shape[1:])) != count:
            raise ValueError(f"expected training inputs of {count} numbers as the examples, got {rows.shape[1:]}")
        if rows.dtype.kind in "OUS":
            return [_usual(column.tolist()) for column in rows.reshape(len(rows), -1).T]
        flat = rows.reshape(len(rows), -1)
        return np.median(flat, axis=0).astype(rows.dtype).tolist() if rows.dtype.kind in "iu" else _means(flat)

    def _zeros(self, count: int) -> list[Any]:
        values = self.parts(0)
        named = zip(self._frame or [f"x{j}" for j in range(count)], values, strict=True)
        words = next((name for name, value in named if isinstance(value, str)), None)
        if words is not None:
            raise ValueError(
                f"column {words!r} is not a number, so that 0 cannot stand in for it; pass train=, or a baseline with "
                "one value per column"
            )
        return [0] * count


def index_name(index: tuple[int, ...]) -> str:
    """`x[0, 3]`, the name of a number of an array."""
    return f"x[{', '.join(map(str, index))}]"


def has_texts(examples: Examples) -> bool:
    """Whether the inputs are texts."""
    x = examples.x
    return (isinstance(x, list | tuple) and isinstance(x[0], str)) or (np.ndim(x) == 1 and isinstance(x[0], str))


def _values(x: Any, position: int) -> list[Any]:
    if hasattr(x, "iloc"):
        return [x.iloc[position, j] for j in range(x.shape[1])]
    if columns_of(x) is not None:
        return list(x.row(position))
    row = x.tocsr()[[position]].toarray() if is_sparse(x) else np.asarray(x[position])
    return [value.item() if isinstance(value, np.generic) else value for value in row.ravel()]


def _column(x: Any, j: int) -> list[Any]:
    column = x.iloc[:, j] if hasattr(x, "iloc") else x[:, j]
    return list(column.to_list() if hasattr(column, "to_list") else column)


def _usual(values: list[Any]) -> Any:
    """The mean of numbers; else the most frequent value."""
    present = [value for value in values if not is_missing(value)]
    if present and all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in present):
        return float(np.mean(present))
    return Counter(present or values).most_common(1)[0][0]


def _means(flat: NDArray[Any]) -> list[Any]:
    known = np.isfinite(flat)
    total = np.where(known, flat, 0.0).sum(axis=0, dtype=np.float64)
    return list((total / np.maximum(known.sum(axis=0), 1)).tolist())


def _equal(value: Any, stand_in: Any) -> bool:
    return bool(value == stand_in) or (is_missing(value) and is_missing(stand_in))
