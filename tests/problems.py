"""Small problems, one per model family: data, a recipe for the estimator, and how well it is determined."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

import upweight as uw

TIGHT = {"tol": 1e-10, "max_iter": 20_000}
WORDS = [
    "film",
    "was",
    "triumph",
    "wit",
    "heart",
    "but",
    "plot",
    "dull",
    "cold",
    "long",
    "bad",
    "great",
    "good",
    "fine",
]


@dataclass(frozen=True)
class Problem:
    """A data set (x, y), an unfitted estimator, and the sizes of the two sides."""

    name: str
    data: Callable[[], tuple[Any, np.ndarray]]
    estimator: Callable[[], Any]
    regression: bool = False
    train_size: int = 60
    query_size: int = 12

    def examples(self) -> tuple[uw.Examples, uw.Examples]:
        """Training set and queries, ids that are no positions."""
        x, y = self.data()
        order = np.random.default_rng(7).permutation(len(y))
        n, m = self.train_size, self.query_size
        ids = np.array([f"e{i}" for i in range(len(y))])
        whole = uw.Examples(x, y, ids=ids)
        return whole.take(order[:n]), whole.take(order[n : n + m])

    def model(self, train: uw.Examples) -> Any:
        """The estimator fitted on these, ready to be explained."""
        return uw.explainable(self.estimator().fit(train.x, train.y), train)

    def belongings(self, model: Any) -> bytes:
        """Everything of the user's that a model holds."""
        return pickle.dumps(model.predictor)

    def outputs(self, model: Any, x: Any) -> np.ndarray:
        """Decision values, (n, classes) or (n,)."""
        return np.asarray(model.predictor.decision_function(x))


def scaled(load: Callable[..., Any], columns: int, scale_target: float = 1.0) -> Callable[[], tuple[Any, np.ndarray]]:
    def data() -> tuple[Any, np.ndarray]:
        x, y = load(return_X_y=True)
        return StandardScaler().fit_transform(x)[:, :columns], y / scale_target if scale_target != 1.0 else y

    return data


def texts() -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng(3)
    lean = np.linspace(-1, 1, len(WORDS))
    y = np.arange(120) % 2
    rows = []
    for label in y:
        p = np.exp((2 * label - 1) * lean)
        rows.append(" ".join(rng.choice(WORDS, size=9, p=p / p.sum())))
    return rows, np.where(y == 1, "praise", "blame")


PROBLEMS = [
    Problem("logistic", scaled(load_breast_cancer, 6), lambda: LogisticRegression(**TIGHT)),
    Problem("softmax", scaled(load_wine, 6), lambda: LogisticRegression(**TIGHT)),
    Problem(
        "softmax without intercept", scaled(load_iris, 4), lambda: LogisticRegression(fit_intercept=False, **TIGHT)
    ),
    Problem("least squares", scaled(load_diabetes, 5, 100.0), LinearRegression, regression=True),
    Problem("ridge", scaled(load_diabetes, 8, 100.0), lambda: Ridge(alpha=3.0), regression=True),
    Problem("ridge classifier", scaled(load_wine, 6), lambda: RidgeClassifier(alpha=1.0)),
    Problem("poisson", scaled(load_diabetes, 5, 100.0), lambda: PoissonRegressor(alpha=0.1, **TIGHT), regression=True),
    Problem("squared hinge", scaled(load_breast_cancer, 6), lambda: LinearSVC(**TIGHT)),
    Problem("rbf machine", scaled(load_breast_cancer, 6), lambda: SVC(tol=1e-9)),
    Problem("sgd", scaled(load_wine, 6), lambda: SGDClassifier(loss="log_loss", alpha=0.05, random_state=0)),
    Problem("text pipeline", texts, lambda: make_pipeline(TfidfVectorizer(), LogisticRegression(C=5.0, **TIGHT))),
]
