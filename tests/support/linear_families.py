"""Linear models of every kind on small data sets, for the laws."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import (
    ARDRegression,
    Lasso,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    QuantileRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
)
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC, NuSVC, NuSVR

from upweight.testing import EstimatorFamily
from upweight.testing.copies import WeightedExamples, WeightedModels
from upweight.testing.families import TIGHT, scaled

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


def texts() -> tuple[list[str], np.ndarray]:
    """Short reviews whose words lean towards praise or blame, and their labels."""
    rng = np.random.default_rng(3)
    lean = np.linspace(-1, 1, len(WORDS))
    y = np.arange(120) % 2
    reviews = []
    for label in y:
        p = np.exp((2 * label - 1) * lean)
        reviews.append(" ".join(rng.choice(WORDS, size=9, p=p / p.sum())))
    return reviews, np.where(y == 1, "praise", "blame")


class MachineFamily(EstimatorFamily):
    """A kernel machine. It keeps its training inputs, so each training set needs a model of its own."""

    def weighted_models(self, both: WeightedExamples) -> WeightedModels:
        """Both models with one kernel width: `gamma="scale"` uses the variance over all rows, whatever they weigh."""
        training_sets = both.weighted, both.expanded
        return WeightedModels(*(self.explained(self.fitted(train, gamma=0.1), train) for train in training_sets))


PROBLEMS = [
    EstimatorFamily("logistic", scaled(load_breast_cancer, 6), lambda: LogisticRegression(**TIGHT), other={"C": 2.0}),
    EstimatorFamily("softmax", scaled(load_wine, 6), lambda: LogisticRegression(**TIGHT), other={"C": 2.0}),
    EstimatorFamily(
        "softmax without intercept",
        scaled(load_iris, 4),
        lambda: LogisticRegression(fit_intercept=False, **TIGHT),
        other={"fit_intercept": True},
    ),
    EstimatorFamily(
        "least squares",
        scaled(load_diabetes, 5, 100.0),
        LinearRegression,
        is_regression=True,
        other={"fit_intercept": False},
    ),
    EstimatorFamily(
        "ridge", scaled(load_diabetes, 8, 100.0), lambda: Ridge(alpha=3.0), is_regression=True, other={"alpha": 2.0}
    ),
    EstimatorFamily("ridge classifier", scaled(load_wine, 6), lambda: RidgeClassifier(alpha=1.0), other={"alpha": 2.0}),
    EstimatorFamily(
        "poisson",
        scaled(load_diabetes, 5, 100.0),
        lambda: PoissonRegressor(alpha=0.1, **TIGHT),
        is_regression=True,
        other={"alpha": 0.2},
    ),
    EstimatorFamily(
        "lasso",
        scaled(load_diabetes, 8, 100.0),
        lambda: Lasso(alpha=0.05, **TIGHT),
        is_regression=True,
        other={"alpha": 0.02},
    ),
    EstimatorFamily(
        "relevance determination",
        scaled(load_diabetes, 8, 100.0),
        lambda: ARDRegression(tol=1e-12, max_iter=5000),
        is_regression=True,
        not_weighted="it takes no sample weights, and finds other precisions on copies",
        other={"threshold_lambda": 50.0},
    ),
    EstimatorFamily("squared hinge", scaled(load_breast_cancer, 6), lambda: LinearSVC(**TIGHT), other={"C": 2.0}),
    MachineFamily(
        "rbf machine",
        scaled(load_breast_cancer, 6),
        lambda: SVC(tol=1e-9),
        permuted=1e-3,  # a kernel machine's training depends on the order, to its tolerance
        weighted=1e-3,
        other={"C": 2.0},
    ),
    MachineFamily(
        "machine of nu",
        scaled(load_breast_cancer, 6),
        lambda: NuSVC(nu=0.3, tol=1e-9),
        permuted=1e-3,
        weighted=1e-3,
        other={"nu": 0.4},
    ),
    EstimatorFamily(
        "sgd",
        scaled(load_wine, 6),
        lambda: SGDClassifier(loss="log_loss", alpha=0.05, random_state=0),
        permuted=0.3,  # its training depends on the order, and so does every retraining that starts at its parameters
        not_weighted="SGD decays by its l2 with every row, whatever the row weighs",
        other={"alpha": 0.1},
    ),
    EstimatorFamily(
        "text pipeline",
        texts,
        lambda: make_pipeline(TfidfVectorizer(), LogisticRegression(C=5.0, **TIGHT)),
        other={"C": 2.0},
    ),
]

# Their optima jump from vertex to vertex, so that first-order scores say little about single removals.
QUANTILES = EstimatorFamily(
    "quantiles",
    scaled(load_diabetes, 8, 100.0),
    lambda: QuantileRegressor(quantile=0.5, alpha=0.02),
    is_regression=True,
    other={"alpha": 0.03},
)
TUBE = MachineFamily(
    "tube of nu",
    scaled(load_diabetes, 5, 100.0),
    lambda: NuSVR(nu=0.4, tol=1e-9),
    is_regression=True,
    permuted=1e-3,
    weighted=1e-3,
    other={"nu": 0.3},
)
JUMPING = [QUANTILES, TUBE]
