"""What newer versions of scikit-learn have or name otherwise: tests run with the lowest version that is declared."""

from __future__ import annotations

from inspect import signature
from typing import Any

from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, SGDClassifier
from sklearn.multioutput import ClassifierChain
from sklearn.neural_network import MLPRegressor

# The first argument of chains, which had another name before 1.7.
CHAINED = "estimator" if "estimator" in signature(ClassifierChain).parameters else "base_estimator"
# How a logistic regression is given an l1 penalty: since 1.8 by its ratio alone.
L1: dict[str, Any] = {"l1_ratio": 1.0} if LogisticRegression().penalty == "deprecated" else {"penalty": "l1"}
# Since 1.8 SGDClassifier has the steps of passive-aggressive learners, and so they can be trained with weights.
PASSIVE_AGGRESSIVE_TAKES_WEIGHTS = any("pa1" in str(r) for r in SGDClassifier._parameter_constraints["learning_rate"])
# And perceptrons with layers.
PERCEPTRON_TAKES_WEIGHTS = "sample_weight" in signature(MLPRegressor.fit).parameters


def logistic_regression_cv(**settings: Any) -> LogisticRegressionCV:
    """A choice by cross-validation whose attributes are those of 1.8 and newer, if this version has them."""
    if "use_legacy_attributes" in signature(LogisticRegressionCV).parameters:
        settings["use_legacy_attributes"] = False
    return LogisticRegressionCV(**settings)
