"""CatBoost: `CatBoostClassifier`, `CatBoostRegressor` and `CatBoost`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.measurement import Measurement
from upweight.models.fitted_estimators import not_fitted
from upweight.models.tree_inputs import TreeInputs
from upweight.models.tree_reading import library_of, read_trees, unsupported_objective
from upweight.models.tree_spec import TreeSpec, times_classes
from upweight.trees.boosting import MIN_HESSIAN, LeafRule
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.elementwise_losses import SoftLabels, Tweedie
from upweight.trees.ensemble import TreeEnsemble, ensemble_of
from upweight.trees.losses import Logistic, OneVsAll, Poisson, Quantile, Softmax, Squared
from upweight.trees.model import TreeModel
from upweight.trees.residual_losses import Expectile, Huber, LogCosh, Power

Array = NDArray[np.float64]
SUPPORTED = (
    "RMSE, MultiRMSE, Logloss, CrossEntropy, MultiLogloss, MultiCrossEntropy, MultiClass, MultiClassOneVsAll, Poisson, "
    "Tweedie, Huber, Expectile, Lq, LogCosh, Quantile and MAE"
)
# Objectives that are refused for a reason of their own.
REASONS = {
    "MAPE": "its leaves are re-fitted by a weighted median",
    "RMSPE": "its leaves are solved for exactly",
    "MultiQuantile": "its leaves are re-fitted by quantiles",
    "Cox": "its loss belongs to pairs of examples",
    "SurvivalAft": "its labels are intervals",
}
# Settings that stop training early. Retraining leaves them out, and makes as many trees as the model has.
EARLY_STOPPING = (
    "early_stopping_rounds",
    "use_best_model",
    "od_type",
    "od_wait",
    "od_pval",
    "eval_fraction",
    "best_model_min_trees",
)
TREE_COUNTS = ("iterations", "n_estimators", "num_boost_round", "num_trees")
REPLACED = ("eta", "silent", "logging_level", "verbose_eval")  # other names of settings that retraining sets


def reads(estimator: Any) -> bool:
    """Whether the estimator, or the last step of a pipeline, comes from CatBoost."""
    return library_of(estimator) == "catboost"


def read(estimator: Any, train: Examples, measure: Measurement, *, loss: BoostingLoss | None = None) -> TreeModel:
    """A fitted CatBoost model, or a pipeline that ends in one."""
    return read_trees(_read_spec, estimator, train, measure, loss)


def _read_spec(estimator: Any, train: Examples, steps: Any, loss: BoostingLoss | None) -> TreeSpec:
    """The trees of a fitted CatBoost model; `steps` come before it in a pipeline."""
    if not estimator.is_fitted():
        raise not_fitted(type(estimator).__name__)
    parameters = estimator.get_all_params()
    loss = loss or _loss(str(parameters["loss_function"]), estimator)
    ensemble = _ensemble(estimator, loss)
    weights = np.ones(len(train)) if train.weights is None else train.weights
    class_weights = _class_weights(parameters, loss)
    if class_weights is not None and train.y is not None:
        weights = times_classes(weights, class_weights, loss.encode(train.y).T)
    rule = LeafRule(
        learning_rate=float(parameters["learning_rate"]),
        l2=np.full(len(ensemble.values), float(parameters["l2_leaf_reg"]) * weights.mean()),
        newton=parameters["leaf_estimation_method"] == "Newton",
        # Examples beyond δ have a second derivative of 0, so that a leaf with examples can sum to 0.
        min_hessian=-1.0 if isinstance(loss, Huber) else MIN_HESSIAN,
        is_joint=_is_joint(parameters),
        is_per_mean_weight=True,
    )

    def retrain_estimator(x: Any, y: Any, weights: Any, seed: int) -> Any:
        settings = _retraining_settings(estimator, ensemble.trees, rule.learning_rate, seed)
        is_native = type(estimator).__name__ == "CatBoost"
        new = type(estimator)(settings) if is_native else type(estimator)(**settings)
        return new.fit(x, y, sample_weight=weights)

    return TreeSpec(
        ensemble=ensemble,
        loss=loss,
        inputs=_inputs(estimator, steps),
        leaf_numbers=lambda x: np.asarray(estimator.calc_leaf_indexes(x)).reshape(-1, ensemble.trees),
        margins=lambda x: estimator.predict(x, prediction_type="RawFormulaVal"),
        raw=lambda new, x: new.predict(x, prediction_type="RawFormulaVal"),
        retrain_estimator=retrain_estimator,
        rule=rule,
        unrecorded=_unrecorded(parameters, bool(estimator.get_cat_feature_indices())),
        splits=_splits(estimator),
        library=_library(estimator),
        threads=estimator.get_params().get("thread_count") != 1,
        class_weights=class_weights,
    )


def _ensemble(estimator: Any, loss: BoostingLoss) -> TreeEnsemble:
    """The leaf values; each tree is a step, and adds to all outputs."""
    counts = estimator.get_tree_leaf_counts()
    scale, bias = estimator.get_scale_and_bias()
    values = scale * np.asarray(estimator.get_leaf_values(), dtype=np.float64).reshape(int(counts.sum()), -1)
    trees = len(counts)
    base = np.broadcast_to(np.asarray(bias, dtype=np.float64), (loss.outputs,)).copy()
    per_tree = np.split(values, np.cumsum(counts)[:-1])
    return ensemble_of(per_tree, np.arange(trees), np.zeros(trees, dtype=np.intp), base)


def _inputs(estimator: Any, steps: Any) -> TreeInputs:
    """The columns of the fit. CatBoost numbers columns that have no names."""
    names = tuple(map(str, estimator.feature_names_ or ()))
    is_numbered = names == tuple(str(position) for position in range(len(names)))
    return TreeInputs(steps, len(names) or None, None if steps or is_numbered else names)


def _retraining_settings(estimator: Any, trees: int, learning_rate: float, seed: int) -> dict[str, Any]:
    """The settings that train the same number of trees again; the seed is used if the estimator has none."""
    left_out = (*EARLY_STOPPING, *TREE_COUNTS, *REPLACED)
    settings = {name: value for name, value in estimator.get_params().items() if name not in left_out}
    settings |= {"iterations": trees, "learning_rate": learning_rate, "allow_writing_files": False, "verbose": 0}
    if seed and not {"random_seed", "random_state"} & settings.keys():
        settings["random_seed"] = seed
    categories = estimator.get_cat_feature_indices()
    if categories and not settings.get("cat_features"):
        settings["cat_features"] = categories
    return settings


def _splits(estimator: Any) -> str:
    """The trees in CatBoost's own file format, without the record of when and how they were trained."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        estimator.save_model(str(path), format="json")
        model = json.loads(path.read_text())
    return json.dumps({name: part for name, part in model.items() if name != "model_info"}, sort_keys=True)


