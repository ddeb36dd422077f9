"""A minimal model family of another package: its model exposes no estimator and has one measurement."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.naive_bayes import GaussianNB

import upweight as uw


class Bayes(GaussianNB):  # type: ignore[misc]
    """An estimator that only the plugin reads."""


class NaiveBayes(uw.Retrainable, uw.Embeddable):
    """A fitted Bayes, measured by −loss; its features are the log-likelihoods of the classes."""

    measurement = "−loss (nats)"

    def __init__(self, fitted: Bayes) -> None:
        self.inner = fitted

    def measure(self, queries: Any) -> Any:
        places = np.searchsorted(self.inner.classes_, queries.y)
        return self.inner.predict_log_proba(queries.x)[np.arange(len(queries)), places]

    def predict(self, examples: Any) -> uw.Predictions:
        probabilities = self.inner.predict_proba(examples.x)
        return uw.Predictions(tuple(self.inner.predict(examples.x)), tuple(self.inner.classes_), probabilities)

    def embed(self, examples: Any) -> Any:
        return self.inner.predict_joint_log_proba(examples.x)

    def retrain(self, train: Any, weights: Any, seed: int = 0) -> NaiveBayes:
        total = weights if train.weights is None else weights * train.weights
        present = np.flatnonzero(total)  # variance smoothing uses all rows, even those of weight 0
        return type(self)(clone(self.inner).fit(train.x[present], train.y[present], sample_weight=total[present]))


def reads(estimator: Any) -> bool:
    return isinstance(estimator, Bayes)


def read(estimator: Any, train: Any, measure: Any) -> NaiveBayes:
    if not isinstance(measure, uw.Loss):
        raise TypeError(f"naive Bayes is measured by upweight.Loss() only, got {measure!r}")
    return NaiveBayes(estimator)


READER = SimpleNamespace(reads=reads, read=read)
