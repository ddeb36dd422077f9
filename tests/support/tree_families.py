"""Small boosters and forests of every library on small data sets, for the laws.

Features are rounded to few values and trees are shallow, so that the best split wins by more than rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)

from upweight.testing import EstimatorFamily
from upweight.testing.families import DRAWS_POSITIONS, coarse

TREES = 8
MEAN_WEIGHT = "CatBoost scales its l2 by the mean weight over rows, those of weight 0 included"
ROWS = "LightGBM counts rows in a leaf (min_child_samples), whatever they weigh"
BINNED_ROWS = "bins are quantiles of rows, and leaves count them (min_samples_leaf), whatever they weigh"
TIES = "without some of its examples two splits have the same gain, and the order of the sums decides"


TWO, THREE, AMOUNTS = coarse(load_breast_cancer, 4), coarse(load_wine, 7), coarse(load_diabetes, 8, 100.0)


def lightgbm(kind: str, **more: Any) -> Callable[[], Any]:
    """Make LightGBM estimators of this class; the library is imported when the first one is made."""

    def make() -> Any:
        import lightgbm as library

        settings = {"n_estimators": TREES, "max_depth": 2, "min_child_samples": 5, "n_jobs": 1, "verbose": -1}
        return getattr(library, kind)(**{"learning_rate": 0.3, **settings, **more})

    return make


def xgboost(kind: str) -> Callable[[], Any]:
    """Make XGBoost estimators of this class."""

    def make() -> Any:
        import xgboost as library

        return getattr(library, kind)(n_estimators=TREES, max_depth=2, n_jobs=1)

    return make


PLAIN = {"boosting_type": "Plain", "bootstrap_type": "No", "leaf_estimation_iterations": 1, "random_strength": 0}


def catboost(kind: str, **more: Any) -> Callable[[], Any]:
    """Make CatBoost estimators of this class."""

    def make() -> Any:
        import catboost as library

        settings = {"iterations": TREES, "depth": 2, "learning_rate": 0.3, "random_seed": 0, "thread_count": 1}
        return getattr(library, kind)(**settings, **PLAIN, **more, verbose=0, allow_writing_files=False)

    return make


def _boosters() -> list[EstimatorFamily]:
    """The boosters whose library is installed."""
    shallow = {"n_estimators": TREES, "max_depth": 2, "random_state": 0}
    families = [
        EstimatorFamily("lightgbm two", TWO, lightgbm("LGBMClassifier"), counts_rows=ROWS),
        EstimatorFamily("lightgbm three", THREE, lightgbm("LGBMClassifier"), counts_rows=ROWS),
        EstimatorFamily("lightgbm amounts", AMOUNTS, lightgbm("LGBMRegressor", reg_lambda=1.0), True, counts_rows=ROWS),
        EstimatorFamily("xgboost two", TWO, xgboost("XGBClassifier")),
        EstimatorFamily("xgboost three", THREE, xgboost("XGBClassifier")),
        EstimatorFamily("xgboost amounts", AMOUNTS, xgboost("XGBRegressor"), True),
        EstimatorFamily(
            "catboost two",
            TWO,
            catboost("CatBoostClassifier"),
            not_weighted=MEAN_WEIGHT,
            retrained_in_order=TIES,
        ),
        EstimatorFamily("catboost amounts", AMOUNTS, catboost("CatBoostRegressor"), True, not_weighted=MEAN_WEIGHT),
        EstimatorFamily(
            "gradient boosting", TWO, lambda: GradientBoostingClassifier(**shallow), retrained_in_order=TIES
        ),
        EstimatorFamily("gradient boosting amounts", AMOUNTS, lambda: GradientBoostingRegressor(**shallow), True),
        EstimatorFamily(
            "histograms",
            THREE,
            lambda: HistGradientBoostingClassifier(max_iter=TREES, max_depth=2, min_samples_leaf=5),
            counts_rows=BINNED_ROWS,
        ),
    ]
    libraries = ("lightgbm", "xgboost", "catboost")
    return [family for family in families if not family.name.startswith(libraries) or find_spec(family.name.split()[0])]


FORESTS = [
    EstimatorFamily(
        "forest", THREE, lambda: RandomForestClassifier(30, max_depth=3, random_state=0), not_permuted=DRAWS_POSITIONS
    ),
    EstimatorFamily(
        "extra trees",
        AMOUNTS,
        lambda: ExtraTreesRegressor(30, max_depth=3, random_state=0),
        is_regression=True,
        retrained_in_order=TIES,
    ),
]
BOOSTERS = _boosters()