def _library(estimator: Any) -> str:
    """The installed version of CatBoost, and the one that trained the model if that is newer."""
    import catboost

    installed = catboost.__version__
    stamp = re.search(r"CatBoost release (\d+(?:\.\d+)*)", estimator.get_metadata().get("catboost_version_info", ""))
    trained_by = stamp.group(1) if stamp else installed
    is_newer = [int(v) for v in trained_by.split(".")] > [int(v) for v in re.findall(r"\d+", installed)]
    return f"CatBoost {installed}, trained by the newer {trained_by}" if is_newer else f"CatBoost {installed}"


def _loss(objective: str, estimator: Any) -> BoostingLoss:
    """The loss that CatBoost's `loss_function` names."""
    name, _, settings = objective.partition(":")
    options = dict(setting.split("=") for setting in settings.split(";") if "=" in setting)
    classes, outputs = np.asarray(estimator.classes_), len(np.ravel(estimator.get_scale_and_bias()[1]))
    makers: dict[str, Callable[[], BoostingLoss]] = {
        "Logloss": lambda: Logistic(classes if len(classes) == 2 else np.array([0, 1])),
        "CrossEntropy": SoftLabels,
        "MultiClass": lambda: Softmax(classes),
        "MultiClassOneVsAll": lambda: OneVsAll(classes),
        "RMSE": Squared,
        "MultiRMSE": lambda: Squared(outputs),
        "MultiLogloss": lambda: SoftLabels(outputs),
        "MultiCrossEntropy": lambda: SoftLabels(outputs),
        "Expectile": lambda: Expectile(float(options["alpha"])),
        "LogCosh": LogCosh,
        "Lq": lambda: Power(float(options["q"])),
        "Poisson": Poisson,
        "Tweedie": lambda: Tweedie(float(options["variance_power"])),
        "Huber": lambda: Huber(float(options["delta"]), outside=0.0),
        "Quantile": lambda: Quantile(float(options.get("alpha", 0.5))),
        "MAE": lambda: Quantile(0.5),
    }
    if name not in makers:
        raise unsupported_objective("CatBoost", objective, SUPPORTED, reason=REASONS.get(name, ""))
    return makers[name]()


def _class_weights(parameters: dict[str, Any], loss: BoostingLoss) -> Array | None:
    """The factor of each class's weights in training; None for 1. `scale_pos_weight` is one form of it."""
    given = np.asarray(parameters.get("class_weights", ()), dtype=np.float64)
    is_automatic = str(parameters.get("auto_class_weights", "None")) != "None"
    if is_automatic or loss.classes is None or len(given) != len(loss.classes) or (given == 1).all():
        return None
    return given


def _unrecorded(parameters: dict[str, Any], categories: bool) -> tuple[str, ...]:
    """What CatBoost did in training but did not record, or beyond one Newton step per leaf."""
    method, steps = parameters["leaf_estimation_method"], int(parameters["leaf_estimation_iterations"])
    name = str(parameters["loss_function"]).partition(":")[0]
    automatic = str(parameters.get("auto_class_weights", "None"))
    effects = {
        "categories were coded by the targets of earlier rows, so training saw other leaves than prediction does "
        "(train with one_hot_max_size above the number of categories)": categories,
        "leaf values were solved for exactly (train with leaf_estimation_method='Newton')": method == "Exact"
        and name == "LogCosh",
        f"leaf values took {steps} steps (train with leaf_estimation_iterations=1)": steps > 1,
        "leaf values of several classes were solved for jointly without an l2 (train with l2_leaf_reg above 0)": method
        == "Newton"
        and name == "MultiClass"
        and not _is_joint(parameters),
        "the model shrinks as it grows": float(parameters.get("model_shrink_rate", 0)) > 0,
        "Langevin noise was added": bool(parameters.get("langevin")),
        f"auto_class_weights={automatic!r} weighted the classes (pass these weights as class_weights)": automatic
        != "None",
    }
    return tuple(effect for effect, is_active in effects.items() if is_active)


def _is_joint(parameters: dict[str, Any]) -> bool:
    """Whether leaf values come from one Newton step in all classes together; without an l2 it has no solution."""
    is_newton = parameters["leaf_estimation_method"] == "Newton"
    return is_newton and str(parameters["loss_function"]) == "MultiClass" and float(parameters["l2_leaf_reg"]) > 0
