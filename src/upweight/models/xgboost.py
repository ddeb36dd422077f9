"""XGBoost: `Booster` and the estimators of its scikit-learn interface."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.input_kinds import columns_of
from upweight.core.measurement import Measurement
from upweight.models.tree_spec import (
    TreeInputs,
    TreeSpec,
    known_format,
    leaf_lookup,
    library_of,
    read_trees,
    refuse_objective,
    retrain_clone,
    tree_model,
)
from upweight.trees.boosting import LeafRule
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.ensemble import ensemble_of
from upweight.trees.losses import Logistic, Poisson, Quantile, Softmax, Squared
from upweight.trees.model import TreeModel

SUPPORTED = (
    "reg:squarederror, binary:logistic, binary:logitraw, multi:softprob, multi:softmax, count:poisson, "
    "reg:quantileerror and reg:absoluteerror"
)


def reads(estimator: Any) -> bool:
    """Whether it, or the last step of a pipeline, is of XGBoost."""
    return library_of(estimator) == "xgboost"


def read(estimator: Any, train: Examples, measure: Measurement, *, loss: BoostingLoss | None = None) -> TreeModel:
    """A fitted XGBClassifier, XGBRegressor or Booster, or a pipeline that ends in one."""
    return read_trees(_read, estimator, train, measure, loss)


def _read(estimator: Any, train: Examples, measure: Measurement, steps: Any, loss: BoostingLoss | None) -> TreeModel:
    """A fitted XGBClassifier, XGBRegressor or Booster; `steps` is what comes before it in a pipeline."""
    import xgboost

    is_native = hasattr(estimator, "save_raw")
    if not is_native and not estimator.__sklearn_is_fitted__():
        raise ValueError(f"this {type(estimator).__name__} is not fitted; call fit(x, y) on the training set first")
    booster = estimator if is_native else estimator.get_booster()
    library = f"XGBoost {xgboost.__version__}"
    with known_format(library):
        whole = json.loads(booster.save_raw("json"))["learner"]
        config = json.loads(booster.save_config())["learner"]
        kind, threads = whole["gradient_booster"]["name"], config["generic_param"]["nthread"]
        if kind == "gblinear":
            raise ValueError(
                "booster='gblinear' is a linear model without trees; scikit-learn's linear models are supported"
            )
        model = whole["gradient_booster"]["gbtree"]["model"] if kind == "dart" else whole["gradient_booster"]["model"]
        rounds = booster.num_boosted_rounds()
        if not is_native and booster.attr("best_iteration") is not None:
            rounds = int(booster.best_iteration) + 1  # what the estimator itself predicts with
        trees = model["trees"][: int(model["iteration_indptr"][rounds])]
        if any(int(tree["tree_param"].get("size_leaf_vector", 1)) > 1 for tree in trees):
            raise ValueError("multi_strategy='multi_output_tree' is not supported; one_output_per_tree is")
        loss = loss or _loss(whole, None if is_native else getattr(estimator, "classes_", None))
        nodes = [np.flatnonzero(np.array(tree["left_children"]) == -1) for tree in trees]
        dropped = whole["gradient_booster"].get("weight_drop", np.ones(len(trees)))
        values = [
            scale * np.array(tree["split_conditions"], dtype=np.float64)[leaf]
            for tree, leaf, scale in zip(trees, nodes, dropped, strict=False)
        ]
        of_step = np.repeat(np.arange(rounds), np.diff(model["iteration_indptr"][: rounds + 1]))
        ensemble = ensemble_of(values, of_step, np.array(model["tree_info"][: len(trees)]), _base(whole, loss))
        settings = _settings(config["gradient_booster"])
    look = leaf_lookup(nodes)

    missing = getattr(estimator, "missing", np.nan)

    def matrix(x: Any, **more: Any) -> Any:
        if columns_of(x) is None and booster.feature_types is not None:  # which columns are categories
            more["feature_types"] = booster.feature_types
        return xgboost.DMatrix(x, enable_categorical=True, missing=missing, **more)

    def leaf_numbers(x: Any) -> NDArray[Any]:
        shown = booster.predict(matrix(x), pred_leaf=True, iteration_range=(0, rounds), strict_shape=True)
        return look(shown.reshape(len(shown), -1))

    def retrain_estimator(x: Any, y: Any, weights: Any, seed: int) -> Any:
        if is_native:
            return xgboost.train(_parameters(config, whole, seed), matrix(x, label=y, weight=weights), rounds)
        # A random forest is one round, and its n_estimators are the trees of it.
        is_forest = isinstance(estimator, xgboost.XGBRFClassifier | xgboost.XGBRFRegressor)
        told = {} if is_forest else {"n_estimators": rounds, "early_stopping_rounds": None}
        return retrain_clone(estimator, x, y, weights, seed, **told)

    parallel = len(trees) / max(rounds * loss.outputs, 1)
    rule = LeafRule(
        learning_rate=float(settings["eta"]) / max(parallel, 1.0),
        l2=np.full(len(ensemble.values), float(settings["lambda"])),
        l1=float(settings["alpha"]),
        max_step=float(settings["max_delta_step"]),
    )
    spec = TreeSpec(
        ensemble=ensemble,
        loss=loss,
        leaf_numbers=leaf_numbers,
        margins=lambda x: booster.predict(matrix(x), output_margin=True, iteration_range=(0, rounds)),
        retrain_estimator=retrain_estimator,
        rule=rule,
        unrecorded=_unrecorded(kind, settings, config),
        splits=trees,
        library=library,
        threads=int(threads) != 1,
    )
    names = None if steps or booster.feature_names is None else tuple(booster.feature_names)
    columns = TreeInputs(steps, booster.num_features(), names)
    return tree_model(
        estimator, columns, spec, train, measure, lambda new, kept: _read(new, kept, measure, steps, loss)
    )


def _loss(learner: dict[str, Any], classes: Any) -> BoostingLoss:
    objective = learner["objective"]["name"]
    if objective in ("binary:logistic", "binary:logitraw"):
        return Logistic(np.array([0, 1]) if classes is None else classes)
    if objective in ("multi:softprob", "multi:softmax"):
        count = int(learner["learner_model_param"]["num_class"])
        return Softmax(np.arange(count) if classes is None else classes, 2.0)
    if objective == "reg:squarederror":
        return Squared()
    if objective == "count:poisson":
        return Poisson(float(learner["objective"]["poisson_regression_param"]["max_delta_step"]))
    if objective == "reg:absoluteerror":
        return Quantile(0.5)
    if objective == "reg:quantileerror":
        levels = json.loads(str(learner["objective"]["quantile_loss_param"]["quantile_alpha"]).replace("'", ""))
        if np.size(levels) == 1:
            return Quantile(float(np.ravel(levels)[0]))
    raise refuse_objective("XGBoost", objective, SUPPORTED)


def _base(learner: dict[str, Any], loss: BoostingLoss) -> NDArray[np.float64]:
    """The margin before the first tree: XGBoost keeps it as a prediction, in text."""
    score = np.ravel(json.loads(str(learner["learner_model_param"]["base_score"]))).astype(np.float64)
    if isinstance(loss, Logistic | Poisson) and learner["objective"]["name"] != "binary:logitraw":
        score = loss.link(score)
    return np.broadcast_to(score, (loss.outputs,)).copy()


def _settings(booster: dict[str, Any]) -> dict[str, str]:
    """The parameters of tree training, wherever this kind of booster keeps them."""
    inner = booster.get("gbtree", booster)
    return dict(inner["tree_train_param"])


def _parameters(config: dict[str, Any], learner: dict[str, Any], seed: int) -> dict[str, Any]:
    """What `xgboost.train` is to be called with to train a native booster again."""
    outer = config["gradient_booster"]
    inner = outer.get("gbtree", outer)
    given = {"objective": learner["objective"]["name"], "booster": outer["name"], "verbosity": 0}
    given |= {k: v for k, v in inner["tree_train_param"].items() if v != "" and "sparse" not in k}
    given |= {"seed": int(config["generic_param"]["seed"]) or seed, **outer.get("dart_train_param", {})}
    given |= {"tree_method": inner["gbtree_train_param"]["tree_method"]}
    given |= {"num_parallel_tree": inner["gbtree_model_param"]["num_parallel_tree"]}
    given |= {k: v for name, part in learner["objective"].items() if name != "name" for k, v in part.items()}
    if config["learner_model_param"]["boost_from_average"] == "0":
        given["base_score"] = learner["learner_model_param"]["base_score"]
    classes = int(learner["learner_model_param"]["num_class"])
    return given | ({"num_class": classes} if classes else {})


def _unrecorded(kind: str, settings: dict[str, str], config: dict[str, Any]) -> tuple[str, ...]:
    """What XGBoost did in training and keeps no record of."""
    reweighted = config["objective"].get("reg_loss_param", {}).get("scale_pos_weight", "1")
    found = {
        "DART drops trees while it trains": kind == "dart",
        "subsample samples rows": float(settings.get("subsample", 1)) < 1,
        "monotone constraints clip leaves": "1" in settings.get("monotone_constraints", ""),
        "positives were reweighted (scale_pos_weight)": float(reweighted) != 1,
    }
    return tuple(what for what, happened in found.items() if happened)
