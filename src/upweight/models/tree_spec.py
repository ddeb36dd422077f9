"""TreeSpec: a trained ensemble as one library describes it, in terms that are the same for all libraries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.models.tree_inputs import TreeInputs
from upweight.trees.boosting import Boosting, LeafRule
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.ensemble import Indices, TreeEnsemble
from upweight.trees.forest import Forest

Array = NDArray[np.float64]
BASE_TOLERANCE = 1e-5  # largest accepted difference of the base from the best constant, relative to the base


@dataclass(frozen=True, eq=False)
class WrittenLeaves:
    """Leaf values to write into a copy of an estimator, and the examples that they belong to.

    Attributes:
        ensemble: the leaf values.
        x: the library's inputs, (n, columns).
        targets: (K, n) as the loss encodes labels.
        weights: (n,) sample weights.
    """

    ensemble: TreeEnsemble
    x: Any
    targets: Array
    weights: Array


@dataclass(frozen=True, eq=False)
class TreeSpec:
    """A trained ensemble, and how its library predicts and trains.

    Attributes:
        ensemble: the leaf values.
        loss: the training loss.
        inputs: from `Examples.x` to the library's inputs, which all functions below take.
        leaf_numbers: inputs → the local number of each example's leaf in every tree, (n, trees).
        margins: inputs → the library's own raw predictions (n, K), which the leaf values have to reproduce.
        retrain_estimator: (inputs, labels, weights or None, seed) → a new estimator, trained in the same way.
        rule: how a boosted leaf value follows from its sums; None for a forest.
        other_l2: (leaves,) the l2 that a leaf may have been made with instead. The one that reproduces the leaf's value
            better is taken.
        draws: (n, trees) how often each tree of a forest drew each example; None if every tree saw each of them once.
        bootstrap: whether the trees of a forest drew examples with replacement.
        unrecorded: training settings whose effects the library does not record, in words.
        splits: the splits in the library's own form, for the model's identity.
        library: the library's name and version, and the version that trained the model if the model records it.
        threads: whether training uses threads of the library's own.
        class_weights: (classes,) what training multiplies the weights of the examples of each class by; None for 1.
        base_class_weights: (classes,) the same, for the base alone; None if it is fitted with `class_weights`.
        fits_base: whether the library fits the base to the training set, so that a base of 0 is a fit as well.
        notes: warnings for the reader of scores.
        raw: (another estimator of the same training, inputs) → its raw predictions (n, K), without reading its trees.
        write: leaf values → (a copy of the estimator that has them, its raw predictions as a function of inputs).
    """

    ensemble: TreeEnsemble
    loss: BoostingLoss
    inputs: TreeInputs
    leaf_numbers: Callable[[Any], NDArray[np.integer]]
    margins: Callable[[Any], Array]
    retrain_estimator: Callable[[Any, Any, Any, int], Any]
    rule: LeafRule | None = None
    other_l2: Array | None = None
    draws: Array | None = None
    bootstrap: bool = False
    unrecorded: tuple[str, ...] = ()
    splits: Any = None
    library: str = "scikit-learn"
    threads: bool = False
    class_weights: Array | None = None
    base_class_weights: Array | None = None
    fits_base: bool = False
    notes: tuple[str, ...] = ()
    raw: Callable[[Any, Any], Array] | None = None
    write: Callable[[WrittenLeaves], tuple[Any, Callable[[Any], Array]]] | None = None

    def replay_training(self, leaves: Indices, targets: Array, weights: Array) -> Boosting | Forest:
        """How the leaf values follow from training examples with these leaves, targets and weights."""
        return self._forest(leaves, targets, weights) if self.rule is None else self._boosting(leaves, targets, weights)

    def _forest(self, leaves: Indices, targets: Array, weights: Array) -> Forest:
        """Sample weights are weights in the leaves or, from scikit-learn 1.8, the chances of being drawn."""
        draws = np.ones(leaves.shape) if self.draws is None else self.draws
        forest = Forest(self.ensemble, self.loss, leaves, targets, draws, self.bootstrap, self.unrecorded)
        weighted = replace(forest, weights=times_classes(weights, self.class_weights, targets)[:, None] * draws)
        return forest if forest.exact and not weighted.exact else weighted

    def _boosting(self, leaves: Indices, targets: Array, weights: Array) -> Boosting:
        assert self.rule is not None
        example_weights, weights = weights, times_classes(weights, self.class_weights, targets)
        base_weights = weights
        if self.base_class_weights is not None:
            base_weights = times_classes(example_weights, self.base_class_weights, targets)
        is_best = _is_best_constant(self.ensemble.base, self.loss, targets, base_weights)
        base_is_fitted = is_best and (self.fits_base or bool(np.any(self.ensemble.base != 0)))
        boosting = Boosting(
            self.ensemble, self.loss, self.rule, leaves, targets, weights, base_is_fitted, self.unrecorded
        )
        if self.class_weights is not None:
            boosting = replace(boosting, example_weights=example_weights, base_weights=base_weights)
        if self.other_l2 is None:
            return boosting
        with_other_l2 = replace(boosting, rule=replace(self.rule, l2=self.other_l2))
        difference, other_difference = (
            np.abs(replayed.reproduced - self.ensemble.values).max(axis=1) for replayed in (boosting, with_other_l2)
        )
        l2 = np.where(other_difference < difference, self.other_l2, self.rule.l2)
        return replace(boosting, rule=replace(self.rule, l2=l2))


def times_classes(weights: Array, class_weights: Array | None, targets: Array) -> Array:
    """The weights of examples (n,) times those of their classes; targets (K, n) are 0 and 1."""
    if class_weights is None:
        return weights
    classes = targets[0] > 0.5 if len(targets) == 1 else targets.argmax(axis=0)
    return np.asarray(weights * class_weights[classes.astype(np.intp)])


def class_weights_of(class_weight: Any, classes: Any, y: Any, weights: Array | None = None) -> Array | None:
    """The weight of each class under scikit-learn's setting `class_weight`; None if classes are not weighted.

    `weights` are those that "balanced" counts the labels with, in versions of scikit-learn that do so.
    """
    if class_weight is None or classes is None:
        return None
    from sklearn.utils.class_weight import compute_class_weight

    takes_weights = weights is not None and "sample_weight" in signature(compute_class_weight).parameters
    keywords = {"sample_weight": weights} if takes_weights else {}
    return np.asarray(
        compute_class_weight(class_weight, classes=classes, y=np.asarray(y), **keywords), dtype=np.float64
    )


def fixed_class_weights(
    class_weight: Any, classes: Any, weights: Array | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(settings that retrain with the same weights of classes, the note that says so) for balanced class weights."""
    if weights is None or not isinstance(class_weight, str):
        return {}, ()
    fixed = dict(zip(classes.tolist(), weights.tolist(), strict=True))
    return {"class_weight": fixed}, (
        f"class_weight={class_weight!r}: the classes keep the weights of the full training set. Removals do not "
        "balance them anew, and retraining does not either.",
    )


