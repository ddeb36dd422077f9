"""CompositionModel: a wrapper whose predictions follow from those of its members, which have exact removals."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.exact_removals import ExactRemovals
from upweight.core.examples import Examples
from upweight.core.fitted_state import FittedState
from upweight.core.forgettable import Route, Unlearned
from upweight.core.identity import digests
from upweight.core.measurement import Measurement
from upweight.core.model import Predictions
from upweight.core.model_reader import UnsupportedSettingsError
from upweight.core.weights import checked_weights, sample_weights
from upweight.models.estimator_outputs import Outputs, readable_predictions
from upweight.models.input_checks import transform
from upweight.models.sklearn.composition_members import Member, OutputsOf
from upweight.models.unlearning import refit_estimator

Array = NDArray[np.float64]
AGREEMENT = 1e-3  # relative difference of outputs up to which members at their optima give those of the wrapper
CHECKED_EXAMPLES = 200


@dataclass(frozen=True, eq=False, repr=False)
class CompositionModel(ExactRemovals):
    """A fitted wrapper, explained by recomputing its members and composing their outputs as the wrapper does.

    Attributes:
        name: the class of the wrapper, for messages.
        predictor: the wrapper, or the pipeline that ends in it; never changed.
        wrapper: the last step.
        steps: the steps before it, which are fixed when examples are removed; None for none.
        members: the estimators inside, each with its own training examples.
        outputs: which predictions are measured, and their loss.
        measurement_of: the measurement of a query.
        train_checksum: checksum of the examples that the members were fitted on.
        reread: (fitted wrapper, its training set) → the model of it.
        notes: sentences for the reader of scores.
        parts: the outputs of every member.
    """

    name: str
    predictor: Any
    wrapper: Any
    steps: Any
    members: tuple[Member, ...]
    outputs: Outputs
    measurement_of: Measurement
    train_checksum: int | None
    reread: Callable[[Any, Examples], CompositionModel]
    notes: Sequence[str] = ()
    parts: tuple[OutputsOf, ...] = ()
    _cache: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def measurement(self) -> str:
        """The measurement, in words."""
        return self.measurement_of.described(self.outputs.family)

    @property
    def classes(self) -> NDArray[Any] | None:
        """The class labels; None for numeric targets and for several labels per example."""
        return self.outputs.family.classes

    def version(self) -> FittedState:
        """The fitted state of the wrapper and its steps, which changes when they are fitted again."""
        return FittedState(self.predictor)

    def identity(self) -> dict[str, str]:
        """Digests of the members, the loss, the measurement and the settings."""
        return digests(
            parameters=tuple(tuple(sorted(member.model.identity().items())) for member in self.members),
            objective=None,
            loss=(self.outputs.kind, self.outputs.family),
            measurement=self.measurement_of,
            training=(self.name, self.wrapper.get_params(deep=False)),
        )

    def measure(self, queries: Examples) -> Array:
        """The measurement of every query, with members at their optima."""
        return self._measured(self._parts, queries)

    def predict(self, examples: Examples) -> Predictions:
        """The wrapper's own predictions, with readable labels."""
        predicted, has_probabilities = self.predictor.predict(examples.x), self.outputs.kind == "probabilities"

        def probabilities() -> Array | None:
            return self.outputs.of(self.predictor, examples.x) if has_probabilities else None

        return readable_predictions(predicted, self.classes, examples.labels, probabilities)

    def measure_without_each(self, train: Examples, positions: NDArray[np.intp], queries: Examples) -> Array:
        """The measurement of every query without each of these examples, (m, positions)."""
        self._require_same(train)
        each = zip(*(member.without_each(positions.tolist()) for member in self.members), strict=True)
        return np.stack([self._measured(parts, queries) for parts in each], axis=1)

    def measure_without(self, train: Examples, membership: NDArray[np.bool_], queries: Examples) -> Array:
        """The measurement of every query without each group, (m, groups)."""
        self._require_same(train)
        measured = np.empty((len(queries), len(membership)))
        for group, inside in enumerate(membership):
            parts = tuple(part.under(1.0 - inside[part.rows]) for part in self.members)
            measured[:, group] = self._measured(parts, queries)
        return measured

    def undefined_removals(self, train: Examples) -> Mapping[int, str]:
        """Position → why one of the members cannot be trained without this example alone."""
        self._require_same(train)
        return {position: why for part in self.members for position, why in part.undefined().items()}

    def retrain(self, train: Examples, weights: Array, seed: int = 0) -> CompositionModel:
        """The wrapper with members that were each trained with these weights times the examples' own.

        On other examples than those of the members the whole wrapper is fitted again.
        """
        weights = checked_weights(train, weights)
        if train.checksum() != self.train_checksum:
            fitted, rows = self._refitted(train, weights, seed)
            return self.reread(fitted, rows)
        parts = tuple(member.retrained(weights[member.rows], seed) for member in self.members)
        return replace(self, parts=parts, notes=(), _cache={})

    def described(self) -> Sequence[str]:
        """A sentence that names the members."""
        inside = ", ".join(dict.fromkeys(member.model.name for member in self.members))
        return (
            f"This {self.name} is composed of its members ({len(self.members)}: {inside}), which are recomputed "
            "without each example.",
        )

    @property
    def estimator(self) -> Any:
        """The wrapper or pipeline."""
        return self.predictor

    def _refitted(self, train: Examples, weights: Array, seed: int) -> tuple[Any, Examples]:
        """The wrapper fitted on these examples as copies of rows, or with weights if it takes them; and these rows."""
        total = weights * sample_weights(train)
        rows = train.take(np.flatnonzero(total))
        rows = rows.replaced(weights=None if (total[total > 0] == 1).all() else total[total > 0])
        fitted, _ = refit_estimator(self.predictor, rows, np.ones(len(rows), dtype=bool), seed)
        return fitted, rows

    def forget(self, train: Examples, remaining: NDArray[np.bool_], seed: int = 0, refit: bool = False) -> Unlearned:
        """The whole wrapper, refitted on the remaining examples with its steps."""
        fitted, steps = refit_estimator(self.predictor, train, remaining, seed)
        return Unlearned(fitted, self.reread(fitted, train.take(remaining)), Route.REFIT, steps)

    @property
    def _parts(self) -> tuple[OutputsOf, ...]:
        """The outputs of every member; with all examples unless it was retrained."""
        if not self.parts and "parts" not in self._cache:
            self._cache["parts"] = tuple(member.under(np.ones(len(member.rows))) for member in self.members)
        parts: tuple[OutputsOf, ...] = self.parts or self._cache["parts"]
        return parts

    def outputs_of(self, parts: Sequence[OutputsOf], x: Any) -> Array:
        """The outputs of the wrapper for inputs, composed of those of its members as the wrapper itself does it."""
        composed = copy.copy(self.wrapper)
        composed.estimators_ = [member.stand_in(part) for member, part in zip(self.members, parts, strict=True)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="X does not have valid feature names")
            return self.outputs.of(composed, x if self.steps is None else transform(self.steps, x))

    def _measured(self, parts: Sequence[OutputsOf], queries: Examples) -> Array:
        return self.measurement_of.value(self.outputs.family, self.outputs_of(parts, queries.x), queries.y)

    def _require_same(self, train: Examples) -> None:
        """Raise ValueError for other training examples than those of its members."""
        if train.checksum() != self.train_checksum:
            raise ValueError(
                f"expected the data that {self.name} was fitted on, got others; pass the examples that went into "
                "explainable, or make the model anew"
            )


def require_same_outputs(model: CompositionModel, train: Examples) -> None:
    """Raise UnsupportedSettingsError if the members do not give the outputs of the wrapper."""
    rows = np.unique(np.linspace(0, len(train) - 1, CHECKED_EXAMPLES).astype(np.intp))
    x = train.take(rows).x
    try:
        ours = model.outputs_of(model._parts, x)
    except (AttributeError, TypeError) as error:
        raise UnsupportedSettingsError(
            f"the predictions of {model.name} do not follow from its members ({error})"
        ) from error
    theirs = model.outputs.of(model.predictor, x)
    difference = float(np.abs(ours - theirs).max()) / (1.0 + float(np.abs(theirs).max()))
    if difference > AGREEMENT:
        raise UnsupportedSettingsError(
            f"the members of this {model.name} at their optima give other outputs (by a relative {difference:.2g})"
        )
