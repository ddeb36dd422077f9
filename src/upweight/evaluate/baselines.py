"""Cheap baselines that a method should beat to be worth its cost.

`similar` and `bm25` give a score for every query and training example. RANK: examples with the query's label help,
others harm. `plain_loss`, `held_out_loss` and `unlike_neighbours` give a suspicion, one number per training example,
for `detection_rates`. Random scores and random suspicions come from the method `Chance`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import require_count
from upweight.core.capability_checks import require
from upweight.core.deprecation import accept_old_keywords
from upweight.core.examples import Examples
from upweight.core.input_kinds import as_array, is_sparse
from upweight.core.model import Measurable, Retrainable
from upweight.core.scores import Scores, Unit
from upweight.core.weights import weighted_positions
from upweight.retraining import deprecated_keywords
from upweight.retraining.engine import run_tasks
from upweight.retraining.retraining import ONE_BY_ONE, Retraining
from upweight.retraining.task import Task

Array = NDArray[np.float64]
K1, B = 1.2, 0.75  # the usual parameters of Okapi BM25 (Robertson & Zaragoza 2009)
FOLDS = 5
NEIGHBOURS = 10


def similar(train: Examples, queries: Examples) -> Scores:
    """Cosine similarity of standardised features (of TF-IDF features for texts), with the sign of label agreement."""
    x, q = (_normalised(matrix) for matrix in _features(train, queries))
    similarity = q @ x.T
    return _scores("similar", similarity.toarray() if is_sparse(similarity) else similarity, train, queries)


def bm25(train: Examples, queries: Examples) -> Scores:
    """Okapi BM25 of each query's words in each training text, with the sign of label agreement.

    Raises:
        TypeError: examples that are not texts.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer()
    documents = counter.fit_transform(_texts(train)).astype(np.float64)
    query_words = counter.transform(_texts(queries)).astype(np.float64)
    n = documents.shape[0]
    document_frequency = np.asarray((documents > 0).sum(axis=0)).ravel()
    idf = np.log1p((n - document_frequency + 0.5) / (document_frequency + 0.5))
    lengths = np.asarray(documents.sum(axis=1)).ravel()
    coo = documents.tocoo()
    length_norm = K1 * (1 - B + B * lengths / max(lengths.mean(), 1e-300))
    coo.data = idf[coo.col] * coo.data * (K1 + 1) / (coo.data + length_norm[coo.row])
    return _scores("bm25", (query_words @ coo.tocsr().T).toarray(), train, queries)


def plain_loss(model: Measurable, train: Examples) -> Array:
    """Minus the measurement of every training example by the model that was trained on it, (n,)."""
    require(model, [Measurable], "plain_loss")
    return -np.asarray(model.measure(train))


@accept_old_keywords(
    deprecated_keywords.one_seed(), deprecated_keywords.retraining_builder(ONE_BY_ONE), positional=("seed",)
)
def held_out_loss(
    model: Retrainable, train: Examples, folds: int = FOLDS, *, retraining: Retraining | None = None
) -> Array:
    """Minus the measurement of every training example by a model trained without its fold, (n,).

    If −loss is measured, the order is that of cross-validated confidence, on which confident learning is built
    (Northcutt et al. 2021). It costs one training per fold. They run one by one in this process unless `retraining`
    says otherwise; its seed also draws the folds.
    """
    require(model, [Retrainable], "held_out_loss")
    counted = weighted_positions(train)
    if not 2 <= folds <= len(counted):
        raise ValueError(f"expected between 2 and {len(counted)} folds, got {folds}")
    retraining = ONE_BY_ONE if retraining is None else retraining
    seed = retraining.only_seed("held_out_loss")
    order = counted[np.random.default_rng(seed).permutation(len(counted))]
    suspicion = plain_loss(model, train)  # stays for examples of weight 0, which had no part in the training
    tasks = [Task(removed=order[fold::folds], queries=order[fold::folds], seed=seed) for fold in range(folds)]
    for task, measurements in zip(tasks, run_tasks(retraining, model, train, tasks, train), strict=True):
        suspicion[task.queries] = -measurements
    return suspicion