def _is_best_constant(base: Array, loss: BoostingLoss, targets: Array, weights: Array) -> bool:
    """Whether the base fits the targets best; up to a shift of all outputs if the loss depends on differences alone.

    A base of 0 can also be the library's default, and not a fit.
    """
    mean = targets @ weights / weights.sum()
    if loss.classes is not None and ((mean <= 0) | (mean >= 1)).any():
        return False
    difference = base - loss.link(mean)
    if loss.coupled:
        difference = difference - difference.mean()
    largest = float(np.abs(base).max())
    return bool(np.abs(difference).max() <= BASE_TOLERANCE * max(1.0, largest))


def leaf_lookup(leaf_nodes: Sequence[NDArray[np.integer]]) -> Callable[[NDArray[Any]], NDArray[np.intp]]:
    """A function from node numbers (n, trees) to local leaf numbers, given the nodes of every tree that are leaves."""
    tables = []
    for nodes in leaf_nodes:
        table = np.full(int(nodes.max(initial=0)) + 1, -1, dtype=np.intp)
        table[nodes] = np.arange(len(nodes))
        tables.append(table)

    def look_up(nodes: NDArray[Any]) -> NDArray[np.intp]:
        nodes = np.asarray(nodes, dtype=np.intp).reshape(len(nodes), len(tables))
        return np.stack([table[column] for table, column in zip(tables, nodes.T, strict=True)], axis=1)

    return look_up


def active(effects: dict[str, bool]) -> tuple[str, ...]:
    """The effects that this training had, none of which the estimator records."""
    return tuple(effect for effect, is_active in effects.items() if is_active)
