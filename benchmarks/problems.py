"""The problems that are measured: a fitted model, its training set and its queries, the same in every benchmark."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn import datasets
from sklearn.feature_extraction.text import TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler, normalize

import upweight as uw

CACHE = Path(tempfile.gettempdir()) / "upweight-benchmarks"


@dataclass(frozen=True)
class Problem:
    """A fitted linear model, what it was fitted on, and what is asked."""

    name: str
    estimator: LogisticRegression
    x: Any
    y: NDArray[Any]
    x_queries: Any
    y_queries: NDArray[Any]

    @property
    def train(self) -> uw.Examples:
        return uw.Examples(self.x, self.y)

    @property
    def queries(self) -> uw.Examples:
        return uw.Examples(self.x_queries, self.y_queries)

    @property
    def feature_bytes(self) -> int:
        """What the features take as they were handed in."""
        if sparse.issparse(self.x):
            return self.x.data.nbytes + self.x.indices.nbytes + self.x.indptr.nbytes
        return self.x.nbytes


def mnist(data: Path, queries: int = 500, dtype: str = "float64") -> Problem:
    """Softmax regression on all of MNIST: 60,000 × 784, ten classes; pixels in [0, 1]."""
    x, y = _mnist_arrays(data, "tr", dtype)
    estimator = LogisticRegression(C=0.1, tol=1e-6, max_iter=1000)
    _save_problem("mnist", estimator, lambda: _mnist_arrays(data, "tr", "float64"), x.shape[1])
    x_queries, y_queries = _mnist_arrays(data, "te", dtype)
    return Problem(f"MNIST, {dtype}", estimator, x, y, x_queries[:queries].copy(), y_queries[:queries])


def sst2(data: Path, rows: int = 20_000, queries: int = 500) -> Problem:
    """Sentiment of film reviews: 20,000 sentences as TF-IDF of 7,000 words and pairs of words, sparse; two classes."""
    texts, labels = _sst2_texts(data)
    vectorizer = TfidfVectorizer(max_features=7000, token_pattern=r"(?u)\b\w+\b", ngram_range=(1, 2))
    x = vectorizer.fit_transform(texts[:rows])
    more = slice(rows, rows + queries)
    estimator = LogisticRegression(tol=1e-8, max_iter=1000)
    _save_problem(f"sst2-{rows}", estimator, lambda: (x, labels[:rows]), x.shape[1])
    return Problem("SST-2", estimator, x, labels[:rows], vectorizer.transform(texts[more]), labels[more])


def zipf(rows: int = 20_000, columns: int = 7000, words: int = 90, queries: int = 500) -> Problem:
    """Longer texts than SST-2's: random bags of words drawn by Zipf's law as TF-IDF, sparse; two classes."""
    rng = np.random.default_rng(0)
    count = rows + 2000  # the same draw however many of them are queries
    likely = 1.0 / np.arange(5, columns + 5)
    drawn = rng.choice(columns, count * words, p=likely / likely.sum())
    bags = sparse.csr_matrix((np.ones(len(drawn)), drawn, np.arange(0, len(drawn) + 1, words)), (count, columns))
    bags.sum_duplicates()
    x = normalize(TfidfTransformer().fit_transform(bags)).tocsr()
    y = (x @ rng.normal(size=columns) * 8 + rng.logistic(size=count) > 0).astype(int)
    estimator = LogisticRegression(tol=1e-8, max_iter=1000)
    _save_problem(f"zipf-{rows}-{words}", estimator, lambda: (x[:rows], y[:rows]), columns)
    more = slice(rows, rows + queries)
    return Problem("random texts", estimator, x[:rows], y[:rows], x[more], y[more])


def digits(l2: float = 1e-2) -> Problem:
    """Softmax regression on scikit-learn's digits: 1,400 × 65 (a column of ones is the bias), l2 on the mean loss."""
    x, y = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = np.hstack([x[order] / 16.0, np.ones((len(x), 1))]), y[order]
    train, rest = slice(0, 1400), slice(1400, None)
    estimator = LogisticRegression(C=1 / (1400 * l2), fit_intercept=False, tol=1e-12, max_iter=10_000)
    return Problem("digits", estimator.fit(x[train], y[train]), x[train], y[train], x[rest], y[rest])


SETS = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
}


def small(name: str, scaled: bool, C: float = 1.0) -> Problem:
    """One of scikit-learn's own classification sets, a third of it (at most 100 examples) held out as queries."""
    x, y = SETS[name](return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y, query_count = x[order], y[order], min(100, len(x) // 3)
    if scaled:
        x = StandardScaler().fit(x[query_count:]).transform(x)
    solver = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    return Problem(
        name,
        solver.fit(x[query_count:], y[query_count:]),
        x[query_count:],
        y[query_count:],
        x[:query_count],
        y[:query_count],
    )


def _mnist_arrays(data: Path, part: str, dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Kept as plain arrays too, which load without a second copy in memory."""
    cache_file = CACHE / f"mnist-{part}-{dtype}.npy"
    labels = CACHE / f"mnist-{part}-labels.npy"
    if not cache_file.exists() or not labels.exists():
        CACHE.mkdir(exist_ok=True)
        with np.load(data / "mnist.npz") as archive:
            pixels = archive[f"x{part}"]
            np.save(cache_file, (pixels.reshape(len(pixels), -1) / 255.0).astype(dtype))
            np.save(labels, archive[f"y{part}"].astype(np.int64))
    return np.load(cache_file), np.load(labels)


def _sst2_texts(data: Path) -> tuple[list[str], NDArray[Any]]:
    with zipfile.ZipFile(data / "sst2.zip") as archive, archive.open("sst2_train.tsv") as file:
        lines = io.TextIOWrapper(file, encoding="utf-8").read().splitlines()[1:]
    pairs = [line.rsplit("\t", 1) for line in lines]
    order = np.random.default_rng(0).permutation(len(pairs))
    return [pairs[i][0] for i in order], np.array([int(pairs[i][1]) for i in order])


def _save_problem(name: str, estimator: LogisticRegression, read: Callable[[], tuple[Any, Any]], columns: int) -> None:
    """Fit it; the coefficients stay in a temporary folder, so that only the first run trains."""
    settings = "-".join(f"{k}{getattr(estimator, k)}" for k in ("C", "tol", "max_iter"))
    path = CACHE / f"{name}-{settings}.npz"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        estimator.fit(*read())
        np.savez(path, coef=estimator.coef_, intercept=estimator.intercept_, classes=estimator.classes_)
    with np.load(path) as fitted:
        estimator.coef_, estimator.intercept_ = fitted["coef"], fitted["intercept"]
        estimator.classes_, estimator.n_features_in_ = fitted["classes"], columns
