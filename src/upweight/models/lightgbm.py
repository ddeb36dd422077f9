"""LightGBM: `Booster` and the estimators of its scikit-learn interface."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.measurement import Measurement
from upweight.models.tree_spec import (
    TreeInputs,
    TreeSpec,
    known_format,
    library_of,
    read_trees,
    refuse_objective,
    tree_model,
    unfitted_clone,
)
from upweight.trees.boosting import LeafRule
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.ensemble import TreeEnsemble, ensemble_of
from upweight.trees.losses import Logistic, Poisson, Quantile, Softmax, Squared
from upweight.trees.model import TreeModel

Array = NDArray[np.float64]
SUPPORTED = "regression (l2), binary, multiclass, poisson, quantile and regression_l1"
# What stops training early, and what counts trees: trained again, there are as many trees as there were.
STOPPING = ("early_stopping_round", "early_stopping_rounds", "early_stopping", "n_iter_no_change")
COUNTS = ("n_estimators", "num_iterations", "num_iteration", "n_iter", "num_boost_round", "num_trees", "max_iter")
NO_TRAINING = (*STOPPING, *COUNTS, "early_stopping_min_delta", "data", "valid", "task")
SEEDS = {"seed", "random_seed", "random_state"}
CATEGORICAL = "=="  # the decision of a split by category


def reads(estimator: Any) -> bool:
    """Whether it, or the last step of a pipeline, is of LightGBM."""
    return library_of(estimator) == "lightgbm"


def read(estimator: Any, train: Examples, measure: Measurement, *, loss: BoostingLoss | None = None) -> TreeModel:
    """A fitted LGBMClassifier, LGBMRegressor or Booster, or a pipeline that ends in one."""
    return read_trees(_read, estimator, train, measure, loss)


def _read(estimator: Any, train: Examples, measure: Measurement, steps: Any, loss: BoostingLoss | None) -> TreeModel:
    """A fitted LGBMClassifier, LGBMRegressor or Booster; `steps` is what comes before it in a pipeline."""
    import lightgbm

    is_native = hasattr(estimator, "dump_model")
    if not is_native and not getattr(estimator, "fitted_", False):
        raise ValueError(f"this {type(estimator).__name__} is not fitted; call fit(x, y) on the training set first")
    booster = estimator if is_native else estimator.booster_
    library = f"LightGBM {lightgbm.__version__}"
    with known_format(library):
        parameters = dict(re.findall(r"^\[(\w+): ?(.*)\]$", booster.model_to_string(num_iteration=1), re.MULTILINE))
        rounds = booster.best_iteration if booster.best_iteration > 0 else booster.current_iteration()
        dumped = booster.dump_model(num_iteration=rounds)
        if dumped["average_output"]:
            raise ValueError("boosting='rf' is not supported; scikit-learn's RandomForest and ExtraTrees are")
        loss = loss or _loss(dumped, parameters, train, None if is_native else getattr(estimator, "classes_", None))
        ensemble, rule, other = _leaves(dumped["tree_info"], parameters, loss, train)

    def leaf_numbers(x: Any) -> NDArray[Any]:
        return np.asarray(booster.predict(x, pred_leaf=True, num_iteration=rounds)).reshape(-1, ensemble.trees)

    def retrain_estimator(x: Any, y: Any, weights: Any, seed: int) -> Any:
        # Seed 0 is the run as it was: left alone, LightGBM draws from seeds of its own that no seed stands for.
        if not is_native:
            told = {**dict.fromkeys(STOPPING), **dict.fromkeys(COUNTS, rounds)}
            categories = booster.params.get("categorical_column", "auto")  # as `fit` was told them
            return unfitted_clone(estimator, seed or None, **told).fit(
                x, y, sample_weight=weights, categorical_feature=categories
            )
        # As given by the user, or read back from a model file with their types.
        kept = {k: v for k, v in booster.params.items() if k not in NO_TRAINING}
        if seed and not SEEDS & kept.keys():
            kept["seed"] = seed
        return lightgbm.train(kept, lightgbm.Dataset(x, y, weight=weights), rounds)

    spec = TreeSpec(
        ensemble=ensemble,
        loss=loss,
        leaf_numbers=leaf_numbers,
        margins=lambda x: booster.predict(x, raw_score=True, num_iteration=rounds),
        retrain_estimator=retrain_estimator,
        rule=rule,
        other_l2=other,
        unrecorded=_unrecorded(estimator, parameters, dumped["tree_info"][: loss.outputs]),
        splits=booster.model_to_string(num_iteration=rounds).partition("\nTree=0")[2].partition("\nend of trees")[0],
        library=library,
        threads=parameters.get("num_threads") != "1",
    )
    names = booster.feature_name()
    named = None if steps or all(re.fullmatch(r"Column_\d+", name) for name in names) else tuple(names)
    columns = TreeInputs(steps, booster.num_feature(), named)
    return tree_model(
        estimator, columns, spec, train, measure, lambda new, kept: _read(new, kept, measure, steps, loss)
    )


def _loss(dumped: dict[str, Any], parameters: dict[str, str], train: Examples, classes: Any) -> BoostingLoss:
    objective, *settings = str(dumped.get("objective", "none")).split()
    given = dict(setting.split(":") for setting in settings if ":" in setting)
    if objective == "binary":
        return Logistic(np.array([0, 1]) if classes is None else classes, float(given.get("sigmoid", 1)))
    if objective == "multiclass":
        count = int(given["num_class"])
        return Softmax(np.arange(count) if classes is None else classes, count / (count - 1))
    if objective == "regression" and "sqrt" not in settings:
        return Squared()
    if objective == "poisson":
        return Poisson(float(parameters.get("poisson_max_delta_step", 0.7)))
    if objective in ("quantile", "regression_l1"):
        return Quantile(float(parameters["alpha"]) if objective == "quantile" else 0.5)
    raise refuse_objective("LightGBM", " ".join([objective, *settings]), SUPPORTED)


def _leaves(
    trees: list[dict[str, Any]], parameters: dict[str, str], loss: BoostingLoss, train: Examples
) -> tuple[TreeEnsemble, LeafRule, Array | None]:
    """The ensemble, how its leaves were made, and another l2 for leaves below a categorical split."""
    found = [sorted(_walk(tree["tree_structure"], False)) for tree in trees]
    values = [np.array([value for _, value, _ in leaves], dtype=np.float64) for leaves in found]
    outputs = np.arange(len(trees)) % loss.outputs
    base = np.zeros(loss.outputs)
    own = parameters.get("objective", "custom") in ("custom", "none", "None", "")
    if parameters.get("boost_from_average") == "1" and loss.differentiable and not own and train.y is not None:
        # LightGBM adds the constant it starts from to the leaves of the first trees; it is taken out of them again.
        weights = np.ones(len(train)) if train.weights is None else train.weights
        base = loss.link(loss.encode(train.y).T @ weights / weights.sum())
    for output in range(min(loss.outputs, len(values))):
        if len(values[output]) == 1:  # nothing to split at the start: the tree is that constant, whatever was asked for
            base[output] = values[output][0]
        values[output] = values[output] - base[output]
    ensemble = ensemble_of(values, np.arange(len(trees)) // loss.outputs, outputs, base)
    below = np.array([categorical for leaves in found for *_, categorical in leaves], dtype=bool)
    l2 = np.full(len(below), float(parameters.get("lambda_l2", 0)))
    rule = LeafRule(
        learning_rate=float(parameters.get("learning_rate", 0.1)),
        l2=l2,
        l1=float(parameters.get("lambda_l1", 0)),
        max_step=float(parameters.get("max_delta_step", 0)),
    )
    return ensemble, rule, np.where(below, l2 + float(parameters.get("cat_l2", 10)), l2) if below.any() else None


def _walk(node: dict[str, Any], categorical: bool) -> list[tuple[int, float, bool]]:
    """(leaf number, value, whether its parent splits by category) of every leaf."""
    if "split_index" not in node:
        return [(node.get("leaf_index", 0), node["leaf_value"], categorical)]
    by = node["decision_type"] == CATEGORICAL
    return _walk(node["left_child"], by) + _walk(node["right_child"], by)


def _unrecorded(estimator: Any, parameters: dict[str, str], first: list[dict[str, Any]]) -> tuple[str, ...]:
    """What LightGBM did in training and keeps no record of; `first` are the trees of the first round."""

    def number(name: str, default: float) -> float:
        return float(parameters.get(name) or default)

    found = {
        "DART drops trees while it trains": parameters.get("boosting") == "dart",
        "GOSS samples rows by gradient": "goss" in (parameters.get("boosting"), parameters.get("data_sample_strategy")),
        "bagging_fraction samples rows": number("bagging_freq", 0) > 0
        and min(number(f"{side}bagging_fraction", 1) for side in ("", "pos_", "neg_")) < 1,
        "path_smooth draws leaves to their parents": number("path_smooth", 0) > 0,
        "monotone constraints clip leaves": "1" in parameters.get("monotone_constraints", ""),
        "classes were reweighted (is_unbalance, scale_pos_weight)": parameters.get("is_unbalance") == "1"
        or number("scale_pos_weight", 1) != 1,
        "class_weight reweighted the classes": getattr(estimator, "class_weight", None) is not None,
        "gradients were quantised": parameters.get("use_quantized_grad") == "1",
        "a class that nothing could be split by got its constant after the first round": len(first) > 1
        and parameters.get("boost_from_average") != "1"
        and any(tree["num_leaves"] == 1 for tree in first),
    }
    return tuple(what for what, happened in found.items() if happened)
