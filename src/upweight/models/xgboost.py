"""XGBoost: `Booster` and the estimators of its scikit-learn interface."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.input_kinds import columns_of
from upweight.core.measurement import Measurement
from upweight.models.estimator_clones import retrain_clone
from upweight.models.fitted_estimators import not_fitted
from upweight.models.tree_inputs import TreeInputs
from upweight.models.tree_reading import known_format, library_of, read_trees, unsupported_objective
from upweight.models.tree_spec import TreeSpec, leaf_lookup
from upweight.trees.boosting import LeafRule
from upweight.trees.boosting_loss import BoostingLoss, LogLinkLoss
from upweight.trees.elementwise_losses import Gamma, SoftLabels, SquaredLog, Tweedie
from upweight.trees.ensemble import TreeEnsemble, ensemble_of
from upweight.trees.losses import Logistic, Poisson, Quantile, Softmax, Squared
from upweight.trees.model import TreeModel
from upweight.trees.residual_losses import PseudoHuber

Array = NDArray[np.float64]
SUPPORTED = (
    "reg:squarederror, reg:logistic, binary:logistic, binary:logitraw, multi:softprob, multi:softmax, count:poisson, "
    "reg:gamma, reg:tweedie, reg:pseudohubererror, reg:squaredlogerror, reg:quantileerror and reg:absoluteerror"
)
# Objectives that are refused for a reason of their own.
REASONS = {
    "binary:hinge": "it has no second derivative",
    "survival:cox": "its loss belongs to pairs of examples",
    "survival:aft": "its labels are intervals",
}


def reads(estimator: Any) -> bool:
    """Whether the estimator, or the last step of a pipeline, comes from XGBoost."""
    return library_of(estimator) == "xgboost"


def read(estimator: Any, train: Examples, measure: Measurement, *, loss: BoostingLoss | None = None) -> TreeModel:
    """A fitted XGBClassifier, XGBRegressor or Booster, or a pipeline that ends in one."""
    return read_trees(_read_spec, estimator, train, measure, loss)


@dataclass(frozen=True)
class _BoosterState:
    """XGBoost's description of a booster, as parsed JSON.

    Attributes:
        learner: the trees and what prediction needs.
        config: the training settings.
        kind: gbtree or dart.
        rounds: the boosting rounds that predict.
    """

    learner: dict[str, Any]
    config: dict[str, Any]
    kind: str
    rounds: int

    @property
    def tree_settings(self) -> dict[str, str]:
        """The settings of tree training, wherever this kind of booster has them."""
        booster = self.config["gradient_booster"]
        return dict(booster.get("gbtree", booster)["tree_train_param"])

    @property
    def tree_part(self) -> dict[str, Any]:
        """The trees and the round that each of them belongs to."""
        booster = self.learner["gradient_booster"]
        part: dict[str, Any] = booster["gbtree"]["model"] if self.kind == "dart" else booster["model"]
        return part

    @property
    def trees(self) -> list[dict[str, Any]]:
        """The trees that predict."""
        return list(self.tree_part["trees"][: int(self.tree_part["iteration_indptr"][self.rounds])])


def _read_spec(estimator: Any, train: Examples, steps: Any, own_loss: BoostingLoss | None) -> TreeSpec:
    """The trees of a fitted XGBClassifier, XGBRegressor or Booster; `steps` come before it in a pipeline."""
    import xgboost

    is_native = hasattr(estimator, "save_raw")
    if not is_native and not estimator.__sklearn_is_fitted__():
        raise not_fitted(type(estimator).__name__)
    booster = estimator if is_native else estimator.get_booster()
    library = f"XGBoost {xgboost.__version__}"
    with known_format(library):
        state = _state(booster, is_native)
        loss = own_loss or _loss(state.learner, None if is_native else getattr(estimator, "classes_", None), train.y)
        leaf_nodes = [np.flatnonzero(np.array(tree["left_children"]) == -1) for tree in state.trees]
        ensemble = _ensemble(state, leaf_nodes, loss)
        settings, threads = state.tree_settings, int(state.config["generic_param"]["nthread"])
    look_up = leaf_lookup(leaf_nodes)
    data = _data_of(booster, getattr(estimator, "missing", np.nan))
    rounds = (0, state.rounds)

    def leaf_numbers(x: Any) -> NDArray[Any]:
        nodes = booster.predict(data(x), pred_leaf=True, iteration_range=rounds, strict_shape=True)
        return look_up(nodes.reshape(len(nodes), -1))

    def retrain_estimator(x: Any, y: Any, weights: Any, seed: int) -> Any:
        if is_native and own_loss is not None:
            raise ValueError(
                "an XGBoost Booster does not hold an objective of your own (obj=), so it cannot be trained again; "
                "train an XGBRegressor(objective=…) with the same function, which holds it"
            )
        if is_native:
            return xgboost.train(_native_settings(state, seed), data(x, label=y, weight=weights), state.rounds)
        # A random forest is one round, and its n_estimators are the trees of that round.
        is_forest = isinstance(estimator, xgboost.XGBRFClassifier | xgboost.XGBRFRegressor)
        changed = {} if is_forest else {"n_estimators": state.rounds, "early_stopping_rounds": None}
        return retrain_clone(estimator, x, y, weights, seed, **changed)

    trees_per_step = len(state.trees) / max(state.rounds * loss.outputs, 1)
    names = None if steps or booster.feature_names is None else tuple(booster.feature_names)
    return TreeSpec(
        ensemble=ensemble,
        loss=loss,
        inputs=TreeInputs(steps, booster.num_features(), names),
        leaf_numbers=leaf_numbers,
        margins=lambda x: booster.predict(data(x), output_margin=True, iteration_range=rounds),
        raw=lambda new, x: (new if is_native else new.get_booster()).predict(data(x), output_margin=True),
        retrain_estimator=retrain_estimator,
        rule=LeafRule(
            learning_rate=float(settings["eta"]) / max(trees_per_step, 1.0),
            l2=_leaf_l2(ensemble, float(settings["lambda"])),
            l1=float(settings["alpha"]),
            max_step=float(settings["max_delta_step"]),
        ),
        unrecorded=_unrecorded(state, loss),
        splits=state.trees,
        library=library,
        threads=threads != 1,
        class_weights=_class_weights(state, loss),
        notes=_base_notes(state, loss),
    )


def _state(booster: Any, is_native: bool) -> _BoosterState:
    """The parsed booster. Raises ValueError for boosters that are not sums of trees with one output per leaf."""
    learner = json.loads(booster.save_raw("json"))["learner"]
    config = json.loads(booster.save_config())["learner"]
    kind = learner["gradient_booster"]["name"]
    if kind == "gblinear":
        raise ValueError(
            "XGBoost's booster='gblinear' is a linear model without trees and is not supported; fit a linear model of "
            "scikit-learn instead"
        )
    rounds = booster.num_boosted_rounds()
    if not is_native and booster.attr("best_iteration") is not None:
        rounds = int(booster.best_iteration) + 1  # the rounds that the estimator itself predicts with
    state = _BoosterState(learner, config, kind, rounds)
    if any(int(tree["tree_param"].get("size_leaf_vector", 1)) > 1 for tree in state.trees):
        raise ValueError(
            "XGBoost's multi_strategy='multi_output_tree' is not supported: its leaves hold several numbers. Train "
            "with 'one_output_per_tree' (several targets work with the objective reg:squarederror), or one booster for "
            "each target"
        )
    return state


def _ensemble(state: _BoosterState, leaf_nodes: list[NDArray[np.intp]], loss: BoostingLoss) -> TreeEnsemble:
    """The leaf values. DART multiplies each tree by its own weight."""
    tree_weights = state.learner["gradient_booster"].get("weight_drop", np.ones(len(state.trees)))
    values = [
        tree_weight * np.array(tree["split_conditions"], dtype=np.float64)[leaves]
        for tree, leaves, tree_weight in zip(state.trees, leaf_nodes, tree_weights, strict=False)
    ]
    first_trees = state.tree_part["iteration_indptr"][: state.rounds + 1]
    steps = np.repeat(np.arange(state.rounds), np.diff(first_trees))
    outputs = np.array(state.tree_part["tree_info"][: len(state.trees)])
    return ensemble_of(values, steps, outputs, _base(state.learner, loss))


def _leaf_l2(ensemble: TreeEnsemble, l2: float) -> Array:
    """The l2 of every leaf. An only leaf whose second derivatives sum to less than min_child_weight takes no step."""
    is_only = np.diff(ensemble.starts)[ensemble.tree_of] == 1
    return np.where(is_only & (ensemble.values == 0).all(axis=1), np.inf, l2)


def _data_of(booster: Any, missing: Any) -> Callable[..., Any]:
    """A function from inputs to XGBoost's DMatrix."""
    import xgboost

    def data(x: Any, **more: Any) -> Any:
        if columns_of(x) is None and booster.feature_types is not None:  # an array does not say which are categories
            more["feature_types"] = booster.feature_types
        return xgboost.DMatrix(x, enable_categorical=True, missing=missing, **more)

    return data


