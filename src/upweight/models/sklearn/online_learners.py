"""Learners of scikit-learn that take one example after the other: what the same training gives if it skips some.

Their training has no optimum, or stops far from it, and depends on the order of the examples. A fit on fewer rows draws
another order, so that most of its difference is noise. What can be told exactly is the training in the same order, in
which some examples have weight 0: they change no coefficient.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import SGDClassifier, SGDRegressor

from upweight.core.model_reader import UnsupportedSettingsError
from upweight.linear.losses.binary import LogisticLoss
from upweight.linear.losses.squared import SquaredLoss
from upweight.models.sklearn.closed_form_spec import FormSpec
from upweight.models.sklearn.outputs_by_weights import Array, ClosedForm

PASSIVE_AGGRESSIVE = {  # loss of a passive-aggressive learner → (loss, rule of steps) of the same training by SGD
    "hinge": ("hinge", "pa1"),
    "squared_hinge": ("hinge", "pa2"),
    "epsilon_insensitive": ("epsilon_insensitive", "pa1"),
    "squared_epsilon_insensitive": ("epsilon_insensitive", "pa2"),
}


def online_learner(estimator: Any) -> FormSpec:
    """Perceptron, SGDClassifier, SGDRegressor and the passive-aggressive learners, with a seed."""
    name = type(estimator).__name__
    reason = None
    if not isinstance(estimator.random_state, int | np.integer) and estimator.shuffle:
        reason = f"a {name} without a seed drew its order of examples anew; fit it with random_state=0"
    elif estimator.early_stopping:
        reason = f"a {name} with early_stopping=True leaves out other examples if some have weight 0"
    elif estimator.warm_start:
        reason = f"a {name} with warm_start=True may have been continued"
    if reason is not None:
        raise UnsupportedSettingsError(reason)
    classes = getattr(estimator, "classes_", None)
    outputs = len(np.atleast_1d(estimator.intercept_))
    note = (
        f"{name} learns from one example after the other and has no optimum here: scores are what the same training, "
        "in the same order, gives if the example has weight 0. A fit on the other rows draws another "
        "order, and differs by that too."
    )
    notes: tuple[str, ...] = (note,)
    if getattr(estimator, "C", estimator.eta0) != estimator.eta0:
        notes += (
            f"This {name} was trained with C={estimator.eta0:g}, not {estimator.C:g}: in this version of scikit-learn "
            "a C that is set later, as a search does, changes nothing.",
        )
    return FormSpec(
        SquaredLoss(1) if classes is None else LogisticLoss(outputs, classes),
        partial(OnlineForm, learner=_unfitted(estimator), labels=classes),
        is_sparse=True,
        keeps_rows=True,
        notes=notes,
    )


def _unfitted(estimator: Any) -> Any:
    """An unfitted learner with the same training that takes sample weights."""
    name = type(estimator).__name__
    if not name.startswith("PassiveAggressive"):
        return clone(estimator)
    loss, steps = PASSIVE_AGGRESSIVE[estimator.loss]
    kind = SGDClassifier if hasattr(estimator, "classes_") else SGDRegressor
    rules = [str(rule) for rule in kind._parameter_constraints["learning_rate"]]
    if not any(steps in rule for rule in rules):
        raise UnsupportedSettingsError(f"the {name} of this version of scikit-learn takes no sample weights")
    settings = {key: value for key, value in estimator.get_params().items() if key in kind().get_params()}
    return kind(**{**settings, "loss": loss, "learning_rate": steps, "eta0": estimator.eta0, "penalty": None})


@dataclass(frozen=True, eq=False)
class OnlineForm(ClosedForm):
    """The learner trained on all rows in the same order, with weights.

    Attributes:
        learner: the unfitted learner, with its seed.
        labels: the class labels; None for numbers.
    """

    learner: Any
    labels: Any

    def fitted(self, factors: Array) -> Any:
        """The learner, fitted with these weights."""
        targets = np.ravel(self.targets) if self.labels is None else self.labels[self.targets]
        total = factors * self.weights
        weights = {} if (total == 1).all() else {"sample_weight": total}
        return clone(self.learner).fit(self.x, targets, **weights)

    def outputs(self, fitted: Any, x: Any) -> Array:
        """The decision values or predicted numbers, (m, K)."""
        values = fitted.predict(x) if self.labels is None else fitted.decision_function(x)
        return np.asarray(values, dtype=np.float64).reshape(x.shape[0], -1)
