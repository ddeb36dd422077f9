"""New rows like those of a table: a mixture whose columns are independent within a component, sampled inside a box."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from upweight.core.example_columns import is_missing
from upweight.core.examples import Examples
from upweight.core.input_kinds import columns_of, is_sparse

Array = NDArray[np.float64]
MIN_MASS = 1e-9  # probability of a box below which nothing is sampled in it
MAX_CATEGORIES = 100  # of one column


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
    """A mixture fitted to rows: Gaussians with diagonal covariances, and frequencies of categories by component.

    Args:
        examples: rows of a table: an array (n, d) or a data frame.
        components: of the mixture.
        seed: of its fit.

    Raises:
        TypeError: examples that are no rows of numbers and categories.
        ValueError: missing or infinite numbers, or a column of more than `MAX_CATEGORIES` categories.
    """

    def __init__(self, examples: Examples, components: int, seed: int) -> None:
        self.template = examples.x
        self.names = _names(examples)
        columns = [_column(examples.x, j) for j in range(len(self.names))]
        self.numeric = [j for j, column in enumerate(columns) if column.dtype.kind in "biuf"]
        self.categorical = [j for j in range(len(columns)) if j not in self.numeric]
        self.numbers = np.stack([columns[j] for j in self.numeric], axis=1).astype(np.float64) if self.numeric else None
        numbers = np.empty((len(examples), 0)) if self.numbers is None else self.numbers
        _require_finite(numbers, [self.names[j] for j in self.numeric])
        self.whole = np.all(numbers == np.rint(numbers), axis=0)
        self.categories = [_categories(columns[j], self.names[j]) for j in self.categorical]
        codes = [_codes(columns[j], values) for j, values in zip(self.categorical, self.categories, strict=True)]
        self._fit(numbers, codes, components, seed)

    def _fit(self, numbers: Array, codes: list[NDArray[np.intp]], components: int, seed: int) -> None:
        from sklearn.mixture import GaussianMixture

        self.middle, scale = numbers.mean(axis=0), numbers.std(axis=0)
        self.scale = np.where(scale > 0, scale, 1.0)
        if numbers.shape[1]:
            count = min(components, len(np.unique(numbers, axis=0)))
            mixture = GaussianMixture(count, covariance_type="diag", random_state=seed, reg_covar=1e-4)
            standardised = (numbers - self.middle) / self.scale
            shares = mixture.fit(standardised).predict_proba(standardised)
            self.weights, self.means = mixture.weights_, mixture.means_
            self.deviations = np.sqrt(mixture.covariances_)
        else:
            shares = np.ones((len(codes[0]), 1))
            self.weights, self.means, self.deviations = np.ones(1), np.empty((1, 0)), np.empty((1, 0))
        self.frequencies = []
        for column, values in zip(codes, self.categories, strict=True):
            counts = np.stack([shares[column == c].sum(axis=0) for c in range(len(values))], axis=1) + 1e-3
            self.frequencies.append(counts / counts.sum(axis=1, keepdims=True))
        self.everywhere = Box(
            np.nextafter(numbers.min(axis=0, initial=np.inf), -np.inf) if numbers.shape[1] else np.empty(0),
            numbers.max(axis=0, initial=-np.inf) if numbers.shape[1] else np.empty(0),
            tuple(np.ones(len(values), dtype=bool) for values in self.categories),
        )

    def mass(self, box: Box) -> float:
        """The probability of the box."""
        return float(self.weights @ self._masses(box)[0])

    def sample(self, box: Box, count: int, rng: np.random.Generator) -> tuple[Any, Array] | None:
        """New rows in the box: as inputs of the model, and encoded (count, features); None if it is too unlikely."""
        masses, lows, highs = self._masses(box)
        posterior = self.weights * masses
        if not posterior.sum() > MIN_MASS:
            return None
        chosen = rng.choice(len(posterior), size=count, p=posterior / posterior.sum())
        low, high = lows[chosen], highs[chosen]
        uniform = low + (high - low) * rng.random(low.shape)
        standardised = self.means[chosen] + self.deviations[chosen] * ndtri(np.clip(uniform, 1e-300, 1 - 1e-16))
        numbers = np.clip(standardised * self.scale + self.middle, np.nextafter(box.low, np.inf), box.high)
        numbers = np.where(self.whole, np.rint(numbers), numbers)
        codes = [
            self._draw(frequencies[chosen] * mask, rng)
            for frequencies, mask in zip(self.frequencies, box.allowed, strict=True)
        ]
        return self._inputs(numbers, codes), self._encoded(numbers, codes)

    def encode(self, examples: Examples) -> Array:
        """Rows encoded as numbers, and one column of 0 and 1 per category: (n, features). New categories are all 0."""
        columns = [_column(examples.x, j) for j in range(len(self.names))]
        numbers = np.stack([columns[j] for j in self.numeric], axis=1).astype(np.float64) if self.numeric else None
        codes = [_codes(columns[j], values) for j, values in zip(self.categorical, self.categories, strict=True)]
        return self._encoded(np.empty((len(examples), 0)) if numbers is None else numbers, codes)

    def test(self, feature: int, threshold: float) -> tuple[str, float | None, Any]:
        """The column of an encoded feature, with its threshold, or the category that it is compared with."""
        if feature < len(self.numeric):
            return self.names[self.numeric[feature]], threshold, None
        column, category = self.everywhere.category(feature)
        return self.names[self.categorical[column]], None, self.categories[column][category]

    def _masses(self, box: Box) -> tuple[Array, Array, Array]:
        """The probability of the box in each component, and its ends as values of the distribution functions."""
        ends = []
        for end in (box.low, box.high):
            standardised = (end - self.middle) / self.scale
            ends.append(ndtr((standardised - self.means) / self.deviations))
        inside = np.prod(np.maximum(ends[1] - ends[0], 0.0), axis=1)
        for frequencies, mask in zip(self.frequencies, box.allowed, strict=True):
            inside = inside * frequencies[:, mask].sum(axis=1)
        return inside, ends[0], ends[1]

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
