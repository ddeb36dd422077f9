"""LightGBM: `Booster` and the estimators of its scikit-learn interface."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.measurement import Measurement
from upweight.models.estimator_clones import unfitted_clone
from upweight.models.fitted_estimators import not_fitted
from upweight.models.tree_inputs import TreeInputs
from upweight.models.tree_reading import known_format, library_of, read_trees, unsupported_objective
from upweight.models.tree_spec import TreeSpec, WrittenLeaves, class_weights_of, fixed_class_weights, times_classes
from upweight.trees.boosting import LeafRule
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.elementwise_losses import Gamma, SoftLabels, Tweedie
from upweight.trees.ensemble import TreeEnsemble, ensemble_of
from upweight.trees.losses import Logistic, OneVsAll, Poisson, Quantile, Softmax, Squared
from upweight.trees.model import TreeModel
from upweight.trees.residual_losses import Fair, Huber

Array = NDArray[np.float64]
SUPPORTED = (
    "regression (l2), binary, multiclass, multiclassova, cross_entropy, poisson, gamma, tweedie, huber, fair, "
    "quantile and regression_l1"
)
# Objectives that are refused for a reason of their own.
REASONS = {
    "mape": "its leaves are re-fitted by a weighted median",
    "cross_entropy_lambda": "weights are part of its loss and not factors of it",
}
# Settings that stop training early or count trees. Retraining makes as many trees as the model has.
EARLY_STOPPING = ("early_stopping_round", "early_stopping_rounds", "early_stopping", "n_iter_no_change")
TREE_COUNTS = ("n_estimators", "num_iterations", "num_iteration", "n_iter", "num_boost_round", "num_trees", "max_iter")
LEFT_OUT = (*EARLY_STOPPING, *TREE_COUNTS, "early_stopping_min_delta", "data", "valid", "task")
SEEDS = {"seed", "random_seed", "random_state"}
CATEGORICAL = "=="  # the decision type of a split by category


def reads(estimator: Any) -> bool:
    """Whether the estimator, or the last step of a pipeline, comes from LightGBM."""
    return library_of(estimator) == "lightgbm"


def read(estimator: Any, train: Examples, measure: Measurement, *, loss: BoostingLoss | None = None) -> TreeModel:
    """A fitted LGBMClassifier, LGBMRegressor or Booster, or a pipeline that ends in one."""
    return read_trees(_read_spec, estimator, train, measure, loss)


@dataclass(frozen=True, eq=False)
class _ClassWeights:
    """The factor of each class's weights in a LightGBM training; None for 1.

    Attributes:
        in_leaves: (classes,) in the sums of leaves.
        in_base: (classes,) in the constant that boosting starts from. `class_weight` becomes sample weights, which
            count in it; `scale_pos_weight` and `is_unbalance` do not.
        fixed_settings: settings with which retraining uses the same weights of classes.
        notes: warnings for the reader of scores.
    """

    in_leaves: Array | None = None
    in_base: Array | None = None
    fixed_settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, estimator: Any, parameters: dict[str, str], loss: BoostingLoss, train: Examples) -> _ClassWeights:
        """The weights of the classes in the training of this estimator or Booster."""
        if loss.classes is None:
            return cls()
        class_weight = getattr(estimator, "class_weight", None)
        by_setting = class_weights_of(class_weight, loss.classes, train.y)
        fixed_settings, notes = fixed_class_weights(class_weight, loss.classes, by_setting)
        in_leaves = by_setting
        is_unbalance = parameters.get("is_unbalance") == "1"
        scale = float(parameters.get("scale_pos_weight") or 1)
        if parameters.get("objective") == "binary" and (is_unbalance or scale != 1):
            factors = np.array([1.0, scale])
            counts = (
                np.bincount(loss.class_positions(train.y), minlength=2)
                if is_unbalance and train.y is not None
                else None
            )
            if counts is not None and counts.all():
                factors *= counts.max() / counts
            in_leaves = factors if by_setting is None else by_setting * factors
        if in_leaves is None:
            return cls()
        if is_unbalance:
            notes += (
                "is_unbalance: the classes keep the weights of the full training set when an example is removed. "
                "Retraining counts the classes anew.",
            )
        in_base = np.ones(len(in_leaves)) if by_setting is None else by_setting
        return cls(in_leaves, in_base, fixed_settings, notes)

    def of_base(self, loss: BoostingLoss, train: Examples) -> Array | None:
        """The mean of the targets (K,) under the weights that the base is fitted with; None without labels."""
        if train.y is None:
            return None
        targets = loss.encode(train.y).T
        weights = np.ones(len(train)) if train.weights is None else train.weights
        weights = times_classes(weights, self.in_base, targets)
        return np.asarray(targets @ weights / weights.sum())


def _read_spec(estimator: Any, train: Examples, steps: Any, loss: BoostingLoss | None) -> TreeSpec:
    """The trees of a fitted LGBMClassifier, LGBMRegressor or Booster; `steps` come before it in a pipeline."""
    import lightgbm

    is_native = hasattr(estimator, "dump_model")
    if not is_native and not getattr(estimator, "fitted_", False):
        raise not_fitted(type(estimator).__name__)
    booster = estimator if is_native else estimator.booster_
    library = f"LightGBM {lightgbm.__version__}"
    with known_format(library):
        parameters = dict(re.findall(r"^\[(\w+): ?(.*)\]$", booster.model_to_string(num_iteration=1), re.MULTILINE))
        rounds = booster.best_iteration if booster.best_iteration > 0 else booster.current_iteration()
        dumped = booster.dump_model(num_iteration=rounds)
        if dumped["average_output"]:
            raise ValueError(
                "LightGBM's boosting='rf' is not supported; train scikit-learn's random forest or extra trees instead"
            )
        loss = loss or _loss(dumped, parameters, None if is_native else getattr(estimator, "classes_", None))
        classes = _ClassWeights.of(estimator, parameters, loss, train)
        ensemble, rule, other_l2 = _leaves(dumped["tree_info"], parameters, loss, classes.of_base(loss, train))

    def leaf_numbers(x: Any) -> NDArray[Any]:
        return np.asarray(booster.predict(x, pred_leaf=True, num_iteration=rounds)).reshape(-1, ensemble.trees)

    def retrain_estimator(x: Any, y: Any, weights: Any, seed: int) -> Any:
        # Seed 0 stands for the run that made the model: without a seed, LightGBM uses its own default seeds.
        if is_native:
            return lightgbm.train(_native_settings(booster, seed), lightgbm.Dataset(x, y, weight=weights), rounds)
        settings = {**dict.fromkeys(EARLY_STOPPING), **dict.fromkeys(TREE_COUNTS, rounds), **classes.fixed_settings}
        categories = booster.params.get("categorical_column", "auto")  # as they were passed to `fit`
        new = unfitted_clone(estimator, seed or None, **settings)
        return new.fit(x, y, sample_weight=weights, categorical_feature=categories)

    return TreeSpec(
        ensemble=ensemble,
        loss=loss,
        inputs=_inputs(booster, steps),
        leaf_numbers=leaf_numbers,
        margins=lambda x: booster.predict(x, raw_score=True, num_iteration=rounds),
        raw=lambda new, x: getattr(new, "booster_", new).predict(x, raw_score=True),
        retrain_estimator=retrain_estimator,
        rule=rule,
        other_l2=other_l2,
        unrecorded=_unrecorded(estimator, parameters, dumped["tree_info"][: loss.outputs]),
        splits=booster.model_to_string(num_iteration=rounds).partition("\nTree=0")[2].partition("\nend of trees")[0],
        library=library,
        threads=parameters.get("num_threads") != "1",
        class_weights=classes.in_leaves,
        base_class_weights=classes.in_base,
        fits_base=_fits_base(parameters, loss),
        notes=classes.notes,
        write=partial(_written, estimator, rounds),
    )


def _written(estimator: Any, rounds: int, leaves: WrittenLeaves) -> tuple[Any, Callable[[Any], Array]]:
    """A copy of the estimator with these leaf values, and its raw predictions."""
    new = pickle.loads(pickle.dumps(estimator))  # LightGBM's own copy of a Booster loses its settings
    booster, ensemble = new if hasattr(new, "dump_model") else new.booster_, leaves.ensemble
    for tree in range(ensemble.trees):
        values = ensemble.values[ensemble.leaves_of(tree), 0]
        if ensemble.steps[tree] == 0:  # the first trees hold the constant that boosting started from
            values = values + ensemble.base[ensemble.outputs[tree]]
        for leaf, value in enumerate(values.tolist()):
            booster.set_leaf_output(tree, leaf, value)
    return new, lambda x: booster.predict(x, raw_score=True, num_iteration=rounds)


def _native_settings(booster: Any, seed: int) -> dict[str, Any]:
    """The training settings of a Booster, as the user gave them or read back from a model file with their types."""
    settings = {name: value for name, value in booster.params.items() if name not in LEFT_OUT}
    if seed and not SEEDS & settings.keys():
        settings["seed"] = seed
    return settings


def _inputs(booster: Any, steps: Any) -> TreeInputs:
    """The columns of the fit. LightGBM calls columns without names Column_0, Column_1, …"""
    names = tuple(booster.feature_name())
    is_numbered = all(re.fullmatch(r"Column_\d+", name) for name in names)
    return TreeInputs(steps, booster.num_feature(), None if steps or is_numbered else names)


def _loss(dumped: dict[str, Any], parameters: dict[str, str], classes: Any) -> BoostingLoss:
    """The loss that LightGBM's objective names."""
    objective, *settings = str(dumped.get("objective", "none")).split()
    options = dict(setting.split(":") for setting in settings if ":" in setting)
    count, sigmoid = int(options.get("num_class", 2)), float(options.get("sigmoid", 1))
    classes = np.arange(count) if classes is None else classes
    makers: dict[str, Callable[[], BoostingLoss]] = {
        "binary": lambda: Logistic(classes, sigmoid),
        "multiclass": lambda: Softmax(classes, count / (count - 1)),
        "multiclassova": lambda: OneVsAll(classes, sigmoid),
        "cross_entropy": SoftLabels,
        "regression": Squared,
        "poisson": lambda: Poisson(float(parameters.get("poisson_max_delta_step", 0.7))),
        "gamma": Gamma,
        "tweedie": lambda: Tweedie(float(parameters.get("tweedie_variance_power", 1.5))),
        "huber": lambda: Huber(float(parameters.get("alpha", 0.9))),
        "fair": lambda: Fair(float(parameters.get("fair_c", 1.0))),
        "quantile": lambda: Quantile(float(parameters["alpha"])),
        "regression_l1": lambda: Quantile(0.5),
    }
    if objective not in makers or "sqrt" in settings:
        described = " ".join([objective, *settings])
        raise unsupported_objective("LightGBM", described, SUPPORTED, reason=REASONS.get(objective, ""))
    return makers[objective]()


