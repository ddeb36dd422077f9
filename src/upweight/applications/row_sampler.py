"""New rows like those of a table: a mixture whose columns are independent within a component, sampled inside a box."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.example_columns import is_missing
from upweight.core.examples import Examples
from upweight.core.input_kinds import columns_of, is_sparse

Array = NDArray[np.float64]
MIN_MASS = 1e-9  # probability of a box below which nothing is sampled in it
MAX_CATEGORIES = 100  # of one column
MAX_VALUES = 1024  # of a column of numbers, by quantiles, from which rows are drawn


@dataclass(frozen=True, eq=False)
class Box:
    """Where rows may lie: above `low` and at most `high` by column of numbers; which categories by other columns.

    Attributes:
        low, high: (numeric columns,).
        allowed: one mask per column of categories, (categories,).
    """

    low: Array
    high: Array
    allowed: tuple[NDArray[np.bool_], ...]

    def halves(self, feature: int, threshold: float) -> tuple[Box, Box]:
        """The parts of the box up to the threshold of an encoded feature, and above it."""
        if feature < len(self.low):
            low, high = self.low.copy(), self.high.copy()
            low[feature] = high[feature] = threshold
            return replace(self, high=np.where(np.arange(len(high)) == feature, high, self.high)), replace(
                self, low=np.where(np.arange(len(low)) == feature, low, self.low)
            )
        column, category = self.category(feature)
        without = self.allowed[column].copy()
        without[category] = False
        alone = np.zeros_like(without)
        alone[category] = self.allowed[column][category]
        parts = (without, alone)  # an encoded category is 0 or 1
        return tuple(  # type: ignore[return-value]
            replace(self, allowed=(*self.allowed[:column], part, *self.allowed[column + 1 :])) for part in parts
        )

    def category(self, feature: int) -> tuple[int, int]:
        """The column and the category of an encoded feature beyond the numbers."""
        position = feature - len(self.low)
        for column, mask in enumerate(self.allowed):
            if position < len(mask):
                return column, position
            position -= len(mask)
        raise IndexError(feature)


class RowSampler:
    """A mixture fitted to rows. Within a component, columns are independent, each with the values of the training rows.

    Components are those of a Gaussian mixture with diagonal covariances. Every row counts for the values of each
    component as much as it belongs to it, so that spikes, gaps and whole numbers stay what they are.

    Args:
        examples: rows of a table: an array (n, d) or a data frame.
        components: of the mixture.
        seed: of its fit.

    Raises:
        TypeError: examples that are not rows of numbers and categories.
        ValueError: missing or infinite numbers, or a column of more than `MAX_CATEGORIES` categories.
    """

    def __init__(self, examples: Examples, components: int, seed: int) -> None:
        self.template = examples.x
        self.names, self.is_named = _names(examples), examples.names is not None
        columns = [_column(examples.x, j) for j in range(len(self.names))]
        self.numeric = [j for j, column in enumerate(columns) if column.dtype.kind in "biuf"]
        self.categorical = [j for j in range(len(columns)) if j not in self.numeric]
        numbers = _numbers(columns, self.numeric, len(examples))
        _require_finite(numbers, [self.names[j] for j in self.numeric])
        self.whole = np.all(numbers == np.rint(numbers), axis=0)
        self.categories = [_categories(columns[j], self.names[j]) for j in self.categorical]
        codes = [_codes(columns[j], values) for j, values in zip(self.categorical, self.categories, strict=True)]
        self._fit(numbers, codes, components, seed)

    def _fit(self, numbers: Array, codes: list[NDArray[np.intp]], components: int, seed: int) -> None:
        from sklearn.mixture import GaussianMixture

        if numbers.shape[1]:
            spread = numbers.std(axis=0)
            standardised = (numbers - numbers.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
            count = min(components, len(np.unique(numbers, axis=0)))
            mixture = GaussianMixture(count, covariance_type="diag", random_state=seed, reg_covar=1e-4)
            shares = mixture.fit(standardised).predict_proba(standardised)
        else:
            shares = np.ones((len(codes[0]), 1))
        self.weights = shares.mean(axis=0)
        self.values: list[Array] = []
        self.cumulated: list[Array] = []  # (components, values + 1) of each column
        for column in numbers.T:
            values = np.unique(np.quantile(column, np.linspace(0, 1, MAX_VALUES), method="inverted_cdf"))
            place = np.searchsorted(values, column)
            counts = np.stack([np.bincount(place, share, len(values)) for share in shares.T])
            total = np.cumsum(np.pad(counts, ((0, 0), (1, 0))), axis=1)
            self.values.append(values)
            self.cumulated.append(total / np.maximum(total[:, -1:], 1e-300))
        self.frequencies = []
        for code, categories in zip(codes, self.categories, strict=True):
            sums = np.stack([shares[code == c].sum(axis=0) for c in range(len(categories))], axis=1) + 1e-3
            self.frequencies.append(sums / sums.sum(axis=1, keepdims=True))
        self.everywhere = Box(
            np.nextafter(numbers.min(axis=0, initial=np.inf), -np.inf) if numbers.shape[1] else np.empty(0),
            numbers.max(axis=0, initial=-np.inf) if numbers.shape[1] else np.empty(0),
            tuple(np.ones(len(values), dtype=bool) for values in self.categories),
        )

    def mass(self, box: Box) -> float:
        """The probability of the box."""
        return float(self.weights @ self._masses(box))

    def sample(self, box: Box, count: int, rng: np.random.Generator) -> tuple[Any, Array] | None:
        """New rows in the box: as inputs of the model, and encoded (count, features); None if it is too unlikely."""
        posterior = self.weights * self._masses(box)
        if not posterior.sum() > MIN_MASS:
            return None
        chosen = rng.choice(len(posterior), size=count, p=posterior / posterior.sum())
        numbers = np.empty((count, len(self.numeric)))
        for column, (low, high) in enumerate(self._ends(box)):
            for component in np.unique(chosen).tolist():
                rows = np.flatnonzero(chosen == component)
                total = self.cumulated[column][component]
                drawn = rng.uniform(total[low], total[high], len(rows))
                place = np.clip(np.searchsorted(total, drawn, side="right") - 1, low, high - 1)
                numbers[rows, column] = self.values[column][place]
        codes = [
            self._draw(frequencies[chosen] * mask, rng)
            for frequencies, mask in zip(self.frequencies, box.allowed, strict=True)
        ]
        return self._inputs(numbers, codes), self._encoded(numbers, codes)

    def encode(self, examples: Examples) -> Array:
        """Rows encoded as numbers, and one column of 0 and 1 per category: (n, features). New categories are all 0.

        Raises ValueError for other columns than those of the training set, and for numbers that are not finite.
        """
        names = _names(examples)
        both_named = self.is_named and examples.names is not None
        if len(names) != len(self.names) or (both_named and names != self.names):
            raise ValueError(f"expected the columns of the training set ({self.names[:5]}, …), got {names[:5]}, …")
        columns = [_column(examples.x, j) for j in range(len(self.names))]
        numbers = _numbers(columns, self.numeric, len(examples))
        _require_finite(numbers, [self.names[j] for j in self.numeric])
        codes = [_codes(columns[j], values) for j, values in zip(self.categorical, self.categories, strict=True)]
        return self._encoded(numbers, codes)

    def test(self, feature: int, threshold: float) -> tuple[str, float | None, Any]:
        """The column of an encoded feature, with its threshold, or the category that it is compared with."""
        if feature < len(self.numeric):
            return self.names[self.numeric[feature]], threshold, None
        column, category = self.everywhere.category(feature)
        return self.names[self.categorical[column]], None, self.categories[column][category]

    def _ends(self, box: Box) -> list[tuple[int, int]]:
        """The positions among the values of each column of numbers that lie in the box: from, and up to."""
        ends = zip(self.values, box.low.tolist(), box.high.tolist(), strict=True)
        return [
            (int(np.searchsorted(values, low, side="right")), int(np.searchsorted(values, high, side="right")))
            for values, low, high in ends
        ]

    def _masses(self, box: Box) -> Array:
        """The probability of the box in each component."""
        inside = np.ones(len(self.weights))
        for total, (low, high) in zip(self.cumulated, self._ends(box), strict=True):
            inside = inside * (total[:, high] - total[:, low])
        for frequencies, mask in zip(self.frequencies, box.allowed, strict=True):
            inside = inside * frequencies[:, mask].sum(axis=1)
        return np.maximum(inside, 0.0)

    @staticmethod
    def _draw(chances: Array, rng: np.random.Generator) -> NDArray[np.intp]:
        cumulated = np.cumsum(chances, axis=1)
        drawn: NDArray[np.intp] = (cumulated < rng.random((len(chances), 1)) * cumulated[:, -1:]).sum(axis=1)
        return drawn

    def _encoded(self, numbers: Array, codes: list[NDArray[np.intp]]) -> Array:
        hot = [np.arange(len(values)) == code[:, None] for code, values in zip(codes, self.categories, strict=True)]
        return np.concatenate([numbers, *hot], axis=1, dtype=np.float64)

    def _inputs(self, numbers: Array, codes: list[NDArray[np.intp]]) -> Any:
        x, count = self.template, len(numbers)
        if columns_of(x) is None:
            filled = np.empty((count, len(self.names)), dtype=np.asarray(x).dtype if self.categorical else np.float64)
            filled[:, self.numeric] = numbers
            for j, code, values in zip(self.categorical, codes, self.categories, strict=True):
                filled[:, j] = np.array(values, dtype=object)[code]
            return filled
        lists: dict[int, Any] = {}
        for position, j in enumerate(self.numeric):
            column = numbers[:, position]
            lists[j] = column.astype(np.int64) if self.whole[position] else column
        for j, code, values in zip(self.categorical, codes, self.categories, strict=True):
            lists[j] = np.array(values, dtype=object)[code]
        if not hasattr(x, "iloc"):
            return type(x)({name: lists[j].tolist() for j, name in enumerate(self.names)})
        frame = x.iloc[np.zeros(count, dtype=np.intp)].reset_index(drop=True)
        for j, values in lists.items():
            kind = x.dtypes.iloc[j]
            column = type(x.iloc[:, j])(values)
            frame.isetitem(
                j, column.astype(np.float64 if kind.kind in "iu" and not self.whole[self.numeric.index(j)] else kind)
            )
        return frame


def _names(examples: Examples) -> list[str]:
    shape: tuple[int, ...] = getattr(examples.x, "shape", ())
    if is_sparse(examples.x) or len(shape) != 2:
        kind = "a sparse matrix" if is_sparse(examples.x) else f"{type(examples.x).__name__} {tuple(shape)}"
        raise TypeError(
            f"expected rows of a table, an array (n, columns) or a data frame, got {kind}: pictures, texts and sparse "
            "rows have no columns that a small tree can ask about"
        )
    return examples.names or [f"x{j}" for j in range(shape[1])]


def _column(x: Any, j: int) -> NDArray[Any]:
    if columns_of(x) is None:
        column = np.asarray(x)[:, j]
    else:
        values = x.iloc[:, j] if hasattr(x, "iloc") else x[:, j]
        column = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    if column.dtype.kind not in "OUST":
        return column
    try:
        return column.astype(np.float64) if all(not isinstance(v, str) for v in column) else column.astype(object)
    except (TypeError, ValueError):
        return column.astype(object)


def _numbers(columns: list[NDArray[Any]], numeric: list[int], count: int) -> Array:
    """The columns of numbers, (n, numeric)."""
    return np.stack([columns[j] for j in numeric], axis=1).astype(np.float64) if numeric else np.empty((count, 0))


def _categories(column: NDArray[Any], name: str) -> list[Any]:
    values = sorted({value for value in column.tolist() if not is_missing(value)}, key=str)
    if any(is_missing(value) for value in column.tolist()):
        values.append(None)
    if len(values) > MAX_CATEGORIES:
        raise ValueError(
            f"column {name!r} has {len(values):,} different texts (at most {MAX_CATEGORIES} fit a tree): it looks like "
            "an id or free text; leave it out of the model, or group its values"
        )
    return values


def _codes(column: NDArray[Any], values: list[Any]) -> NDArray[np.intp]:
    place = {value: code for code, value in enumerate(values)}
    return np.array([place.get(None if is_missing(v) else v, len(values)) for v in column.tolist()], dtype=np.intp)


def _require_finite(numbers: Array, names: list[str]) -> None:
    bad = np.flatnonzero(~np.isfinite(numbers).all(axis=0))
    if len(bad):
        raise ValueError(
            f"column {names[int(bad[0])]!r} has missing or infinite numbers, around which no rows can be drawn; fill "
            "them before the model, or drop the rows"
        )
