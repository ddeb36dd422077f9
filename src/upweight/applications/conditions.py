"""Conditions on training examples in words: values of columns, labels, words, pixels, and clusters by scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.groups import column_of
from upweight.core.capability_checks import can
from upweight.core.erasing import has_texts, index_name
from upweight.core.example_columns import is_missing
from upweight.core.examples import Examples
from upweight.core.input_kinds import columns_of, is_sparse
from upweight.core.model import Embeddable, Measurable

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
EDGES = (0.01, 0.02, 0.03, 0.04, *(k / 20 for k in range(1, 20)), 0.96, 0.97, 0.98, 0.99)  # quantiles of a column
FINE_EDGES = tuple(k / 100 for k in range(1, 100))  # the same, between which the best threshold is looked for
PIXEL_EDGES = (0.5,)  # the same of one number of a picture
FREQUENT = (0.01, 0.15)  # shares of the examples: a number this frequent is a condition of its own
FEW_VALUES = 12  # distinct numbers: each of so few is a condition
LABEL = "the label"  # as what conditions are about; a column may be named "label" too
MAX_WORDS = 2000  # words and pairs of words of texts
MOST_TEXTS = 0.3  # share of the texts from which a word is too frequent
MAX_NUMBERS = 1024  # numbers of a picture that are looked at one by one
CLUSTERS = (8, 24)  # numbers of clusters by features
COMPONENTS = 10  # of the features that are clustered


@dataclass(frozen=True, eq=False)
class Conditions:
    """Conditions that describe training examples, one per row.

    Attributes:
        names: in words, e.g. "age > 40".
        columns: which column each condition is about; conditions of one group are about different sides of columns.
        fulfilled: (conditions, n) which examples fulfil it.
        fine: (conditions,) whether it is a threshold between those that are searched, for the best one in the end.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    fulfilled: Mask
    fine: Mask

    def take(self, positions: NDArray[np.intp]) -> Conditions:
        """The conditions on these examples alone."""
        return Conditions(self.names, self.columns, self.fulfilled[:, positions], self.fine)


def conditions_of(
    model: Measurable, train: Examples, columns: Mapping[str, Any], seed: int, *, fine: bool = False
) -> Conditions:
    """All conditions on the training examples.

    Args:
        model: its features are clustered if the inputs have neither words nor named columns.
        train: the training set.
        columns: name → values (n,) that the model need not see, such as the source of an example.
        seed: of the clusters.
        fine: with fine thresholds too.

    Raises ValueError for a column of another length, TypeError for columns without names.
    """
    if not isinstance(columns, Mapping):
        raise TypeError(f"expected columns as {{name: values}}, got {type(columns).__name__}")
    rows = list(_of_columns(train, columns, EDGES))
    rows += _of_inputs(train, EDGES)
    if train.y is not None and train.y.ndim == 1:
        rows += [(name, LABEL, members) for name, _, members in _of_column("label", _labels(train), EDGES)]
    if not (has_texts(train) or train.names is not None) and isinstance(model, Embeddable) and can(model, Embeddable):
        rows += _of_clusters(model.embed(train), seed)
    if not rows:
        raise ValueError("expected labels, columns, texts or features to describe training examples by; pass columns=")
    searched = len(rows)
    if fine:
        known = {name for name, _, _ in rows}
        between = [
            *_of_columns(train, columns, FINE_EDGES),
            *([] if has_texts(train) else _of_inputs(train, FINE_EDGES)),
        ]
        rows += [row for row in between if row[0] not in known]
    names, about, members = zip(*rows, strict=True)
    return Conditions(names, about, np.stack(members), np.arange(len(rows)) >= searched)


def _of_columns(
    train: Examples, columns: Mapping[str, Any], edges: tuple[float, ...]
) -> Iterator[tuple[str, str, Mask]]:
    """Conditions on the columns that the model need not see."""
    for name, values in columns.items():
        array = np.asarray(values)
        if array.shape != (len(train),):
            raise ValueError(
                f"expected one value of {name!r} per training example ({len(train)}), got shape {array.shape}"
            )
        yield from _of_column(name, array, edges)


def _labels(train: Examples) -> NDArray[Any]:
    assert train.y is not None
    is_number, is_column = train.y.dtype.kind == "f", "label" in (train.names or [])
    return train.y if is_number or is_column else column_of(train, "label")


