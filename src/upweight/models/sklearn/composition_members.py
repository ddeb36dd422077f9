"""Members of a composition without some training examples: stand-ins for fitted estimators, with outputs recomputed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.metaestimators import available_if

from upweight.core.examples import Examples
from upweight.core.weights import require_classes
from upweight.linear.losses.loss import LinearLoss
from upweight.linear.model import LinearModel
from upweight.linear.retraining import MAX_STEPS, TOLERANCE, retrained_parameters
from upweight.models.sklearn.closed_form_model import ClosedFormModel

Array = NDArray[np.float64]
OutputsOf = Callable[[Any], Array]  # inputs → outputs (m, K) in the form of the loss


class _StandIn(BaseEstimator):  # type: ignore[misc]
    """What both kinds of stand-ins share.

    Args:
        outputs: inputs → outputs.
        loss: the loss of these outputs.
        methods: the methods of the member that it stands for.
    """

    def __init__(self, outputs: OutputsOf, loss: LinearLoss, methods: frozenset[str]) -> None:
        self.outputs = outputs
        self.loss = loss
        self.methods = methods

    def __sklearn_is_fitted__(self) -> bool:
        """True."""
        return True


class StandInRegressor(RegressorMixin, _StandIn):  # type: ignore[misc]
    """A regressor with recomputed outputs."""

    def predict(self, x: Any) -> Array:
        """The predicted numbers, (m,) or (m, outputs)."""
        values = self.loss.expand(self.outputs(x))
        return values[:, 0] if values.shape[1] == 1 else values


def _has(name: str) -> Any:
    return available_if(lambda member: name in member.methods)


class StandInClassifier(ClassifierMixin, _StandIn):  # type: ignore[misc]
    """A classifier with recomputed outputs, and the methods that the member has."""

    @property
    def classes_(self) -> NDArray[Any]:
        """The class labels."""
        assert self.loss.classes is not None
        return self.loss.classes

    def predict(self, x: Any) -> NDArray[Any]:
        """The predicted labels."""
        return self.classes_[self.loss.decide(self.outputs(x))]

    @_has("predict_proba")  # type: ignore[untyped-decorator]
    def predict_proba(self, x: Any) -> Array:
        """The probabilities (m, classes)."""
        return self.loss.probabilities(self.outputs(x))

    @_has("decision_function")  # type: ignore[untyped-decorator]
    def decision_function(self, x: Any) -> Array:
        """The decision values, (m,) for two classes."""
        values = self.loss.expand(self.outputs(x))
        return values[:, 0] if values.shape[1] == 1 else values


@dataclass(frozen=True, eq=False)
class Member:
    """One fitted estimator of a composition, with its own training examples.

    Attributes:
        model: the estimator as a model with exact removals.
        train: its training examples, with the labels that it was trained on; they may be a part of the rows.
        rows: (n_member,) the positions of these among the examples of the composition.
        methods: names of its methods.
    """

    model: LinearModel | ClosedFormModel
    train: Examples
    rows: NDArray[np.intp]
    methods: frozenset[str]

    @property
    def loss(self) -> LinearLoss:
        """The loss of its outputs."""
        return self.model.family if isinstance(self.model, LinearModel) else self.model.loss

    def stand_in(self, outputs: OutputsOf) -> StandInRegressor | StandInClassifier:
        """A stand-in with these outputs."""
        kind = StandInRegressor if self.loss.classes is None else StandInClassifier
        return kind(outputs, self.loss, self.methods)

    def without_each(self, positions: Sequence[int]) -> list[OutputsOf]:
        """The outputs without each of these examples of the composition."""
        place = {row: at for at, row in enumerate(self.rows.tolist())}
        factors = np.ones((len(positions), len(self.rows)))
        for removal, position in enumerate(positions):
            if position in place:
                factors[removal, place[position]] = 0.0
        if isinstance(self.model, ClosedFormModel):
            return [self.under(row) for row in factors]
        optimum = self.model.optimum(self.train)
        shifts = optimum.newton_steps(factors, None, MAX_STEPS, TOLERANCE).shifts
        return [_linear_outputs(self.model, optimum.parameters + shift) for shift in shifts]

    def under(self, factors: Array) -> OutputsOf:
        """The outputs under weight factors (n_member,) of its examples. Raises ValueError if it cannot be trained."""
        if not factors.any():
            raise ValueError("no example of a member would be left; remove fewer examples")
        require_classes(self.train, factors, self.loss)
        model = self.model
        if isinstance(model, LinearModel):
            return _linear_outputs(model, retrained_parameters(model.optimum(self.train), factors))
        form = model.form_on(self.train)
        reason = form.refusal(factors)
        if reason is not None:
            raise ValueError(f"a member ({model.name}) cannot be trained: {reason}; remove fewer examples")
        fitted = form.fitted(factors)
        return partial(_recomputed_outputs, model, form, fitted)

    def retrained(self, weights: Array, seed: int) -> OutputsOf:
        """The outputs of the member, trained anew with these weights (n_member,) times those of its examples."""
        require_classes(self.train, weights, self.loss)
        again = self.model.retrain(self.train, weights, seed)
        if isinstance(again, LinearModel):
            return _linear_outputs(again, again.theta.ravel())
        fitted = again.form.fitted(np.ones(len(again.form.weights)))
        return partial(_recomputed_outputs, again, again.form, fitted)

    def undefined(self) -> dict[int, str]:
        """Position in the composition → why the member cannot be trained without that example alone."""
        refused = dict.fromkeys(
            self.train.positions(list(self.model.only_examples(self.train).values())).tolist(),
            "one of its members would lose a class",
        )
        if isinstance(self.model, ClosedFormModel):
            refused |= dict(self.model.undefined_removals(self.train))
        return {int(self.rows[position]): why for position, why in refused.items()}


def _linear_outputs(model: LinearModel, parameters: Array) -> OutputsOf:
    return partial(_outputs_at, model, parameters.reshape(model.theta.shape))


def _outputs_at(model: LinearModel, theta: Array, x: Any) -> Array:
    return model.design(x).times(theta.T)


def _recomputed_outputs(model: ClosedFormModel, form: Any, fitted: Any, x: Any) -> Array:
    return np.asarray(form.outputs(fitted, model.inputs(x)))
