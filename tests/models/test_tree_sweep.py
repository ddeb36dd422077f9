"""Every library of trees, objective and number of classes with default settings: an answer, or a refusal in a sentence.

Nothing else may come: no error of another library, and no score that is not finite.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine

import upweight as uw

ROWS = 120
CATBOOST = {"iterations": 30, "thread_count": 1, "verbose": 0, "allow_writing_files": False}
Data = tuple[Any, Any]


def first_rows(load: Callable[..., Data]) -> Data:
    """Rows of one of scikit-learn's data sets, in a random order."""
    x, y = load(return_X_y=True)
    order = np.random.default_rng(3).permutation(len(x))[:ROWS]
    return x[order], y[order]


IRIS, WINE, TWO, NUMBERS = (first_rows(load) for load in (load_iris, load_wine, load_breast_cancer, load_diabetes))
DIGITS = first_rows(load_digits)
TAGS = (NUMBERS[0], (np.c_[NUMBERS[1], NUMBERS[0]][:, :3] > [150, 0, 0]).astype(int))
SOFT_TAGS = (NUMBERS[0], np.c_[NUMBERS[1] / 400, TAGS[1][:, 1] * 0.8])
SHARES = (NUMBERS[0], NUMBERS[1] / 400)
TARGETS = (NUMBERS[0], np.c_[NUMBERS[1], NUMBERS[1] ** 2 / 100])
SETS = {"iris": IRIS, "wine": WINE, "cancer": TWO, "diabetes": NUMBERS, "shares": SHARES, "targets": TARGETS}
SETS |= {"digits": DIGITS, "tags": TAGS, "soft tags": SOFT_TAGS}
CLASSES = ("iris", "wine", "cancer", "digits")
PERCENTILE = "order statistics"  # part of the refusal of leaves that are percentiles


def sklearn_tree(name: str, **settings: Any) -> Any:
    """An estimator of scikit-learn with default settings."""
    return getattr(import_module("sklearn.ensemble"), name)(random_state=0, **settings)


def lightgbm(name: str, **settings: Any) -> Any:
    """An estimator of LightGBM with default settings."""
    return getattr(pytest.importorskip("lightgbm"), name)(n_jobs=1, verbose=-1, **settings)


def xgboost(name: str, **settings: Any) -> Any:
    """An estimator of XGBoost with default settings."""
    return getattr(pytest.importorskip("xgboost"), name)(n_jobs=1, **settings)


def catboost(name: str, **settings: Any) -> Any:
    """An estimator of CatBoost with default settings, apart from the number of trees."""
    settings = {**CATBOOST, **settings}
    kind = getattr(pytest.importorskip("catboost"), name)
    return kind(settings) if name == "CatBoost" else kind(**settings)


def case(make: Callable[..., Any], name: str, data: str, refusal: str = "", **settings: Any) -> Any:
    """A fit of the sweep. `refusal` is a part of the sentence that refuses LeafRefit; empty if there are scores."""
    words = [make.__name__, name, data, *(f"{key}={value}" for key, value in settings.items())]
    library = make.__name__
    missing = library in ("lightgbm", "xgboost", "catboost") and find_spec(library) is None
    marks = [pytest.mark.skip(reason=f"{library} is not installed")] if missing else []
    return pytest.param(make, name, data, refusal, settings, id=" ".join(words), marks=marks)


