"""Rows of a table: whether each column has the category of the query or is in the same quarter of the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.interpretable.columns import Columns, number_text
from upweight.applications.interpretable.features import Drawn, InterpretableFeatures, shown_parts
from upweight.core.examples import Examples
from upweight.core.weights import sample_weights

Array = NDArray[np.float64]
Positions = NDArray[np.intp]
QUARTILES = (25, 50, 75)
KERNEL_WIDTH = 0.75  # of the kernel, times √d


class TableFeatures(InterpretableFeatures):
    """One feature per column of the training set.

    With quarters, a column of numbers is 1 in the query's own quarter of the training set's numbers; without, it is the
    number in standard deviations from the mean. A column of categories is 1 if it has the query's.

    Attributes:
        columns: of the training set and the query.
    """

    kind = "table"

    def __init__(self, train: Examples, query: Examples, quarters: bool, width: float | None, categorical: Any) -> None:
        self.columns = Columns(train, query, categorical)
        weights = sample_weights(train)
        self._present, self._shares = np.flatnonzero(weights), weights[weights > 0] / weights.sum()
        self.is_binary = np.full(len(self.columns.names), True) if quarters else ~self.columns.is_number
        codes = self.columns.codes
        train_codes = codes[self._present]
        self._edges: dict[int, Array] = {}
        self._mean, self._scale = np.zeros(codes.shape[1]), np.ones(codes.shape[1])
        if not quarters:
            self._standardise(train_codes)
        for j in np.flatnonzero(self.columns.is_number & self.is_binary).tolist():
            numbers = train_codes[:, j]
            self._edges[j] = np.unique(np.nanpercentile(numbers, QUARTILES))
        self.names = tuple(self._name(j) for j in range(codes.shape[1]))
        self.width = KERNEL_WIDTH * np.sqrt(codes.shape[1]) if width is None else width
        self._query = self._binned(codes[-1:])
        self._zero = self._described(codes[-1:])

    def _standardise(self, codes: Array) -> None:
        numbers = np.flatnonzero(self.columns.is_number)
        if np.isnan(codes[:, numbers]).any() or np.isnan(self.columns.codes[-1, numbers]).any():
            raise ValueError("expected numbers without missing values; leave out quarters=False, or fill them")
        deviations = codes[:, numbers].std(axis=0)
        self._mean[numbers] = codes[:, numbers].mean(axis=0)
        self._scale[numbers] = np.where(deviations > 0, deviations, 1.0)

    def _name(self, j: int) -> str:
        columns, code = self.columns, self.columns.codes[-1, j]
        if not columns.is_number[j]:
            return f"{columns.names[j]} = {columns.text(j, code)}"
        if not self.is_binary[j]:
            return columns.names[j]
        if np.isnan(code):
            return f"{columns.names[j]} missing"
        edges = self._edges[j]
        place = int(np.searchsorted(edges, code))
        low = "" if place == 0 else f"{number_text(edges[place - 1])} < "
        high = "" if place == len(edges) else f" ≤ {number_text(edges[place])}"
        if not high:
            return f"{columns.names[j]} > {number_text(edges[-1])}"
        return f"{low}{columns.names[j]}{high}"

    def _binned(self, codes: Array) -> Array:
        """Quarters instead of numbers; a missing number is a quarter of its own."""
        binned = codes.copy()
        for j, edges in self._edges.items():
            binned[:, j] = np.where(np.isnan(codes[:, j]), -1, np.searchsorted(edges, codes[:, j]))
        return binned

    def _described(self, codes: Array) -> Array:
        binned = self._binned(codes)
        return np.where(self.is_binary, binned == self._query, (codes - self._mean) / self._scale)

    def _drawn(self, sources: Positions, numbers: dict[int, Array] | None = None) -> Drawn:
        codes = np.take_along_axis(self.columns.codes, sources, axis=0)
        replaced = numbers or {}
        for j, values in replaced.items():
            codes[:, j] = values

        def make(part: slice) -> Any:
            return self.columns.rows(sources[part], {j: values[part] for j, values in replaced.items()})

        return Drawn(self._described(codes), make)

    def random(self, count: int, rng: np.random.Generator) -> Drawn:
        """Every column from a training example of its own; numbers that are not quarters from a normal distribution."""
        d, last = len(self.names), len(self.columns) - 1
        sources = rng.choice(self._present, (count + 1, d), p=self._shares)
        sources[0] = last
        numbers = {}
        for j in np.flatnonzero(~self.is_binary).tolist():
            numbers[j] = self._mean[j] + self._scale[j] * rng.standard_normal(count + 1)
            numbers[j][0] = self.columns.codes[-1, j]
        return self._drawn(sources, numbers)

    def mixed(self, sources: Positions, rng: np.random.Generator) -> Drawn:
        """Samples with some columns of the query, and the others of one training example."""
        from_query = shown_parts(len(sources), len(self.names), rng)
        return self._drawn(np.where(from_query, len(self.columns) - 1, sources[:, None]))

    def of_training(self, positions: Positions) -> Drawn:
        """The samples of training examples, which are left as they are."""
        return self._drawn(np.broadcast_to(positions[:, None], (len(positions), len(self.names))))

    def distances(self, rows: Array) -> Array:
        """Euclidean."""
        return np.asarray(np.sqrt(((rows - self._zero) ** 2).sum(axis=1)))