def _leaves(
    trees: list[dict[str, Any]], parameters: dict[str, str], loss: BoostingLoss, mean_target: Array | None
) -> tuple[TreeEnsemble, LeafRule, Array | None]:
    """The ensemble, how its leaves were made, and another l2 for leaves below a categorical split.

    `mean_target` (K,) is the mean of the targets that the base is fitted to; None if the training set has no labels.
    """
    leaves = [sorted(_walk(tree["tree_structure"], False)) for tree in trees]
    values = [np.array([value for _, value, _ in of_tree], dtype=np.float64) for of_tree in leaves]
    base = _base(parameters, loss, mean_target)
    for output in range(min(loss.outputs, len(values))):
        if len(values[output]) == 1:  # a first tree without a split is that constant, whatever the settings say
            base[output] = values[output][0]
        # LightGBM adds the constant that it starts from to the leaves of the first trees.
        values[output] = values[output] - base[output]
    outputs = np.arange(len(trees)) % loss.outputs
    ensemble = ensemble_of(values, np.arange(len(trees)) // loss.outputs, outputs, base)
    below_category = np.array([categorical for of_tree in leaves for *_, categorical in of_tree], dtype=bool)
    # The only leaf of a tree that found no split takes no step, whatever its gradients are.
    is_split = np.repeat([len(of_tree) > 1 for of_tree in leaves], [len(of_tree) for of_tree in leaves])
    l2 = np.where(is_split, float(parameters.get("lambda_l2", 0)), np.inf)
    rule = LeafRule(
        learning_rate=float(parameters.get("learning_rate", 0.1)),
        l2=l2,
        l1=float(parameters.get("lambda_l1", 0)),
        max_step=float(parameters.get("max_delta_step", 0)),
    )
    if not below_category.any():
        return ensemble, rule, None
    return ensemble, rule, np.where(below_category, l2 + float(parameters.get("cat_l2", 10)), l2)


def _base(parameters: dict[str, str], loss: BoostingLoss, mean_target: Array | None) -> Array:
    """The constant that boosting started from: the best one for the training set, or 0."""
    return np.zeros(loss.outputs) if mean_target is None or not _fits_base(parameters, loss) else loss.link(mean_target)


def _fits_base(parameters: dict[str, str], loss: BoostingLoss) -> bool:
    """Whether boosting started from the best constant for the training set."""
    is_custom = parameters.get("objective", "custom") in ("custom", "none", "None", "")
    return parameters.get("boost_from_average") == "1" and loss.differentiable and not is_custom


def _walk(node: dict[str, Any], categorical: bool) -> list[tuple[int, float, bool]]:
    """(leaf number, value, whether its parent splits by category) of every leaf below a node."""
    if "split_index" not in node:
        return [(node.get("leaf_index", 0), node["leaf_value"], categorical)]
    by_category = node["decision_type"] == CATEGORICAL
    return _walk(node["left_child"], by_category) + _walk(node["right_child"], by_category)


def _unrecorded(estimator: Any, parameters: dict[str, str], first_round: list[dict[str, Any]]) -> tuple[str, ...]:
    """What LightGBM did in training but did not record; `first_round` are the trees of the first round."""

    def number(name: str, default: float) -> float:
        return float(parameters.get(name) or default)

    effects = {
        "DART drops trees while it trains": parameters.get("boosting") == "dart",
        "GOSS samples rows by gradient": "goss" in (parameters.get("boosting"), parameters.get("data_sample_strategy")),
        "bagging_fraction samples rows": number("bagging_freq", 0) > 0
        and min(number(f"{side}bagging_fraction", 1) for side in ("", "pos_", "neg_")) < 1,
        "path_smooth pulls leaf values towards those of their parents": number("path_smooth", 0) > 0,
        "monotone constraints clip leaves": "1" in parameters.get("monotone_constraints", ""),
        "is_unbalance or scale_pos_weight gave every example another weight for each class": (
            parameters.get("is_unbalance") == "1" or number("scale_pos_weight", 1) != 1
        )
        and parameters.get("objective") == "multiclassova",
        "class_weight gave weights to the labels of a regression": getattr(estimator, "class_weight", None) is not None
        and not hasattr(estimator, "classes_"),
        "gradients were quantised": parameters.get("use_quantized_grad") == "1",
        "a class without a useful split got its constant after the first round": len(first_round) > 1
        and parameters.get("boost_from_average") != "1"
        and any(tree["num_leaves"] == 1 for tree in first_round),
    }
    return tuple(effect for effect, is_active in effects.items() if is_active)
