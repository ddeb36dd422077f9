"""Estimators that learn step by step: learners of one example after the other, and perceptrons with hidden layers."""

from __future__ import annotations

from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.linear_model import PassiveAggressiveClassifier, PassiveAggressiveRegressor, Perceptron, SGDRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor

from support.scikit_learn_versions import PASSIVE_AGGRESSIVE_TAKES_WEIGHTS, PERCEPTRON_TAKES_WEIGHTS
from upweight.testing import EstimatorFamily
from upweight.testing.families import scaled

IN_ORDER = "its steps follow the order of the examples, and a copy is another step"
LEARNERS = [
    EstimatorFamily(
        "perceptron",
        scaled(load_wine, 6),
        lambda: Perceptron(random_state=0),
        not_permuted=IN_ORDER,
        other={"eta0": 0.5, "penalty": "l2"},
    ),
    EstimatorFamily(
        "passive-aggressive classifier",
        scaled(load_breast_cancer, 6),
        lambda: PassiveAggressiveClassifier(C=0.1, random_state=0),
        not_permuted=IN_ORDER,
        other={"fit_intercept": False},
    ),
    EstimatorFamily(
        "passive-aggressive regressor",
        scaled(load_diabetes, 6, 100.0),
        lambda: PassiveAggressiveRegressor(C=0.05, random_state=0),
        is_regression=True,
        not_permuted=IN_ORDER,
        other={"fit_intercept": False},
    ),
    EstimatorFamily(
        "sgd of least squares",
        scaled(load_diabetes, 6, 100.0),
        lambda: SGDRegressor(random_state=0),
        is_regression=True,
        not_permuted=IN_ORDER,
        other={"alpha": 0.1},
    ),
]
if not PASSIVE_AGGRESSIVE_TAKES_WEIGHTS:  # they are refitted with new random numbers, as any estimator
    LEARNERS = [family for family in LEARNERS if not family.name.startswith("passive-aggressive")]
NO_WEIGHTS = "" if PERCEPTRON_TAKES_WEIGHTS else "this scikit-learn trains perceptrons without weights"
SMOOTH = {
    "hidden_layer_sizes": (4,),
    "solver": "lbfgs",
    "activation": "tanh",
    "tol": 1e-10,
    "max_iter": 5000,
    "max_fun": 50_000,
    "random_state": 0,
}
PERCEPTRONS = [
    EstimatorFamily(
        "mlp classifier",
        scaled(load_wine, 6),
        lambda: MLPClassifier(alpha=3.0, **SMOOTH),
        not_weighted=NO_WEIGHTS,
        other={"alpha": 5.0},
    ),
    EstimatorFamily(
        "mlp regressor",
        scaled(load_diabetes, 6, 100.0),
        lambda: MLPRegressor(alpha=3.0, **SMOOTH),
        is_regression=True,
        not_weighted=NO_WEIGHTS,
        other={"alpha": 5.0},
    ),
]
