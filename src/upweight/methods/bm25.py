"""BM25: how many rare words a training text has in common with the query."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.blocks import blocks
from upweight.core.dataset_rows import is_dataset
from upweight.core.examples import Examples
from upweight.core.laws import Law
from upweight.core.model import Measurable
from upweight.core.scores import Unit
from upweight.core.weights import example_counts, sample_weights

Array = NDArray[np.float64]
TRAIN_BLOCK = 4096  # training examples whose scores are held in memory at once
WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class BM25(Attributor):
    """Okapi BM25 (Robertson et al. 1994) of the query's words in every training text. RANK, never below zero.

    Σ_w ln(1 + (N − df_w + ½)/(df_w + ½)) · f_w (k₁ + 1)/(f_w + k₁(1 − b + b·length/mean length)), over the words w of
    the query. Neither the model nor the labels are used: it is the baseline of retrieval, and in language models finds
    facts that gradients miss.

    Args:
        k1: how fast further occurrences of a word stop to count.
        b: how much longer texts are discounted, from 0 to 1.

    Words are the words of texts in lower case, or the numbers of sequences of token ids; inputs of another kind have
    the words of `examples.shown` if that holds texts. A `datasets.Dataset` has the words of `examples.shown`, else its
    `input_ids`.
    """

    summary = "How many rare words a training text has in common with the query"
    paper = "Robertson et al. (1994)"
    cost = "one pass over the words, and a sparse product per query"
    needs = (Measurable,)

    k1: float = 1.2
    b: float = 0.75

    def __post_init__(self) -> None:
        if not (np.isfinite(self.k1) and self.k1 >= 0 and 0 <= self.b <= 1):
            raise ValueError(f"expected k1 ≥ 0 and 0 ≤ b ≤ 1, got {self.k1} and {self.b}")

    @property
    def promises(self) -> Promises:
        """No floor against retraining, and no sign."""
        return Promises(
            no_floor="the scores say which words two texts share, not what training does",
            waives={Law.COPY: "words have no labels, so that a copy with another label is a copy"},
        )

    def fit(self, model: Any, train: Examples) -> FittedBM25:
        """Count the words of the training texts. Raises TypeError if there are none."""
        return FittedBM25(self, model, train)


class FittedBM25(Fitted[BM25, Measurable]):
    """The weight of every word in every training text."""

    def __init__(self, recipe: BM25, model: Measurable, train: Examples) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        texts, self._copies = words_of(train), example_counts(sample_weights(train))
        self._columns = {word: column for column, word in enumerate(dict.fromkeys(w for text in texts for w in text))}
        counts, total = self._counted(texts), float(self._copies.sum())
        lengths = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
        frequency = self._copies @ (counts > 0)
        rarity = np.log1p((total - frequency + 0.5) / (frequency + 0.5))
        mean = float(self._copies @ lengths / total) or 1.0
        saturation = recipe.k1 * (1 - recipe.b + recipe.b * lengths / mean)
        rows = np.repeat(np.arange(len(texts)), np.diff(counts.indptr))
        values = rarity[counts.indices] * counts.data * (recipe.k1 + 1) / (counts.data + saturation[rows])
        self._weights = sparse.csr_array((values, counts.indices, counts.indptr), shape=counts.shape)

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """Sums over the words of the queries, for one block of training texts after another."""
        words = words_of(queries)
        known, query_word = next(iter(self._columns), None), next((word for text in words for word in text), None)
        if known is not None and query_word is not None and type(known) is not type(query_word):
            raise TypeError(
                f"expected queries whose words are as those of the training texts ({known!r}), got {query_word!r}; "
                "pass shown=texts to both or to neither"
            )
        counts = self._counted(words)
        for block in blocks(len(self.train), TRAIN_BLOCK):
            yield block, (counts @ self._weights[block].T).toarray() * self._copies[block]

    def self_values(self) -> Array:
        """The score of every training text for itself."""
        counts = self._counted(words_of(self.train))
        return np.asarray(counts.multiply(self._weights).sum(axis=1), dtype=np.float64).ravel() * self._copies

    def _counted(self, texts: Sequence[Sequence[Any]]) -> sparse.csr_array:
        """How often every known word occurs in every text, (texts, words)."""
        columns, counts, ends = list[int](), list[int](), [0]
        for text in texts:
            known = Counter(self._columns[word] for word in text if word in self._columns)
            columns += known.keys()
            counts += known.values()
            ends.append(len(columns))
        shape = (len(texts), max(1, len(self._columns)))
        return sparse.csr_array(
            (np.array(counts, dtype=np.float64), np.array(columns, dtype=np.int64), ends), shape=shape
        )


def words_of(examples: Examples) -> list[list[Any]]:
    """The words of every example. Raises TypeError if the inputs are neither texts nor token ids."""
    for values in (examples.shown, examples.x) if is_dataset(examples.x) else (examples.x, examples.shown):
        words = _words(values)
        if words is not None:
            return words
    raise TypeError(
        f"BM25 needs texts, or sequences of token ids, got {type(examples.x).__name__}; pass the texts as "
        "Examples(…, shown=texts)"
    )


def _words(values: Any) -> list[list[Any]] | None:
    if values is None or hasattr(values, "columns") or hasattr(values, "nnz"):
        return None
    kind = getattr(getattr(values, "dtype", None), "kind", None)
    if kind in ("i", "u") and getattr(values, "ndim", 0) == 2:
        return [row.tolist() for row in np.asarray(values)]
    if is_dataset(values):
        return values["input_ids"][:] if "input_ids" in values.column_names else None
    if not isinstance(values, Sequence) and kind not in ("U", "T", "O"):
        return None
    items: Iterable[Any] = values if isinstance(values, Sequence) else np.asarray(values).ravel().tolist()
    words: list[list[Any]] = []
    for item in items:
        if isinstance(item, str):
            words.append(WORD.findall(item.lower()))
        elif isinstance(item, list | tuple) and all(isinstance(token, int) for token in item):
            words.append(list(item))
        else:
            return None
    return words
