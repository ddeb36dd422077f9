"""scikit-learn's trees: gradient boosting, histogram gradient boosting, random forests and extra trees."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.measurement import Measurement
from upweight.models.pipeline import last_step
from upweight.models.tree_spec import (
    TreeInputs,
    TreeSpec,
    leaf_lookup,
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

Array = NDArray[np.float64]
GRADIENT = "squared_error, log_loss, quantile and absolute_error"
HISTOGRAM = "squared_error, log_loss, poisson, quantile and absolute_error"
FITTED = {
    "GradientBoostingClassifier": "estimators_",
    "GradientBoostingRegressor": "estimators_",
    "HistGradientBoostingClassifier": "_predictors",
    "HistGradientBoostingRegressor": "_predictors",
    "RandomForestClassifier": "estimators_",
    "RandomForestRegressor": "estimators_",
    "ExtraTreesClassifier": "estimators_",
    "ExtraTreesRegressor": "estimators_",
}


def reads(estimator: Any) -> bool:
    """Whether it, or the last step of a pipeline, is one of scikit-learn's trees."""
    return type(last_step(estimator)).__name__ in FITTED


def read(estimator: Any, train: Examples, measure: Measurement, *, loss: BoostingLoss | None = None) -> TreeModel:
    """A fitted estimator of scikit-learn, or a pipeline that ends in one."""
    return read_trees(_read, estimator, train, measure, loss)


def _read(estimator: Any, train: Examples, measure: Measurement, steps: Any, loss: BoostingLoss | None) -> TreeModel:
    """A fitted estimator of scikit-learn; `steps` is what comes before it in a pipeline."""
    kind = type(estimator).__name__
    if not hasattr(estimator, FITTED[kind]):
        raise ValueError(f"this {kind} is not fitted; call fit(x, y) on the training set first")
    if loss is not None:
        raise TypeError(f"{kind} knows its own loss; loss= is for boosters with an objective of your own")
    reader = _histogram if kind.startswith("Hist") else _gradient if kind.startswith("Gradient") else _forest
    names = getattr(estimator, "feature_names_in_", None)
    columns = TreeInputs(steps, estimator.n_features_in_, None if names is None or steps else tuple(map(str, names)))
    return tree_model(
        estimator,
        columns,
        reader(estimator, train, columns),
        train,
        measure,
        lambda new, kept: _read(new, kept, measure, steps, loss),
    )


def _gradient(estimator: Any, train: Examples, columns: TreeInputs) -> TreeSpec:
    """GradientBoosting*: public throughout."""
    loss = _loss_of(estimator, GRADIENT)
    if isinstance(loss, Softmax):
        loss.factor = loss.outputs / (loss.outputs - 1)
    rounds, trees = len(estimator.estimators_), estimator.estimators_.ravel()
    nodes, values = _leaves(trees)
    values = [estimator.learning_rate * v for v in values]
    outputs = np.tile(np.arange(loss.outputs), rounds)
    look = leaf_lookup(nodes)
    classes = loss.classes is not None
    ensemble = ensemble_of(values, np.repeat(np.arange(rounds), loss.outputs), outputs, np.zeros(loss.outputs))

    def leaf_numbers(x: Any) -> NDArray[Any]:
        # Its single trees were fitted without column names and warn when they are given some.
        return look(estimator.apply(x.to_numpy() if hasattr(x, "to_numpy") else x))

    def margins(x: Any) -> Array:
        return np.asarray(estimator.decision_function(x) if classes else estimator.predict(x))

    # What it starts from is what its trees leave of one prediction; that it is the same for all is looked at later.
    one = columns(train.take([0]).x)
    base = margins(one) - ensemble.margins(ensemble.global_leaves(leaf_numbers(one)))
    ensemble = replace(ensemble, base=base.ravel())

    def retrain_estimator(x: Any, y: Any, weights: Any, seed: int) -> Any:
        return retrain_clone(estimator, x, y, weights, seed, n_estimators=rounds, n_iter_no_change=None)

    found = {
        "subsample samples rows": estimator.subsample < 1,
        "early stopping held rows out": estimator.n_iter_no_change is not None,
    }
    return TreeSpec(
        ensemble=ensemble,
        loss=loss,
        leaf_numbers=leaf_numbers,
        margins=margins,
        retrain_estimator=retrain_estimator,
        rule=LeafRule(estimator.learning_rate, np.zeros(len(ensemble.values))),
        unrecorded=tuple(what for what, happened in found.items() if happened),
        splits=[tree.tree_ for tree in np.ravel(estimator.estimators_)],
    )


