"""The small families of the package: linear models, boosted trees, a forest, and networks if torch is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.testing.estimator_family import EstimatorFamily
from upweight.testing.family import Family

TIGHT = {"tol": 1e-10, "max_iter": 20_000}
SMALL_TREES = {"n_estimators": 8, "max_depth": 2, "random_state": 0}
DRAWS_POSITIONS = "a forest draws positions: another order of the examples gives another forest"
Data = Callable[[], tuple[Any, NDArray[Any]]]


def scaled(load: Callable[..., Any], columns: int, unit: float = 1.0) -> Data:
    """Return a loader of the first columns of a scikit-learn data set, standardised, with targets in this unit."""

    def data() -> tuple[Any, NDArray[Any]]:
        from sklearn.preprocessing import StandardScaler

        x, y = load(return_X_y=True)
        return StandardScaler().fit_transform(x)[:, :columns], y / unit if unit != 1.0 else y

    return data


def coarse(load: Callable[..., Any], columns: int, unit: float = 1.0) -> Data:
    """Return a loader of the same data rounded to few values, so that rounding errors do not decide splits of trees."""

    def data() -> tuple[Any, NDArray[Any]]:
        x, y = scaled(load, columns, unit)()
        return np.round(2 * x), y

    return data


@cache
def families() -> Sequence[Family]:
    """Return small families of every kind; each trains within a second."""
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression, Ridge

    return [
        EstimatorFamily(
            "logistic regression", scaled(load_breast_cancer, 6), lambda: LogisticRegression(**TIGHT), other={"C": 2.0}
        ),
        EstimatorFamily("softmax", scaled(load_wine, 6), lambda: LogisticRegression(**TIGHT), other={"C": 2.0}),
        EstimatorFamily("ridge", scaled(load_diabetes, 8, 100.0), lambda: Ridge(alpha=3.0), True, other={"alpha": 2.0}),
        EstimatorFamily(
            "boosted trees",
            coarse(load_breast_cancer, 4),
            lambda: GradientBoostingClassifier(**SMALL_TREES),
            other={"learning_rate": 0.2},
        ),
        EstimatorFamily(
            "boosted regression trees",
            coarse(load_diabetes, 8, 100.0),
            lambda: GradientBoostingRegressor(**SMALL_TREES),
            True,
            other={"learning_rate": 0.2},
        ),
        EstimatorFamily(
            "random forest",
            coarse(load_wine, 7),
            lambda: RandomForestClassifier(30, max_depth=3, random_state=0),
            not_permuted=DRAWS_POSITIONS,
            other={"max_depth": 2},
        ),
        *(networks() if find_spec("torch") else ()),
    ]


def networks() -> Sequence[Family]:
    """Return a net trained elsewhere, one with its training recipe, and one with a record of its training steps."""
    from upweight.testing.networks import NetworkFamily, RecordedFamily, TrainedFamily, mlp

    return [NetworkFamily("net", mlp), TrainedFamily("trained net", mlp), RecordedFamily("recorded net", mlp)]
