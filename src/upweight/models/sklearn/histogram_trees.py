"""scikit-learn's histogram gradient boosting, whose leaves are in private attributes."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.models.estimator_clones import retrain_clone
from upweight.models.sklearn.boosting_losses import loss_of
from upweight.models.sklearn.tree_leaves import histogram_boosting_with, writer
from upweight.models.tree_inputs import TreeInputs
from upweight.models.tree_spec import TreeSpec, active, class_weights_of, fixed_class_weights
from upweight.trees.boosting import LeafRule
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.elementwise_losses import Gamma
from upweight.trees.ensemble import ensemble_of
from upweight.trees.losses import Poisson

Array = NDArray[np.float64]
HISTOGRAM_LOSSES = "squared_error, log_loss, poisson, gamma, quantile and absolute_error"


def histogram_spec(estimator: Any, train: Examples, inputs: TreeInputs) -> TreeSpec:
    """HistGradientBoosting*: leaves are in private attributes; `read_trees` compares the margins with public ones."""
    loss = loss_of(estimator, HISTOGRAM_LOSSES)
    rounds = len(estimator._predictors)
    numbered_trees, values = _numbered(tree for step in estimator._predictors for tree in step)
    base = np.ravel(estimator._baseline_prediction)
    outputs = np.tile(np.arange(loss.outputs), rounds)
    ensemble = ensemble_of(values, np.repeat(np.arange(rounds), loss.outputs), outputs, base)

    def leaf_numbers(x: Any) -> NDArray[Any]:
        prepared = np.ascontiguousarray(estimator._preprocess_X(x, reset=False))
        bitsets, bitset_of_column = estimator._bin_mapper.make_known_categories_bitsets()
        leaves = [tree.predict(prepared, bitsets, bitset_of_column.astype(np.uint32), 1) for tree in numbered_trees]
        return np.stack(leaves, axis=1).astype(np.intp)

    def margins_of(fitted: Any, x: Any) -> Array:
        if loss.classes is not None:
            return np.asarray(fitted.decision_function(x))
        predicted = np.asarray(fitted.predict(x))
        return np.log(predicted) if isinstance(loss, Poisson | Gamma) else predicted

    class_weights, fixed_settings, notes = _class_weights(estimator, loss, train)

    def retrain_estimator(x: Any, y: Any, weights: Any, seed: int) -> Any:
        return retrain_clone(estimator, x, y, weights, seed, max_iter=rounds, early_stopping=False, **fixed_settings)

    # A tree that found no split has one leaf, whose value stays at 0 whatever its gradients are.
    is_split = np.repeat([len(v) > 1 for v in values], [len(v) for v in values])
    l2 = np.where(is_split, float(estimator.l2_regularization), np.inf)

    stops_early = bool(getattr(estimator, "do_early_stopping_", False))
    effects = {
        "early stopping held rows out": stops_early and estimator.validation_fraction is not None,
        "monotone constraints clip leaves": estimator.monotonic_cst is not None,
    }
    return TreeSpec(
        ensemble=ensemble,
        loss=loss,
        inputs=inputs,
        leaf_numbers=leaf_numbers,
        margins=partial(margins_of, estimator),
        raw=margins_of,
        retrain_estimator=retrain_estimator,
        rule=LeafRule(estimator.learning_rate, l2),
        unrecorded=active(effects),
        splits=estimator._predictors,
        threads=True,
        class_weights=class_weights,
        fits_base=True,
        notes=notes,
        write=writer(histogram_boosting_with, estimator, margins_of),
    )


def _numbered(trees: Iterable[Any]) -> tuple[list[Any], list[Array]]:
    """Copies of the trees that predict the number of an example's leaf, and the leaf values of the trees."""
    numbered_trees, values = [], []
    for tree in trees:
        numbered = copy.deepcopy(tree)
        is_leaf = numbered.nodes["is_leaf"].astype(bool)
        values.append(tree.nodes["value"][is_leaf].astype(np.float64))
        numbered.nodes["value"][is_leaf] = np.arange(is_leaf.sum())
        numbered_trees.append(numbered)
    return numbered_trees, values


def _class_weights(
    estimator: Any, loss: BoostingLoss, train: Examples
) -> tuple[Array | None, dict[str, Any], tuple[str, ...]]:
    """The weights of the classes, the settings that retrain with them, and the notes that say so."""
    class_weight = getattr(estimator, "class_weight", None)
    positions, labels = np.arange(loss.outputs), None
    if loss.classes is not None and train.y is not None:  # the keys of `class_weight` are positions among the classes
        positions, labels = np.arange(len(loss.classes)), loss.class_positions(train.y)
    class_weights = class_weights_of(class_weight, positions, labels)
    return class_weights, *fixed_class_weights(class_weight, positions, class_weights)
