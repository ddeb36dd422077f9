"""The weights of classes in a LightGBM training: `class_weight`, `scale_pos_weight` and `is_unbalance`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.models.tree_spec import class_weights_of, held_class_weights, times_classes
from upweight.trees.boosting_loss import BoostingLoss

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ClassWeights:
    """What training multiplied the weights of the examples of each class by; None for 1.

    Attributes:
        in_leaves: (classes,) in the sums of leaves.
        in_base: (classes,) in the constant that boosting starts from. `class_weight` becomes sample weights, which
            count in it; `scale_pos_weight` and `is_unbalance` do not.
        held: settings that retrain with the same weights of classes.
        notes: warnings for the reader of scores.
    """

    in_leaves: Array | None = None
    in_base: Array | None = None
    held: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, estimator: Any, parameters: dict[str, str], loss: BoostingLoss, train: Examples) -> ClassWeights:
        """The weights of the classes in the training of this estimator or Booster."""
        if loss.classes is None:
            return cls()
        class_weight = getattr(estimator, "class_weight", None)
        by_setting = class_weights_of(class_weight, loss.classes, train.y)
        held, notes = held_class_weights(class_weight, loss.classes, by_setting)
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
        return cls(in_leaves, in_base, held, notes)

    def of_base(self, loss: BoostingLoss, train: Examples) -> Array | None:
        """The mean of the targets (K,) under the weights that the base is fitted with; None without labels."""
        if train.y is None:
            return None
        targets = loss.encode(train.y).T
        weights = np.ones(len(train)) if train.weights is None else train.weights
        weights = times_classes(weights, self.in_base, targets)
        return np.asarray(targets @ weights / weights.sum())
