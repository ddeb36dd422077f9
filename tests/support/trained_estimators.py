"""Small trained estimators of every supported kind, with their training sets and queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    TweedieRegressor,
)
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR

import upweight as uw

TIGHT = {"tol": 1e-12, "max_iter": 100_000}
QUERIES = 25


Data = tuple[Any, Any]  # inputs and labels


def _data(load: Callable[..., Any], columns: int, n: int, target: Callable[[Any], Any] | None = None) -> Data:
    """n standardised rows of one of scikit-learn's data sets, in a random order, with its first columns."""
    x, y = load(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:n]
    x = StandardScaler().fit_transform(x)[order, :columns]
    return x, (y if target is None else target(y))[order]


TWO = _data(load_breast_cancer, 6, 145)
THREE = _data(load_wine, 5, 145)
NUMBERS = _data(load_diabetes, 6, 145, lambda y: y / 100)
TARGETS = (NUMBERS[0], np.c_[NUMBERS[1], NUMBERS[1] ** 2])
WORDS = (TWO[0], np.array(["bad", "good"])[TWO[1]])
COUNTS = (NUMBERS[0], np.floor(NUMBERS[1]))
NEGATIVE = (NUMBERS[0], NUMBERS[1] - 1.5)


@dataclass(frozen=True)
class Case:
    """An estimator that is not fitted, and what to fit it to.

    Attributes:
        weighted: whether it is fitted with sample weights.
        hinge: whether it minimises the hinge, which has no curvature.
        loose: whether its solver reaches no more than about 1e-3.
    """

    estimator: Any
    data: Data
    weighted: bool = False
    hinge: bool = False
    loose: bool = False

    @property
    def weights(self) -> Any:
        """Sample weights of the training set; None if it has none."""
        return np.random.default_rng(1).uniform(0.5, 2.0, len(self.data[0]) - QUERIES) if self.weighted else None


def logistic(**settings: Any) -> LogisticRegression:
    return LogisticRegression(**{**TIGHT, **settings})


def svc(**settings: Any) -> SVC:
    return SVC(**{"tol": 1e-9, "gamma": 0.1, "decision_function_shape": "ovo", **settings})