def _loss(learner: dict[str, Any], classes: Any, labels: Any) -> BoostingLoss:
    """The loss that XGBoost's objective names, for these labels of the training set."""
    settings, model = learner["objective"], learner["learner_model_param"]
    objective, count, targets = settings["name"], int(model["num_class"]), int(model.get("num_target", 1))
    is_soft = classes is None and not np.isin(labels, (0, 1)).all()
    classes = np.arange(max(count, 2)) if classes is None else classes
    makers: dict[str, Callable[[], BoostingLoss]] = {
        "binary:logistic": lambda: SoftLabels() if is_soft else Logistic(classes),
        "binary:logitraw": lambda: SoftLabels() if is_soft else Logistic(classes),
        "reg:logistic": SoftLabels,
        "multi:softprob": lambda: Softmax(classes, 2.0),
        "multi:softmax": lambda: Softmax(classes, 2.0),
        "reg:squarederror": lambda: Squared(targets),
        "count:poisson": lambda: Poisson(float(settings["poisson_regression_param"]["max_delta_step"])),
        "reg:gamma": Gamma,
        "reg:tweedie": lambda: Tweedie(float(settings["tweedie_regression_param"]["tweedie_variance_power"])),
        "reg:pseudohubererror": lambda: PseudoHuber(float(settings["pseudo_huber_param"]["huber_slope"])),
        "reg:squaredlogerror": SquaredLog,
        "reg:absoluteerror": lambda: Quantile(0.5),
        "reg:quantileerror": lambda: Quantile(_quantile_levels(learner)[0]),
    }
    if objective not in makers or (objective == "reg:quantileerror" and len(_quantile_levels(learner)) > 1):
        raise unsupported_objective("XGBoost", objective, SUPPORTED, reason=REASONS.get(objective, ""))
    if targets > 1 and objective != "reg:squarederror":
        raise ValueError(
            f"XGBoost's {objective} with several targets is not supported, got {targets}; train with "
            "objective='reg:squarederror', or one booster for each target"
        )
    return makers[objective]()


