"""scikit-learn's trees: gradient boosting, histogram gradient boosting, random forests and extra trees."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.input_kinds import as_array
from upweight.core.measurement import Measurement
from upweight.core.model_reader import UnsupportedSettingsError
from upweight.models.estimator_clones import retrain_clone
from upweight.models.fitted_estimators import not_fitted
from upweight.models.pipeline import last_step
from upweight.models.sklearn.boosting_losses import loss_of
from upweight.models.sklearn.histogram_trees import histogram_spec
from upweight.models.sklearn.tree_leaves import forest_with, gradient_boosting_with, writer
from upweight.models.tree_inputs import TreeInputs
from upweight.models.tree_reading import read_trees
from upweight.models.tree_spec import TreeSpec, active, class_weights_of, fixed_class_weights, leaf_lookup
from upweight.trees.boosting import LeafRule
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.ensemble import ensemble_of
from upweight.trees.losses import Softmax, Squared
from upweight.trees.model import TreeModel

Array = NDArray[np.float64]
GRADIENT_LOSSES = "squared_error, log_loss, exponential, quantile and absolute_error"
# Class → the attribute that holds the trees; only a fitted estimator has it.
TREE_ATTRIBUTES = {
    "GradientBoostingClassifier": "estimators_",
    "GradientBoostingRegressor": "estimators_",
    "HistGradientBoostingClassifier": "_predictors",
    "HistGradientBoostingRegressor": "_predictors",
    "RandomForestClassifier": "estimators_",
    "RandomForestRegressor": "estimators_",
    "ExtraTreesClassifier": "estimators_",
    "ExtraTreesRegressor": "estimators_",
    "DecisionTreeClassifier": "tree_",
    "DecisionTreeRegressor": "tree_",
    "ExtraTreeClassifier": "tree_",
    "ExtraTreeRegressor": "tree_",
}


def reads(estimator: Any) -> bool:
    """Whether the estimator, or the last step of a pipeline, is one of scikit-learn's trees."""
    return type(last_step(estimator)).__name__ in TREE_ATTRIBUTES


def read(estimator: Any, train: Examples, measure: Measurement, *, loss: BoostingLoss | None = None) -> TreeModel:
    """A fitted estimator of scikit-learn, or a pipeline that ends in one."""
    final = last_step(estimator)
    if loss is not None and hasattr(final, TREE_ATTRIBUTES[type(final).__name__]):
        raise TypeError(
            f"{type(final).__name__} already has a loss; leave out loss=, which is for boosters that were trained "
            "with a custom objective"
        )
    return read_trees(_read_spec, estimator, train, measure, loss)


def _read_spec(estimator: Any, train: Examples, steps: Any, loss: BoostingLoss | None) -> TreeSpec:
    """The trees of a fitted estimator; `steps` come before it in a pipeline. `loss` is not used: it has its own."""
    kind = type(estimator).__name__
    if not hasattr(estimator, TREE_ATTRIBUTES[kind]):
        raise not_fitted(type(estimator).__name__)
    names = getattr(estimator, "feature_names_in_", None)
    inputs = TreeInputs(steps, estimator.n_features_in_, None if names is None or steps else tuple(map(str, names)))
    if kind.startswith("Hist"):
        return histogram_spec(estimator, train, inputs)
    if kind.startswith("Gradient"):
        return _gradient_spec(estimator, train, inputs)
    return _forest_spec(estimator, train, inputs)


def _gradient_spec(estimator: Any, train: Examples, inputs: TreeInputs) -> TreeSpec:
    """GradientBoosting*: all that is needed is in public attributes."""
    loss = loss_of(estimator, GRADIENT_LOSSES)
    if isinstance(loss, Softmax):
        loss.factor = loss.outputs / (loss.outputs - 1)
    rounds, trees = len(estimator.estimators_), estimator.estimators_.ravel()
    leaf_nodes, values = _leaves(trees)
    values = [estimator.learning_rate * v for v in values]
    outputs = np.tile(np.arange(loss.outputs), rounds)
    look_up = leaf_lookup(leaf_nodes)
    ensemble = ensemble_of(values, np.repeat(np.arange(rounds), loss.outputs), outputs, np.zeros(loss.outputs))

    def leaf_numbers(x: Any) -> NDArray[Any]:
        # The single trees were fitted without column names, and warn if `x` has some.
        return look_up(estimator.apply(as_array(x) if hasattr(x, "to_numpy") else x))

    def margins_of(fitted: Any, x: Any) -> Array:
        return np.asarray(fitted.predict(x) if loss.classes is None else fitted.decision_function(x))

    margins = partial(margins_of, estimator)
    # The base is the margin of one example minus the sum of its leaf values. `read_trees` compares the margins of all
    # examples, which shows whether the base is the same for all.
    first = inputs(train.take([0]).x)
    base = margins(first) - ensemble.margins(ensemble.global_leaves(leaf_numbers(first)))
    ensemble = replace(ensemble, base=base.ravel())

    def retrain_estimator(x: Any, y: Any, weights: Any, seed: int) -> Any:
        return retrain_clone(estimator, x, y, weights, seed, n_estimators=rounds, n_iter_no_change=None)

    effects = {
        "subsample samples rows": estimator.subsample < 1,
        "early stopping held rows out": estimator.n_iter_no_change is not None,
    }
    return TreeSpec(
        ensemble=ensemble,
        loss=loss,
        inputs=inputs,
        leaf_numbers=leaf_numbers,
        margins=margins,
        raw=margins_of,
        retrain_estimator=retrain_estimator,
        rule=LeafRule(estimator.learning_rate, np.zeros(len(ensemble.values))),
        unrecorded=active(effects),
        splits=[tree.tree_ for tree in trees],
        fits_base=hasattr(estimator.init_, "fit"),  # not init="zero"
        write=writer(gradient_boosting_with, estimator, margins_of),
    )