def unlike_neighbours(train: Examples, k: int = NEIGHBOURS) -> Array:
    """Share of the k nearest other examples that have another label, (n,); for regression, distance to their mean."""
    require_count("k", k)
    if train.y is None or train.y.ndim != 1:
        raise ValueError("expected one label per training example, which is compared with those of its neighbours")
    from sklearn.neighbors import NearestNeighbors

    x, _ = _features(train, train)
    k = min(k, len(train) - 1)
    neighbours = NearestNeighbors(n_neighbors=k).fit(x).kneighbors(return_distance=False)
    if train.y.dtype.kind == "f":
        return np.asarray(np.abs(train.y - train.y[neighbours].mean(axis=1)))
    return np.asarray((train.y[neighbours] != train.y[:, None]).mean(axis=1))


def _scores(name: str, similarity: Array, train: Examples, queries: Examples) -> Scores:
    values = similarity * _label_agreement(train, queries)
    return Scores(values, queries.ids, train.ids, Unit.RANK, recipe={"method": name})


def _label_agreement(train: Examples, queries: Examples) -> Array | float:
    """+1 for equal labels, −1 for others; for regression the product of standardised targets; 1 without labels."""
    if train.y is None or queries.y is None or train.y.ndim != 1:
        return 1.0
    if train.y.dtype.kind == "f":
        middle, spread = train.y.mean(), max(float(train.y.std()), 1e-300)
        return np.outer((queries.y - middle) / spread, (train.y - middle) / spread)
    return np.where(queries.y[:, None] == train.y[None, :], 1.0, -1.0)


def _features(train: Examples, queries: Examples) -> tuple[Any, Any]:
    """Feature matrices of training set and queries on the same scale, dense or sparse."""
    if is_text(train):
        from sklearn.feature_extraction.text import TfidfVectorizer

        words = TfidfVectorizer().fit(_texts(train))
        return words.transform(_texts(train)), words.transform(_texts(queries))
    if is_sparse(train.x):
        return train.x.tocsr(), queries.x.tocsr()
    x, q = (_numbers(examples.x) for examples in (train, queries))
    middle, spread = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
    spread[~(spread > 0)] = 1.0
    return tuple(np.nan_to_num((matrix - middle) / spread) for matrix in (x, q))


def _numbers(x: Any) -> Array:
    """Inputs as a matrix (n, features); of a data frame the numeric columns."""
    if hasattr(x, "select_dtypes"):
        x = x.select_dtypes("number")
    array = as_array(x)
    if array.dtype.kind not in "iufb" or array.size == 0:
        raise TypeError("expected inputs that are numbers or texts; these have no features to compare")
    return array.reshape(len(array), -1).astype(np.float64)


def _normalised(matrix: Any) -> Any:
    """The rows divided by their lengths."""
    from sklearn.preprocessing import normalize

    return normalize(matrix)


def is_text(examples: Examples) -> bool:
    """Whether the examples are shown as texts."""
    return isinstance(examples.preview(examples.ids[0].item()).value, str)


def _texts(examples: Examples) -> list[str]:
    if not is_text(examples):
        raise TypeError("expected examples that are texts; pass them as x, or as shown= if x is computed from them")
    return [str(examples.preview(i).value) for i in examples.ids.tolist()]


@dataclass(frozen=True)
class Baseline:
    """A baseline in a comparison of methods.

    Attributes:
        pairs: (train, queries) → scores; None if it has none.
        suspicion: (model, train, retraining) → one number per training example; None if it has none.
        of_texts: whether it works on texts alone.
    """

    name: str
    pairs: Callable[[Examples, Examples], Scores] | None = None
    suspicion: Callable[[Any, Examples, Retraining | None], Array] | None = None
    of_texts: bool = False


BASELINES = (
    Baseline("similar", similar, lambda model, train, retraining: unlike_neighbours(train)),
    Baseline("bm25", bm25, of_texts=True),
    Baseline("loss", suspicion=lambda model, train, retraining: plain_loss(model, train)),
    Baseline(
        "held_out_loss", suspicion=lambda model, train, retraining: held_out_loss(model, train, retraining=retraining)
    ),
)