def _quantile_levels(learner: dict[str, Any]) -> list[float]:
    """The levels of a quantile regression, which XGBoost writes as text."""
    levels = json.loads(str(learner["objective"]["quantile_loss_param"]["quantile_alpha"]).replace("'", ""))
    return [float(level) for level in np.ravel(levels)]


def _base(learner: dict[str, Any], loss: BoostingLoss) -> NDArray[np.float64]:
    """The margin before the first tree. XGBoost stores it as a prediction, in text."""
    score = np.ravel(json.loads(str(learner["learner_model_param"]["base_score"]))).astype(np.float64)
    if (
        isinstance(loss, Logistic | SoftLabels | LogLinkLoss | Poisson)
        and learner["objective"]["name"] != "binary:logitraw"
    ):
        score = loss.link(score)
    return np.broadcast_to(score, (loss.outputs,)).copy()


def _native_settings(state: _BoosterState, seed: int) -> dict[str, Any]:
    """The parameters of `xgboost.train` that train a Booster again."""
    config, learner = state.config, state.learner
    outer = config["gradient_booster"]
    inner = outer.get("gbtree", outer)
    settings = {"objective": learner["objective"]["name"], "booster": outer["name"], "verbosity": 0}
    settings |= {name: v for name, v in inner["tree_train_param"].items() if v != "" and "sparse" not in name}
    settings |= {"seed": int(config["generic_param"]["seed"]) or seed, **outer.get("dart_train_param", {})}
    settings |= {"tree_method": inner["gbtree_train_param"]["tree_method"]}
    settings |= {"num_parallel_tree": inner["gbtree_model_param"]["num_parallel_tree"]}
    for part, options in learner["objective"].items():
        if part != "name":
            settings |= options
    if config["learner_model_param"]["boost_from_average"] == "0":
        settings["base_score"] = learner["learner_model_param"]["base_score"]
    classes = int(learner["learner_model_param"]["num_class"])
    return settings | ({"num_class": classes} if classes else {})


def _positive_weight(state: _BoosterState) -> float:
    """The factor of the weights of positive examples in training."""
    return float(state.config["objective"].get("reg_loss_param", {}).get("scale_pos_weight", "1"))


def _class_weights(state: _BoosterState, loss: BoostingLoss) -> Array | None:
    """The factors of the two classes' weights in training; None for 1."""
    positive_weight = _positive_weight(state)
    return np.array([1.0, positive_weight]) if isinstance(loss, Logistic) and positive_weight != 1 else None


def _base_notes(state: _BoosterState, loss: BoostingLoss) -> tuple[str, ...]:
    """A note for objectives whose base XGBoost estimates in another way than by the best constant."""
    is_estimated = state.learner["learner_model_param"].get("boost_from_average", "0") == "1"
    if not is_estimated or not (isinstance(loss, PseudoHuber | SquaredLog) or _class_weights(state, loss) is not None):
        return ()
    return (
        "The base that boosting started from was estimated from the labels in one step, and is held fixed when an "
        "example is removed. Retraining estimates it anew; train with base_score=… to fix it.",
    )


def _unrecorded(state: _BoosterState, loss: BoostingLoss) -> tuple[str, ...]:
    """What XGBoost did in training but did not record."""
    settings = state.tree_settings
    effects = {
        "DART drops trees while it trains": state.kind == "dart",
        "subsample samples rows": float(settings.get("subsample", 1)) < 1,
        "monotone constraints clip leaves": "1" in settings.get("monotone_constraints", ""),
        "scale_pos_weight multiplied the weights of labels that are exactly 1, among soft labels": isinstance(
            loss, SoftLabels
        )
        and _positive_weight(state) != 1,
    }
    return tuple(effect for effect, is_active in effects.items() if is_active)
