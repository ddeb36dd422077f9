"""CatBoost: `CatBoostClassifier`, `CatBoostRegressor` and `CatBoost`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from upweight.core.examples import Examples
from upweight.core.measurement import Measurement
from upweight.models.tree_spec import (
    TreeInputs,
    TreeSpec,
    library_of,
    read_trees,
    refuse_objective,
    tree_model,
)
from upweight.trees.boosting import LeafRule
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.ensemble import ensemble_of
from upweight.trees.losses import Logistic, Poisson, Quantile, Softmax, Squared
from upweight.trees.model import TreeModel

SUPPORTED = "RMSE, Logloss, MultiClass, Poisson, Quantile and MAE"
# What stops training early, or writes files: trained again, there are as many trees as there were.
STOPPING = (
    "early_stopping_rounds",
    "use_best_model",
    "od_type",
    "od_wait",
    "od_pval",
    "eval_fraction",
    "best_model_min_trees",
)
COUNTS = ("iterations", "n_estimators", "num_boost_round", "num_trees")


def reads(estimator: Any) -> bool:
    """Whether it, or the last step of a pipeline, is of CatBoost."""
    return library_of(estimator) == "catboost"


def read(estimator: Any, train: Examples, measure: Measurement, *, loss: BoostingLoss | None = None) -> TreeModel:
    """A fitted CatBoost model, or a pipeline that ends in one."""
    return read_trees(_read, estimator, train, measure, loss)


def _read(estimator: Any, train: Examples, measure: Measurement, steps: Any, loss: BoostingLoss | None) -> TreeModel:
    """A fitted CatBoost model; `steps` is what comes before it in a pipeline."""
    if not estimator.is_fitted():
        raise ValueError(f"this {type(estimator).__name__} is not fitted; call fit(x, y) on the training set first")
    parameters = estimator.get_all_params()
    loss = loss or _loss(str(parameters["loss_function"]), estimator)
    counts = estimator.get_tree_leaf_counts()
    scale, bias = estimator.get_scale_and_bias()
    flat = scale * np.asarray(estimator.get_leaf_values(), dtype=np.float64).reshape(int(counts.sum()), -1)
    values = np.split(flat, np.cumsum(counts)[:-1])
    trees = len(counts)
    base = np.broadcast_to(np.asarray(bias, dtype=np.float64), (loss.outputs,)).copy()
    ensemble = ensemble_of(values, np.arange(trees), np.zeros(trees, dtype=np.intp), base)
    weights = np.ones(len(train)) if train.weights is None else train.weights
    rule = LeafRule(
        learning_rate=float(parameters["learning_rate"]),
        l2=np.full(len(flat), float(parameters["l2_leaf_reg"]) * weights.mean()),
        newton=parameters["leaf_estimation_method"] == "Newton",
    )

    def retrain_estimator(x: Any, y: Any, given: Any, seed: int) -> Any:
        kept = {k: v for k, v in estimator.get_params().items() if k not in (*STOPPING, *COUNTS)}
        kept |= {"iterations": trees, "learning_rate": rule.learning_rate, "allow_writing_files": False, "verbose": 0}
        for other in ("eta", "silent", "logging_level", "verbose_eval"):
            kept.pop(other, None)
        if seed and not {"random_seed", "random_state"} & kept.keys():
            kept["random_seed"] = seed
        categories = estimator.get_cat_feature_indices()
        if categories and not kept.get("cat_features"):
            kept["cat_features"] = categories
        native = type(estimator).__name__ == "CatBoost"
        new = type(estimator)(kept) if native else type(estimator)(**kept)
        return new.fit(x, y, sample_weight=given)

    spec = TreeSpec(
        ensemble=ensemble,
        loss=loss,
        leaf_numbers=lambda x: np.asarray(estimator.calc_leaf_indexes(x)).reshape(-1, trees),
        margins=lambda x: estimator.predict(x, prediction_type="RawFormulaVal"),
        retrain_estimator=retrain_estimator,
        rule=rule,
        unrecorded=_unrecorded(parameters, bool(estimator.get_cat_feature_indices())),
        splits=_splits(estimator),
        library=_library(estimator),
        threads=estimator.get_params().get("thread_count") != 1,
    )
    names = list(map(str, estimator.feature_names_ or ()))
    count = None if not names else len(names)
    numbered = names == [str(i) for i in range(len(names))]
    columns = TreeInputs(steps, count, None if steps or numbered or not names else tuple(names))
    return tree_model(
        estimator, columns, spec, train, measure, lambda new, kept: _read(new, kept, measure, steps, loss)
    )


def _splits(estimator: Any) -> str:
    """The trees as CatBoost writes them down, without when and how they were trained."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        estimator.save_model(str(path), format="json")
        written = json.loads(path.read_text())
    return json.dumps({name: part for name, part in written.items() if name != "model_info"}, sort_keys=True)


def _library(estimator: Any) -> str:
    """The version that is installed, and the one that trained the model where that is newer."""
    import catboost

    here = catboost.__version__
    stamp = re.search(r"CatBoost release (\d+(?:\.\d+)*)", estimator.get_metadata().get("catboost_version_info", ""))
    there = stamp.group(1) if stamp else here
    newer = [int(v) for v in there.split(".")] > [int(v) for v in re.findall(r"\d+", here)]
    return f"CatBoost {here}, trained by the newer {there}" if newer else f"CatBoost {here}"


def _loss(objective: str, estimator: Any) -> BoostingLoss:
    name, _, settings = objective.partition(":")
    given = dict(setting.split("=") for setting in settings.split(";") if "=" in setting)
    classes = np.asarray(estimator.classes_)
    if name == "Logloss":
        return Logistic(classes if len(classes) == 2 else np.array([0, 1]))
    if name == "MultiClass":
        return Softmax(classes)
    if name == "RMSE":
        return Squared()
    if name == "Poisson":
        return Poisson()
    if name in ("Quantile", "MAE"):
        return Quantile(float(given.get("alpha", 0.5)))
    raise refuse_objective("CatBoost", objective, SUPPORTED)


def _unrecorded(parameters: dict[str, Any], categories: bool) -> tuple[str, ...]:
    """What CatBoost did in training and keeps no record of, or what one Newton step does not say."""
    method, times = parameters["leaf_estimation_method"], int(parameters["leaf_estimation_iterations"])
    weighted = parameters.get("auto_class_weights", "None") != "None" or "class_weights" in parameters
    found = {
        "categories were coded by the targets of earlier rows, so training saw other leaves than prediction does "
        "(train with one_hot_max_size above the number of categories)": categories,
        f"leaves were found in {times} steps (train with leaf_estimation_iterations=1)": times > 1,
        "leaves of several classes were solved for together (train with leaf_estimation_method='Gradient')": method
        == "Newton"
        and str(parameters["loss_function"]).startswith("MultiClass"),
        "the model shrinks as it grows": float(parameters.get("model_shrink_rate", 0)) > 0,
        "Langevin noise was added": bool(parameters.get("langevin")),
        "classes were reweighted": weighted,
    }
    return tuple(what for what, happened in found.items() if happened)