def _histogram(estimator: Any, train: Examples, columns: TreeInputs) -> TreeSpec:
    """HistGradientBoosting*: which leaf an example is in is private, so margins are held against the public ones."""
    loss = _loss_of(estimator, HISTOGRAM)
    rounds = len(estimator._predictors)
    # Copies that hold in place of its value the number of every leaf: asked to predict, they say where an example is.
    asked, values = [], []
    for predictor in (p for step in estimator._predictors for p in step):
        numbered = copy.deepcopy(predictor)
        leaf = numbered.nodes["is_leaf"].astype(bool)
        values.append(predictor.nodes["value"][leaf].astype(np.float64))
        numbered.nodes["value"][leaf] = np.arange(leaf.sum())
        asked.append(numbered)
    base = np.ravel(estimator._baseline_prediction)
    outputs = np.tile(np.arange(loss.outputs), rounds)
    ensemble = ensemble_of(values, np.repeat(np.arange(rounds), loss.outputs), outputs, base)

    def leaf_numbers(x: Any) -> NDArray[Any]:
        prepared = np.ascontiguousarray(estimator._preprocess_X(x, reset=False))
        bitsets, of_column = estimator._bin_mapper.make_known_categories_bitsets()
        found = [p.predict(prepared, bitsets, of_column.astype(np.uint32), 1) for p in asked]
        return np.stack(found, axis=1).astype(np.intp)

    def margins(x: Any) -> Array:
        if loss.classes is not None:
            return np.asarray(estimator.decision_function(x))
        said = np.asarray(estimator.predict(x))
        return np.log(said) if isinstance(loss, Poisson) else said

    def retrain_estimator(x: Any, y: Any, weights: Any, seed: int) -> Any:
        return retrain_clone(estimator, x, y, weights, seed, max_iter=rounds, early_stopping=False)

    held = bool(getattr(estimator, "do_early_stopping_", False)) and estimator.validation_fraction is not None
    monotone = estimator.monotonic_cst is not None
    found = {
        "early stopping held rows out": held,
        "monotone constraints clip leaves": monotone,
        "class_weight reweighted the classes": getattr(estimator, "class_weight", None) is not None,
    }
    return TreeSpec(
        ensemble=ensemble,
        loss=loss,
        leaf_numbers=leaf_numbers,
        margins=margins,
        retrain_estimator=retrain_estimator,
        rule=LeafRule(estimator.learning_rate, np.full(len(ensemble.values), float(estimator.l2_regularization))),
        unrecorded=tuple(what for what, happened in found.items() if happened),
        splits=estimator._predictors,
        threads=True,
    )


def _forest(estimator: Any, train: Examples, columns: TreeInputs) -> TreeSpec:
    """RandomForest* and ExtraTrees*: public throughout, the drawn rows too."""
    classes = getattr(estimator, "classes_", None)
    if estimator.n_outputs_ > 1:
        raise ValueError("a forest with several targets is not supported; fit one per target")
    outputs = 1 if classes is None else len(classes)
    loss = Squared(outputs, classes)
    nodes, values = _leaves(estimator.estimators_)
    trees, look = len(nodes), leaf_lookup(nodes)
    ensemble = ensemble_of(
        [v / trees for v in values], np.zeros(trees, np.intp), np.zeros(trees, np.intp), np.zeros(outputs)
    )
    draws = None
    if estimator.bootstrap:
        draws = np.stack([np.bincount(rows, minlength=len(train)) for rows in estimator.estimators_samples_], axis=1)
        if len(draws) != len(train):
            raise ValueError(f"expected the {len(train)} examples it was fitted on, it drew from {len(draws)}")
    found = {
        "leaves are medians": estimator.criterion == "absolute_error",
        "class_weight reweighted the classes": getattr(estimator, "class_weight", None) is not None,
        "monotone constraints clip leaves": getattr(estimator, "monotonic_cst", None) is not None,
    }

    def retrain_estimator(x: Any, y: Any, weights: Any, seed: int) -> Any:
        return retrain_clone(estimator, x, y, weights, seed)

    return TreeSpec(
        ensemble=ensemble,
        loss=loss,
        leaf_numbers=lambda x: look(estimator.apply(x)),
        margins=lambda x: estimator.predict(x) if classes is None else estimator.predict_proba(x),
        retrain_estimator=retrain_estimator,
        draws=None if draws is None else draws.astype(np.float64),
        bootstrap=bool(estimator.bootstrap),
        unrecorded=tuple(what for what, happened in found.items() if happened),
        splits=[tree.tree_ for tree in np.ravel(estimator.estimators_)],
        threads=estimator.n_jobs not in (None, 1),
    )


def _leaves(trees: Any) -> tuple[list[NDArray[np.intp]], list[Array]]:
    """Which nodes of every tree are leaves, and their values (leaves, outputs)."""
    nodes = [np.flatnonzero(tree.tree_.children_left == -1) for tree in trees]
    values = [tree.tree_.value[leaf].reshape(len(leaf), -1) for tree, leaf in zip(trees, nodes, strict=True)]
    return nodes, values


def _loss_of(estimator: Any, supported: str) -> BoostingLoss:
    name, classes = estimator.loss, np.asarray(getattr(estimator, "classes_", ()))
    if name == "log_loss":
        return Logistic(classes) if len(classes) == 2 else Softmax(classes)
    if name == "squared_error":
        return Squared()
    if name == "poisson":
        return Poisson()
    if name == "quantile":
        return Quantile(getattr(estimator, "alpha", None) or estimator.quantile)
    if name == "absolute_error":
        return Quantile(0.5)
    raise refuse_objective(type(estimator).__name__, name, supported, own=False)