def _forest_spec(estimator: Any, train: Examples, inputs: TreeInputs) -> TreeSpec:
    """Forests and single trees: all that is needed is in public attributes, also which rows each tree drew."""
    if estimator.n_outputs_ > 1:
        raise UnsupportedSettingsError(
            f"one target per {type(estimator).__name__} is supported, got {estimator.n_outputs_}; fit one per target"
        )
    classes = getattr(estimator, "classes_", None)
    outputs = 1 if classes is None else len(classes)
    members = np.ravel(getattr(estimator, "estimators_", [estimator]))
    leaf_nodes, values = _leaves(members)
    trees, look_up = len(leaf_nodes), leaf_lookup(leaf_nodes)
    is_bootstrap = bool(getattr(estimator, "bootstrap", False))
    ensemble = ensemble_of(
        [v / trees for v in values], np.zeros(trees, np.intp), np.zeros(trees, np.intp), np.zeros(outputs)
    )
    class_weight = getattr(estimator, "class_weight", None)
    by_sample = class_weight == "balanced_subsample" and is_bootstrap
    class_weights: Array | None = None
    fixed_settings: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    if classes is not None and not by_sample:  # without a bootstrap, "balanced_subsample" is "balanced"
        is_balanced = isinstance(class_weight, str)
        class_weights = class_weights_of("balanced" if is_balanced else class_weight, classes, train.y, train.weights)
        fixed_settings, notes = fixed_class_weights(class_weight, classes, class_weights)
    effects = {
        "leaves are medians": estimator.criterion == "absolute_error",
        "class_weight='balanced_subsample' balanced the classes anew in the sample of every tree": by_sample,
        "monotone constraints clip leaves": getattr(estimator, "monotonic_cst", None) is not None,
    }

    def retrain_estimator(x: Any, y: Any, weights: Any, seed: int) -> Any:
        return retrain_clone(estimator, x, y, weights, seed, **fixed_settings)

    def margins_of(fitted: Any, x: Any) -> Array:
        return np.asarray(fitted.predict(x) if classes is None else fitted.predict_proba(x))

    return TreeSpec(
        ensemble=ensemble,
        loss=Squared(outputs, classes),
        inputs=inputs,
        leaf_numbers=lambda x: look_up(np.reshape(estimator.apply(x), (-1, trees))),
        margins=partial(margins_of, estimator),
        raw=margins_of,
        retrain_estimator=retrain_estimator,
        draws=_draws(estimator, len(train)) if is_bootstrap else None,
        bootstrap=is_bootstrap,
        unrecorded=active(effects),
        splits=[tree.tree_ for tree in members],
        threads=getattr(estimator, "n_jobs", None) not in (None, 1),
        class_weights=class_weights,
        notes=notes,
        write=writer(forest_with, estimator, margins_of),
    )


def _draws(estimator: Any, examples: int) -> Array:
    """How often each tree drew each example, (examples, trees)."""
    draws = np.stack([np.bincount(rows, minlength=examples) for rows in estimator.estimators_samples_], axis=1)
    if len(draws) != examples:
        raise ValueError(
            f"expected the examples that the forest was fitted on, got {examples} examples and a forest that drew from "
            f"{len(draws)}; pass the same rows as to fit()"
        )
    return draws.astype(np.float64)


def _leaves(trees: Any) -> tuple[list[NDArray[np.intp]], list[Array]]:
    """The nodes of every tree that are leaves, and their values (leaves, outputs)."""
    leaf_nodes = [np.flatnonzero(tree.tree_.children_left == -1) for tree in trees]
    values = [tree.tree_.value[nodes].reshape(len(nodes), -1) for tree, nodes in zip(trees, leaf_nodes, strict=True)]
    return leaf_nodes, values
