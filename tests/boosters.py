"""Small boosters and forests of every library, as problems for the laws.

Features are rounded to few values and trees are shallow, so that splits have winners by more than rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.preprocessing import StandardScaler

from problems import Problem

TREES = 8


class BoosterProblem(Problem):
    """A problem whose model has class probabilities instead of decision values."""

    def outputs(self, model: Any, x: Any) -> np.ndarray:
        """Class probabilities (n, classes)."""
        return np.asarray(model.loss.probabilities(model.ensemble.margins(model.ensemble.placed(model.numbers(x)))))


def coarse(load: Callable[..., Any], columns: int, scale: float = 1.0) -> Callable[[], tuple[Any, np.ndarray]]:
    def data() -> tuple[Any, np.ndarray]:
        x, y = load(return_X_y=True)
        return np.round(2 * StandardScaler().fit_transform(x)[:, :columns]), y / scale if scale != 1.0 else y

    return data


TWO, THREE, AMOUNTS = coarse(load_breast_cancer, 4), coarse(load_wine, 7), coarse(load_diabetes, 8, 100.0)


def lightgbm(kind: str, **more: Any) -> Callable[[], Any]:
    def make() -> Any:
        import lightgbm as library

        settings = {"n_estimators": TREES, "max_depth": 2, "min_child_samples": 5, "n_jobs": 1, "verbose": -1}
        return getattr(library, kind)(**{"learning_rate": 0.3, **settings, **more})

    return make


def xgboost(kind: str) -> Callable[[], Any]:
    def make() -> Any:
        import xgboost as library

        return getattr(library, kind)(n_estimators=TREES, max_depth=2, n_jobs=1)

    return make


PLAIN = {"boosting_type": "Plain", "bootstrap_type": "No", "leaf_estimation_iterations": 1, "random_strength": 0}


def catboost(kind: str, **more: Any) -> Callable[[], Any]:
    def make() -> Any:
        import catboost as library

        settings = {"iterations": TREES, "depth": 2, "learning_rate": 0.3, "random_seed": 0, "thread_count": 1}
        return getattr(library, kind)(**settings, **PLAIN, **more, verbose=0, allow_writing_files=False)

    return make


def _problems() -> list[Problem]:
    shallow = {"n_estimators": TREES, "max_depth": 2, "random_state": 0}
    found = [
        BoosterProblem("lightgbm two", TWO, lightgbm("LGBMClassifier")),
        BoosterProblem("lightgbm three", THREE, lightgbm("LGBMClassifier")),
        BoosterProblem("lightgbm amounts", AMOUNTS, lightgbm("LGBMRegressor", reg_lambda=1.0), regression=True),
        BoosterProblem("xgboost two", TWO, xgboost("XGBClassifier")),
        BoosterProblem("xgboost three", THREE, xgboost("XGBClassifier")),
        BoosterProblem("xgboost amounts", AMOUNTS, xgboost("XGBRegressor"), regression=True),
        BoosterProblem("catboost two", TWO, catboost("CatBoostClassifier")),
        BoosterProblem("catboost amounts", AMOUNTS, catboost("CatBoostRegressor"), regression=True),
        BoosterProblem("gradient boosting", TWO, lambda: GradientBoostingClassifier(**shallow)),
        BoosterProblem("gradient boosting amounts", AMOUNTS, lambda: GradientBoostingRegressor(**shallow), True),
        BoosterProblem(
            "histograms", THREE, lambda: HistGradientBoostingClassifier(max_iter=TREES, max_depth=2, min_samples_leaf=5)
        ),
    ]
    return [p for p in found if find_spec(p.name.split()[0]) or not p.name.startswith(("lightgbm", "xgboost", "catb"))]


FORESTS = [
    BoosterProblem("forest", THREE, lambda: RandomForestClassifier(30, max_depth=3, random_state=0)),
    BoosterProblem(
        "extra trees", AMOUNTS, lambda: ExtraTreesRegressor(30, max_depth=3, random_state=0), regression=True
    ),
]
BOOSTERS = _problems()