def _of_inputs(train: Examples, edges: tuple[float, ...]) -> Iterator[tuple[str, str, Mask]]:
    """Conditions on the inputs, and on what is shown of them."""
    if has_texts(train):
        yield from _of_texts(list(train.x))
        return
    for source in (train.x, train.shown):
        for name in columns_of(source) or ():
            yield from _of_column(name, np.asarray(source[name]), edges)
    if columns_of(train.x) is not None:
        return
    x = train.x
    if is_sparse(x):
        yield from _of_sparse(x.tocsc(), train.names)
        return
    numbers = np.asarray(x).reshape(len(x), -1)
    if numbers.dtype.kind not in "iufb" or numbers.shape[1] > MAX_NUMBERS:
        return
    shape = np.shape(x)[1:] if train.shown is None or np.ndim(train.shown) < 3 else np.shape(train.shown)[1:]
    is_picture = train.names is None and (len(shape) > 1 or numbers.shape[1] > 30)
    names = train.names or [index_name(index) for index in np.ndindex(*shape)][: numbers.shape[1]]
    for name, column in zip(names, numbers.T, strict=False):
        yield from _of_column(name, column, PIXEL_EDGES if is_picture else edges)


def _of_column(name: str, values: NDArray[Any], edges: tuple[float, ...]) -> Iterator[tuple[str, str, Mask]]:
    """Each value of a column, and thresholds of numbers."""
    listed = values.tolist()
    missing = np.array([is_missing(value) for value in listed])
    if missing.any():
        yield f"{name} is missing", name, missing
    present = np.asarray([value for value, is_gone in zip(listed, missing, strict=True) if not is_gone])
    if present.dtype.kind not in "iufb" or len(np.unique(present)) <= FEW_VALUES:
        for value in dict.fromkeys(v for v, is_gone in zip(listed, missing, strict=True) if not is_gone):
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            yield f"{name} = {text}", name, np.array([v == value for v in listed])
        return
    numbers = np.full(len(listed), np.nan)
    numbers[~missing] = present.astype(np.float64)
    repeated, counts = np.unique(numbers[~missing], return_counts=True)
    low, high = (share * len(numbers) for share in FREQUENT)
    for value in repeated[(counts >= low) & (counts <= high)].tolist():
        yield f"{name} = {value:.4g}", name, numbers == value
    for edge in np.unique(np.quantile(numbers[~missing], edges)).tolist():
        for sign, inside in (("≤", numbers <= edge), (">", numbers > edge)):
            if inside.any():
                yield f"{name} {sign} {edge:.4g}", f"{name} {sign}", inside


def _of_texts(texts: list[str]) -> Iterator[tuple[str, str, Mask]]:
    """The presence of frequent words and pairs of words."""
    from sklearn.feature_extraction.text import CountVectorizer

    vectoriser = CountVectorizer(binary=True, ngram_range=(1, 2), max_features=MAX_WORDS, min_df=5, max_df=MOST_TEXTS)
    try:
        counts = vectoriser.fit_transform(texts).tocsc()
    except ValueError:  # no word is in enough texts
        return
    for j, word in enumerate(vectoriser.get_feature_names_out().tolist()):
        present = np.zeros(len(texts), dtype=bool)
        present[counts.indices[counts.indptr[j] : counts.indptr[j + 1]]] = True
        yield f"“{word}” occurs", f"“{word}”", present


def _of_sparse(x: Any, names: list[str] | None) -> Iterator[tuple[str, str, Mask]]:
    """Which of the most frequent columns of a sparse matrix are not 0."""
    frequent = np.argsort(-np.diff(x.indptr), kind="stable")[:MAX_WORDS]
    for j in frequent.tolist():
        present = np.zeros(x.shape[0], dtype=bool)
        present[x.indices[x.indptr[j] : x.indptr[j + 1]]] = True
        name = f"x{j}" if names is None else names[j]
        yield f"{name} is not 0", name, present


def _of_clusters(features: Any, seed: int) -> Iterator[tuple[str, str, Mask]]:
    """Clusters of the features, by k-means on their leading components."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD

    size = min(COMPONENTS, features.shape[1] - 1, features.shape[0] - 1)
    if size < 2:
        return
    components = TruncatedSVD(size, random_state=seed).fit_transform(features)
    components = components / np.maximum(components.std(axis=0), 1e-300)
    for count in CLUSTERS:
        if count * 10 > len(components):
            return
        labels = KMeans(count, n_init=2, random_state=seed).fit(components).labels_
        for cluster in range(count):
            name = f"one of {count} clusters of features"
            yield f"cluster {cluster + 1} of {count} by features", name, labels == cluster