HISTOGRAMS, GRADIENT = "HistGradientBoosting", "GradientBoosting"
CASES = [
    *(case(sklearn_tree, f"{kind}Classifier", data) for kind in (HISTOGRAMS, GRADIENT) for data in CLASSES[:3]),
    case(sklearn_tree, "HistGradientBoostingClassifier", "digits", max_iter=20),
    case(sklearn_tree, "GradientBoostingClassifier", "digits", n_estimators=10),
    *(case(sklearn_tree, f"{kind}Classifier", data) for kind in ("RandomForest", "ExtraTrees") for data in CLASSES),
    *(case(sklearn_tree, f"{kind}Regressor", "diabetes") for kind in ("RandomForest", "ExtraTrees")),
    case(sklearn_tree, "RandomForestRegressor", "targets", "one target per RandomForestRegressor"),
    case(sklearn_tree, "GradientBoostingClassifier", "cancer", loss="exponential"),
    case(sklearn_tree, "GradientBoostingRegressor", "diabetes"),
    case(sklearn_tree, "GradientBoostingRegressor", "diabetes", "re-fitted by a median", loss="huber"),
    *(
        case(sklearn_tree, f"{kind}Regressor", "diabetes", PERCENTILE, loss="absolute_error")
        for kind in (HISTOGRAMS, GRADIENT)
    ),
    case(sklearn_tree, "HistGradientBoostingRegressor", "diabetes", PERCENTILE, loss="quantile", quantile=0.3),
    *(
        case(sklearn_tree, "HistGradientBoostingRegressor", "diabetes", loss=loss)
        for loss in ("squared_error", "poisson", "gamma")
    ),
    *(case(lightgbm, "LGBMClassifier", data) for data in CLASSES),
    *(case(lightgbm, "LGBMClassifier", data, objective="multiclassova") for data in ("iris", "wine")),
    *(
        case(lightgbm, "LGBMRegressor", "diabetes", objective=objective)
        for objective in ("regression", "huber", "fair", "poisson", "gamma", "tweedie")
    ),
    case(lightgbm, "LGBMRegressor", "shares", objective="cross_entropy"),
    case(lightgbm, "LGBMRegressor", "shares", "part of its loss", objective="cross_entropy_lambda"),
    *(case(lightgbm, "LGBMRegressor", "diabetes", PERCENTILE, objective=o) for o in ("quantile", "regression_l1")),
    case(lightgbm, "LGBMRegressor", "diabetes", "re-fitted by a weighted median", objective="mape"),
    *(case(xgboost, "XGBClassifier", data) for data in CLASSES),
    *(
        case(xgboost, "XGBRegressor", "diabetes", objective=objective)
        for objective in ("reg:squarederror", "reg:gamma", "reg:tweedie", "count:poisson")
    ),
    case(xgboost, "XGBRegressor", "diabetes", objective="reg:pseudohubererror", base_score=100.0, huber_slope=50.0),
    *(case(xgboost, "XGBRegressor", "shares", objective=o) for o in ("reg:logistic", "binary:logistic")),
    *(
        case(xgboost, "XGBRegressor", "diabetes", PERCENTILE, objective=objective, **settings)
        for objective, settings in {"reg:absoluteerror": {}, "reg:quantileerror": {"quantile_alpha": 0.3}}.items()
    ),
    case(xgboost, "XGBRegressor", "diabetes", objective="reg:squaredlogerror", min_child_weight=1e-3),
    case(xgboost, "XGBRegressor", "diabetes", objective="reg:squaredlogerror"),
    case(xgboost, "XGBRegressor", "diabetes", "belongs to pairs of examples", objective="survival:cox"),
    case(xgboost, "XGBClassifier", "cancer", "no second derivative", objective="binary:hinge"),
    case(xgboost, "XGBRegressor", "targets"),
    case(xgboost, "XGBRegressor", "targets", "several targets", objective="reg:gamma"),
    case(xgboost, "XGBRegressor", "targets", "one_output_per_tree", multi_strategy="multi_output_tree"),
    case(
        catboost, "CatBoostClassifier", "cancer", "10 steps|leaf_estimation_iterations=1", leaf_estimation_iterations=10
    ),
    case(catboost, "CatBoostClassifier", "cancer", leaf_estimation_iterations=1),
    *(case(catboost, "CatBoostClassifier", data) for data in ("iris", "wine", "digits")),
    *(
        case(catboost, "CatBoostClassifier", data, loss_function="MultiClassOneVsAll", leaf_estimation_iterations=1)
        for data in ("iris", "wine")
    ),
    case(catboost, "CatBoost", "shares", loss_function="CrossEntropy"),
    case(catboost, "CatBoostRegressor", "targets", loss_function="MultiRMSE"),
    case(catboost, "CatBoost", "tags", loss_function="MultiLogloss"),
    case(catboost, "CatBoost", "soft tags", loss_function="MultiCrossEntropy"),
    case(catboost, "CatBoostRegressor", "diabetes", "solved for exactly", loss_function="LogCosh"),
    case(catboost, "CatBoostRegressor", "diabetes", loss_function="LogCosh", leaf_estimation_method="Newton"),
    *(
        case(catboost, "CatBoostRegressor", "diabetes", f"'{objective}' is not supported", loss_function=objective)
        for objective in ("RMSPE", "MultiQuantile:alpha=0.2,0.5", "Cox", "RMSEWithUncertainty", "LogLinQuantile")
    ),
    *(
        case(catboost, "CatBoostRegressor", "diabetes", loss_function=objective)
        for objective in (
            "RMSE",
            "Poisson",
            "Tweedie:variance_power=1.3",
            "Huber:delta=30",
            "Huber:delta=0.5",
            "Expectile:alpha=0.3",
            "Lq:q=2.5",
            "Lq:q=1.5",
        )
    ),
    *(case(catboost, "CatBoostRegressor", "diabetes", PERCENTILE, loss_function=o) for o in ("Quantile", "MAE")),
    case(catboost, "CatBoostRegressor", "diabetes", "re-fitted by a weighted median", loss_function="MAPE"),
]


def is_a_sentence_of_ours(error: Exception) -> bool:
    """Whether upweight raised this error itself, and said more than a few words."""
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename).resolve()
    package = Path(uw.__file__).resolve().parent
    return isinstance(error, ValueError | TypeError) and len(str(error)) > 60 and raised_in.is_relative_to(package)


@pytest.mark.sweep(4)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "name", "data", "refusal", "settings"), CASES)
def test_every_booster_and_forest_is_explained_or_refitted_or_refused_for_a_reason(make, name, data, refusal, settings):
    x, y = SETS[data]
    train = uw.Examples(x, y)
    queries = train.take(range(3))
    try:
        estimator = make(name, **settings).fit(x, y)
    except Exception as error:
        if "loss is not supported" in str(error):
            pytest.skip(f"this version of the library does not have it: {error}")
        raise
    methods_that_answer, message = set(), ""
    try:
        model = uw.explainable(estimator, train)
        assert np.isfinite(model.measure(train)).all()
        assert len(model.predict(queries).predicted) == 3
    except (ValueError, TypeError) as error:
        assert is_a_sentence_of_ours(error), error
        message = str(error)
    else:
        message = " ".join(model.notes) if isinstance(model, uw.Refittable) else ""
        for method in (uw.LeafRefit(), uw.LeafInfluence(), uw.BoostIn(), uw.TreeSim(), uw.ForestWeights()):
            try:
                scores = method.fit(model, train).attribute(queries)
            except (ValueError, TypeError) as error:
                assert is_a_sentence_of_ours(error), error
                message = message or str(error)
            else:
                assert np.isfinite(scores.values).all()
                methods_that_answer.add(type(method).__name__)
    if refusal:
        assert not methods_that_answer & {"LeafRefit", "ForestWeights"}
        assert any(part in message for part in refusal.split("|")), message
    else:
        assert methods_that_answer & {"LeafRefit", "ForestWeights"}, message