CASES = {
    "logistic": Case(logistic(), TWO),
    "logistic_words": Case(logistic(), WORDS),
    "logistic_no_intercept": Case(logistic(fit_intercept=False), TWO),
    "logistic_balanced": Case(logistic(class_weight="balanced"), TWO),
    "logistic_weighted": Case(logistic(class_weight={0: 1.0, 1: 3.0}), TWO, weighted=True),
    "logistic_balanced_weighted": Case(logistic(class_weight="balanced"), TWO, weighted=True),
    "logistic_unpenalised": Case(logistic(C=np.inf), (TWO[0][:, :3], TWO[1])),
    "logistic_next_to_unpenalised": Case(logistic(C=1e15), (TWO[0][:, :3], TWO[1])),
    "logistic_saga": Case(logistic(solver="saga", C=0.1, random_state=0), TWO),
    "logistic_newton": Case(logistic(solver="newton-cholesky"), THREE),
    "liblinear": Case(logistic(solver="liblinear", intercept_scaling=2.0), TWO),
    "liblinear_no_intercept": Case(logistic(solver="liblinear", fit_intercept=False), TWO),
    "softmax": Case(logistic(), THREE),
    "softmax_no_intercept": Case(logistic(fit_intercept=False, C=0.3), THREE),
    "softmax_weighted": Case(logistic(class_weight={0: 1, 1: 2, 2: 0.5}), THREE, weighted=True),
    "softmax_balanced": Case(logistic(class_weight="balanced"), THREE),
    "softmax_unpenalised": Case(logistic(C=np.inf, tol=1e-8), (THREE[0][:, 2:], np.roll(THREE[1], 40))),
    "ridge": Case(Ridge(alpha=2.0), NUMBERS, weighted=True),
    "ridge_no_intercept": Case(Ridge(alpha=2.0, fit_intercept=False), NUMBERS),
    "ridge_two_targets": Case(Ridge(alpha=2.0), TARGETS),
    "least_squares": Case(LinearRegression(), NUMBERS),
    "least_squares_weighted": Case(LinearRegression(), TARGETS, weighted=True),
    "ridge_classifier": Case(RidgeClassifier(), TWO),
    "ridge_classifier_three": Case(RidgeClassifier(class_weight="balanced"), THREE),
    "lasso": Case(Lasso(alpha=0.05, **TIGHT), NUMBERS),
    "elastic_net": Case(ElasticNet(alpha=0.05, l1_ratio=0.5, **TIGHT), NUMBERS, weighted=True),
    "logistic_l1": Case(logistic(solver="saga", l1_ratio=1.0, C=0.2, random_state=0), TWO),
    "huber": Case(HuberRegressor(alpha=0.1, tol=1e-10, max_iter=100_000), NUMBERS, weighted=True),
    "kernel_ridge": Case(KernelRidge(alpha=0.5, kernel="rbf", gamma=0.1), NUMBERS, weighted=True),
    "kernel_ridge_two_targets": Case(KernelRidge(alpha=0.5, kernel="poly", degree=2), TARGETS),
    "squared_tube": Case(LinearSVR(loss="squared_epsilon_insensitive", epsilon=0.1, dual=False, **TIGHT), NUMBERS),
    "tube": Case(SVR(gamma=0.1, tol=1e-9), NUMBERS, hinge=True),
    "tube_linear": Case(LinearSVR(epsilon=0.2, C=0.5, random_state=0, **TIGHT), NUMBERS, hinge=True),
    "poisson": Case(PoissonRegressor(alpha=0.1, **TIGHT), COUNTS, weighted=True),
    "gamma": Case(GammaRegressor(alpha=0.1, **TIGHT), NUMBERS),
    "tweedie": Case(TweedieRegressor(power=1.5, alpha=0.1, **TIGHT), COUNTS),
    "tweedie_normal": Case(TweedieRegressor(power=0, alpha=0.1, **TIGHT), NEGATIVE),
    "tweedie_normal_log": Case(TweedieRegressor(power=0, link="log", alpha=0.1, **TIGHT), NUMBERS),
    "tweedie_unpenalised": Case(TweedieRegressor(power=2, alpha=0.0, fit_intercept=False, **TIGHT), NUMBERS),
    "squared_hinge": Case(LinearSVC(random_state=0, C=0.5, **TIGHT), TWO),
    "squared_hinge_three": Case(LinearSVC(random_state=0, C=0.1, intercept_scaling=3.0, **TIGHT), THREE),
    "squared_hinge_balanced": Case(
        LinearSVC(random_state=0, C=0.5, class_weight="balanced", **TIGHT), TWO, weighted=True
    ),
    "hinge": Case(LinearSVC(loss="hinge", random_state=0, C=0.5, **TIGHT), TWO, hinge=True),
    "hinge_weighted": Case(
        LinearSVC(loss="hinge", random_state=0, fit_intercept=False, **TIGHT), TWO, hinge=True, weighted=True
    ),
    "svc_linear": Case(svc(kernel="linear"), TWO, hinge=True),
    "svc_rbf": Case(svc(), TWO, hinge=True),
    "svc_poly": Case(svc(kernel="poly", coef0=1.0, degree=2), TWO, hinge=True),
    "svc_three": Case(svc(), THREE, hinge=True),
    "svc_three_weighted": Case(svc(kernel="linear", class_weight="balanced"), THREE, hinge=True, weighted=True),
    "sgd": Case(SGDClassifier(loss="log_loss", alpha=0.05, tol=1e-7, max_iter=20_000, random_state=0), TWO, loose=True),
    "sgd_three": Case(  # tol=None: before 1.8 it stops after few passes at any tolerance
        SGDClassifier(loss="log_loss", alpha=0.05, tol=None, max_iter=3_000, random_state=0), THREE, loose=True
    ),
    "sgd_weighted": Case(
        SGDClassifier(loss="log_loss", alpha=0.05, tol=1e-7, max_iter=20_000, random_state=0),
        TWO,
        weighted=True,
        loose=True,
    ),
}


@dataclass(frozen=True)
class Trained:
    """A case, fitted, with its model and some queries."""

    case: Case
    estimator: Any
    train: uw.Examples
    queries: uw.Examples
    model: Any

    def asking(self, measure: Any) -> Trained:
        """The same with another measurement."""
        return replace(self, model=uw.explainable(self.estimator, self.train, measure=measure))

    def refitted(self, rows: Any) -> Any:
        """A clone of the estimator that scikit-learn fits to these rows alone."""
        estimator = clone(self.estimator)
        if getattr(estimator, "class_weight", None) == "balanced":  # with the class weights of the full training set
            estimator.set_params(class_weight=self.model.class_weights)
        weights: Any = self.train.weights
        more = {} if weights is None else {"sample_weight": weights[rows]}
        return estimator.fit(self.train.x[rows], np.asarray(self.train.y)[rows], **more)


@cache
def trained(name: str) -> Trained:
    """The case of this name, fitted once."""
    case = CASES[name]
    (x, y), weights = case.data, case.weights
    train = uw.Examples(x[QUERIES:], y[QUERIES:], weights=weights)
    more = {} if weights is None else {"sample_weight": weights}
    estimator = clone(case.estimator).fit(train.x, train.y, **more)
    return Trained(case, estimator, train, uw.Examples(x[:QUERIES], y[:QUERIES]), uw.explainable(estimator, train))


def outputs(estimator: Any, x: Any) -> Any:
    """Decision values or predicted means, (n, columns)."""
    z = estimator.decision_function(x) if hasattr(estimator, "decision_function") else estimator.predict(x)
    return z.reshape(len(z), -1)


def mixed(z: Any, labels: Any = None) -> Any:
    """A measurement that depends on all outputs: their weighted sum."""
    return z @ np.linspace(1.0, 2.0, z.shape[1])
