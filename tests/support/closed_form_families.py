"""Estimators whose training has a closed form, on small data sets, for the laws."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsOneClassifier
from sklearn.multioutput import ClassifierChain, RegressorChain
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsClassifier
from sklearn.pipeline import make_pipeline

from support.linear_families import texts
from upweight import Examples
from upweight.testing import EstimatorFamily
from upweight.testing.families import TIGHT, scaled


class CopiesFamily(EstimatorFamily):
    """An estimator that takes no sample weights: it is fitted on as many copies of a row as its weight says."""

    def fitted(self, train: Examples, **settings: Any) -> Any:
        """Fit a new estimator on the copies."""
        if train.weights is None or train.y is None:
            return super().fitted(train, **settings)
        copies = np.repeat(np.arange(len(train)), train.weights.astype(int))
        return self.estimator().set_params(**settings).fit(train.x[copies], train.y[copies])


class NeighbourFamily(CopiesFamily):
    """Nearest neighbours, whose index counts its searches."""

    def belongings(self, model: Any) -> bytes:
        """The bytes of the estimator without its index."""
        estimator = self.estimator_of(model)
        return pickle.dumps({name: value for name, value in vars(estimator).items() if name != "_tree"})


class ChainFamily(CopiesFamily):
    """A chain, whose labels are rows of two targets."""

    def _other_label(self, query: Examples) -> Any:
        """Two wrong targets: the other classes, or numbers on the other side of the prediction."""
        assert query.y is not None
        if not self.is_regression:
            return 1 - query.y[0]
        return 2 * np.array(self.trained.predict(query).predicted[0]) - query.y[0]


def two_numbers() -> tuple[Any, np.ndarray]:
    """Columns, and two numbers that depend on them."""
    x, y = scaled(load_diabetes, 5, 100.0)()
    return x, np.c_[y, x[:, 0] + np.sin(y)]


def two_labels() -> tuple[Any, np.ndarray]:
    """Columns, and two labels of 0 and 1."""
    x, y = two_numbers()
    return x, (y > np.median(y, axis=0)).astype(int)


CLOSED_FORMS = [
    EstimatorFamily("gaussian naive bayes", scaled(load_breast_cancer, 6), GaussianNB, other={"priors": [0.5, 0.5]}),
    EstimatorFamily(
        "naive bayes of texts", texts, lambda: make_pipeline(CountVectorizer(), MultinomialNB()), other={"alpha": 2.0}
    ),
    CopiesFamily(
        "linear discriminant", scaled(load_breast_cancer, 4), LinearDiscriminantAnalysis, other={"priors": [0.5, 0.5]}
    ),
    CopiesFamily(
        "quadratic discriminant", scaled(load_iris, 4), QuadraticDiscriminantAnalysis, other={"reg_param": 0.1}
    ),
    NeighbourFamily(
        "nearest neighbours",
        scaled(load_wine, 6),
        lambda: KNeighborsClassifier(3, weights="distance"),
        other={"p": 1},
    ),
    EstimatorFamily(
        "votes",
        scaled(load_wine, 6),
        lambda: VotingClassifier([("linear", LogisticRegression(**TIGHT)), ("bayes", GaussianNB())], voting="soft"),
        other={"weights": [1, 2]},
    ),
    CopiesFamily(
        "one against one",
        scaled(load_iris, 4),
        lambda: OneVsOneClassifier(LogisticRegression(C=0.1, **TIGHT)),
        other={"estimator": LogisticRegression(C=0.2, **TIGHT)},
    ),
    NeighbourFamily(
        "radius neighbours",
        scaled(load_iris, 4),
        lambda: RadiusNeighborsClassifier(1.5, outlier_label=0),
        other={"radius": 2.0},
    ),
    ChainFamily(
        "chain of numbers",
        two_numbers,
        lambda: RegressorChain(Ridge(alpha=3.0)),
        is_regression=True,
        train_size=40,
        query_size=6,
        other={"order": [1, 0]},
    ),
    ChainFamily(
        "chain of labels",
        two_labels,
        lambda: ClassifierChain(LogisticRegression(**TIGHT)),
        train_size=40,
        query_size=6,
        other={"order": [1, 0]},
    ),
]
