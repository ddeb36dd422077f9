"""Words of a text, and columns of a sparse row that are not 0: whether each of them is there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.interpretable.features import Drawn, InterpretableFeatures, cosine_distances, shown_parts
from upweight.core.examples import Examples

Array = NDArray[np.float64]
Positions = NDArray[np.intp]
BETWEEN_WORDS = re.compile(r"(\W+)")
KERNEL_WIDTH = 25.0  # of the kernel, for distances times 100
PERCENT = 100.0


class TextFeatures(InterpretableFeatures):
    """One feature per different word of a text, which is 1 if the word is there.

    Attributes:
        pieces: the text in words (at even positions) and what stands between them.
    """

    kind = "text"

    def __init__(self, train: Examples | None, query: Examples, width: float | None) -> None:
        self.pieces = BETWEEN_WORDS.split(_text(query.x[0]))
        self.names = tuple(dict.fromkeys(word for word in self.pieces[::2] if word))
        if not self.names:
            raise ValueError(f"expected a text with at least one word, got {query.x[0]!r}")
        self.width = KERNEL_WIDTH if width is None else width
        self._train: Sequence[str] = [] if train is None else train.x
        self._places = {word: j for j, word in enumerate(self.names)}

    def _with(self, words: dict[str, str]) -> str:
        """The text with these words replaced."""
        return "".join(words.get(piece, piece) if i % 2 == 0 else piece for i, piece in enumerate(self.pieces))

    def random(self, count: int, rng: np.random.Generator) -> Drawn:
        """Samples in which some words are left out, wherever they stand."""
        shown = np.ones((count + 1, len(self.names)), dtype=bool)
        shown[1:] = shown_parts(count, len(self.names), rng)

        def make(part: slice) -> list[str]:
            return [self._with(dict.fromkeys(self._hidden(row), "")) for row in shown[part]]

        return Drawn(shown.astype(np.float64), make)

    def mixed(self, sources: Positions, rng: np.random.Generator) -> Drawn:
        """Samples in which some words are replaced by words of one training example each, drawn at random."""
        shown = shown_parts(len(sources), len(self.names), rng)
        replaced: list[dict[str, str]] = []
        for row, source in zip(shown, sources.tolist(), strict=True):
            words = _words(self._train[source]) or [""]
            hidden = self._hidden(row)
            replaced.append(dict(zip(hidden, rng.choice(words, len(hidden)).tolist(), strict=True)))
        rows = shown.astype(np.float64)
        for row, words_of in zip(rows, replaced, strict=True):
            row[[self._places[word] for word in words_of.values() if word in self._places]] = 1.0
        return Drawn(rows, lambda part: [self._with(words) for words in replaced[part]])

    def _hidden(self, shown: NDArray[np.bool_]) -> list[str]:
        return [self.names[j] for j in np.flatnonzero(~shown)]

    def of_training(self, positions: Positions) -> Drawn:
        """Which of these words the training examples have."""
        rows = np.zeros((len(positions), len(self.names)))
        texts = [self._train[i] for i in positions.tolist()]
        for row, text in zip(rows, texts, strict=True):
            row[[self._places[word] for word in _words(text) if word in self._places]] = 1.0
        return Drawn(rows, lambda part: texts[part])

    def distances(self, rows: Array) -> Array:
        """Cosine, in percent."""
        return PERCENT * cosine_distances(rows)


class SparseFeatures(InterpretableFeatures):
    """One feature per column of a sparse row that is not 0, which is 1 if the column has the query's number."""

    kind = "table"

    def __init__(self, train: Examples | None, query: Examples, width: float | None) -> None:
        self._row = query.x.tocsr()
        self._columns = np.unique(self._row.indices[self._row.data != 0])
        if not len(self._columns):
            raise ValueError("expected a sparse row with at least one number that is not 0, got zeros only")
        names = [f"x{j}" for j in range(self._row.shape[1])] if query.names is None else query.names
        values = np.asarray(self._row[:, self._columns].toarray())[0]
        self.names = tuple(f"{names[j]} = {value:.4g}" for j, value in zip(self._columns, values, strict=True))
        self.width = KERNEL_WIDTH if width is None else width
        self._values = values
        self._train = None if train is None else train.x.tocsr()

    def random(self, count: int, rng: np.random.Generator) -> Drawn:
        """Samples in which some columns are 0."""
        shown = np.ones((count + 1, len(self.names)), dtype=bool)
        shown[1:] = shown_parts(count, len(self.names), rng)
        return Drawn(shown.astype(np.float64), lambda part: self._rows(shown[part] * self._values))

    def mixed(self, sources: Positions, rng: np.random.Generator) -> Drawn:
        """Samples in which some columns have the numbers of one training example each."""
        assert self._train is not None
        shown = shown_parts(len(sources), len(self.names), rng)
        others = np.asarray(self._train[sources][:, self._columns].toarray())
        values = np.where(shown, self._values, others)
        return Drawn((values == self._values).astype(np.float64), lambda part: self._rows(values[part]))

    def _rows(self, values: Array) -> Any:
        """Sparse rows with these numbers in the columns of the query, and 0 elsewhere."""
        from scipy.sparse import csr_matrix

        m, k = values.shape
        indices = np.tile(self._columns, m)
        matrix = csr_matrix((values.ravel(), indices, np.arange(0, m * k + 1, k)), shape=(m, self._row.shape[1]))
        matrix.eliminate_zeros()
        return type(self._row)(matrix)

    def of_training(self, positions: Positions) -> Drawn:
        """Which of the columns have the query's numbers in the training examples."""
        assert self._train is not None
        matrix = self._train[positions]
        same = np.asarray(matrix[:, self._columns].toarray()) == self._values
        return Drawn(same.astype(np.float64), lambda part: matrix[part])

    def distances(self, rows: Array) -> Array:
        """Cosine, in percent."""
        return PERCENT * cosine_distances(rows)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a text, got {type(value).__name__}; pass texts as they went into fit()")
    return value


def _words(text: str) -> list[str]:
    return [word for word in dict.fromkeys(BETWEEN_WORDS.split(text)[::2]) if word]
