"""Breast cancer data with some training labels flipped, and a model trained on them."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import upweight as uw

Labels = NDArray[np.int64]
CancerData = tuple[uw.Examples, uw.Examples, Labels, Labels]
NAMES = {0: "malignant", 1: "benign"}


@cache
def cancer_data(flips: float = 0.1, seed: int = 0) -> CancerData:
    """(train, held out, true training labels, positions of the flipped ones)."""
    x, y = load_breast_cancer(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    x, y = x[order], y[order]
    wrong = rng.choice(400, round(400 * flips), replace=False)
    noisy = y.copy()
    noisy[wrong] = 1 - noisy[wrong]
    ids = np.array([f"p{i}" for i in range(len(y))])
    train = uw.Examples(x[:400], noisy[:400], ids=ids[:400], labels=NAMES)
    return train, uw.Examples(x[400:], y[400:], ids=ids[400:], labels=NAMES), y[:400], wrong


@cache
def cancer(flips: float = 0.1, seed: int = 0) -> tuple[Any, uw.Examples, uw.Examples, Labels, Labels]:
    """A logistic regression on `cancer_data`, followed by those."""
    train, held_out, truth, wrong = cancer_data(flips, seed)
    model = uw.explainable(make_pipeline(StandardScaler(), LogisticRegression()).fit(train.x, train.y), train)
    return model, train, held_out, truth, wrong
