"""ClosedFormModel: an estimator that its weighted training examples determine without an optimisation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.data_cache import DataCache
from upweight.core.deprecation import RenamedAttribute
from upweight.core.estimator_model import EstimatorModel
from upweight.core.exact_removals import ExactRemovals
from upweight.core.examples import Examples
from upweight.core.forecast import counted
from upweight.core.forgettable import Route, Unlearned
from upweight.core.identity import digests
from upweight.core.measurement import Measurement, TrainingLoss
from upweight.core.model import Predictions
from upweight.core.weights import checked_weights, require_classes, sample_weights, weighted_positions
from upweight.linear.losses.loss import LinearLoss
from upweight.linear.predictions import predictions_of_estimator
from upweight.models.estimator_clones import retrain_clone
from upweight.models.sklearn.outputs_by_weights import Array, ClosedForm, whole_weights
from upweight.models.sklearn.preprocessing import PreprocessingSteps
from upweight.models.unlearning import refit_estimator

CHECKED_EXAMPLES = 200  # training examples whose outputs are compared with those of the estimator
AGREEMENT = 1e-6  # relative difference of outputs up to which they are the same


@dataclass(frozen=True, eq=False, repr=False)
class ClosedFormModel(ExactRemovals, EstimatorModel):
    """An estimator whose outputs without some training examples are computed from a closed form.

    Attributes:
        name: the class of the estimator, for messages.
        predictor: the estimator or pipeline itself, which is never changed.
        final: its last step.
        inputs: the steps before it, fixed when examples are removed.
        loss: the loss that is measured.
        measurement_of: the measurement of a query.
        make: (matrix, examples) → the closed form on these training examples.
        form: the closed form on the training set that the model was read with.
        reread: (fitted estimator, its training set) → the model of it.
        takes_weights: whether the estimator's `fit` takes sample weights; otherwise weight k means k copies.
        keeps_rows: whether a removed example stays in its place with weight 0.
        fixed_settings: settings that the fit chose, with which it is retrained.
        notes: warnings for the reader of the scores.
    """

    name: str
    predictor: Any
    final: Any
    inputs: PreprocessingSteps
    loss: LinearLoss
    measurement_of: Measurement
    make: Callable[[Any, Examples], ClosedForm]
    form: ClosedForm
    reread: Callable[[Any, Examples], ClosedFormModel]
    takes_weights: bool
    keeps_rows: bool = False
    fixed_settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    _cache: dict[str, Any] = field(default_factory=dict, repr=False)

    held = RenamedAttribute("fixed_settings")

    @property
    def training_loss(self) -> TrainingLoss:
        """The loss of the outputs."""
        return self.loss

    def identity(self) -> dict[str, str]:
        """Digests of training examples and settings, which determine the model, of the loss and the measurement."""
        return digests(
            parameters=(self.form, self.inputs),
            objective=None,
            loss=self.loss,
            measurement=self.measurement_of,
            training=(self.name, self.final.get_params(deep=False)),
        )

    def embed(self, examples: Examples) -> Any:
        """The columns that enter the estimator, (n, d); sparse if they are."""
        cache: DataCache[Any] = self._cache.setdefault("inputs", DataCache(2))
        return cache.get_or_make(examples, lambda: self.inputs(examples.x))

    def measure(self, queries: Examples) -> Array:
        """The measurement of every query."""
        outputs = self.form.outputs(self._fitted, self.embed(queries))
        return self.measurement_of.value(self.loss, outputs, queries.y)

    def predict(self, examples: Examples) -> Predictions:
        """The estimator's predictions as readable labels."""
        return predictions_of_estimator(self.predictor, self.loss, examples)

    def measure_without_each(self, train: Examples, positions: NDArray[np.intp], queries: Examples) -> Array:
        """The measurement of every query without each of these examples, (m, positions)."""
        outputs = self.form_on(train).outputs_without(positions, self.embed(queries))
        labels = None if queries.y is None else np.repeat(queries.y, len(positions), axis=0)
        flat = outputs.reshape(-1, outputs.shape[-1])
        return self.measurement_of.value(self.loss, flat, labels).reshape(len(queries), len(positions))

    def measure_without(self, train: Examples, membership: NDArray[np.bool_], queries: Examples) -> Array:
        """The measurement of every query without each group, (m, groups)."""
        form, x = self.form_on(train), self.embed(queries)
        measured = np.empty((len(queries), len(membership)))
        for group, inside in enumerate(counted(membership, len(membership))):
            factors = 1.0 - inside.astype(np.float64)
            require_classes(train, factors, self.loss)
            reason = form.refusal(factors)
            if reason is not None:
                raise ValueError(f"the model cannot be trained without group {group}: {reason}; remove fewer examples")
            outputs = form.outputs(form.fitted(factors), x)
            measured[:, group] = self.measurement_of.value(self.loss, outputs, queries.y)
        return measured

    def undefined_removals(self, train: Examples) -> Mapping[int, str]:
        """Position → why the estimator cannot be fitted without this example alone."""
        alone = list(self.only_examples(train).values())
        why = "no example of its class would be left"
        counted = set(weighted_positions(train).tolist())
        refused = {i: reason for i, reason in self.form_on(train).refusals().items() if i in counted}
        return refused | {int(train.positions([id_])[0]): why for id_ in alone}

    def retrain(self, train: Examples, weights: Array, seed: int = 0) -> ClosedFormModel:
        """The estimator itself, fitted with these weights times the examples' own; `seed` changes nothing.

        Raises ValueError if it cannot be fitted, or takes no sample weights and these are not whole numbers.
        """
        weights = checked_weights(train, weights)
        require_classes(train, weights, self.loss)
        if self.keeps_rows:
            form = self.form_on(train)
            final = form.fitted(weights)
            form = replace(form, weights=weights * form.weights)
            return replace(
                self, predictor=_with_last_step(self.predictor, final), final=final, form=form, _cache={"fitted": final}
            )
        remaining = train.take(np.flatnonzero(weights))
        total = weights[weights > 0] * sample_weights(remaining)
        is_weighted = bool((total != 1).any())
        matrix, y = self.inputs(remaining.x), remaining.y
        if is_weighted and not self.takes_weights:
            rows = np.repeat(np.arange(len(remaining)), whole_weights(self.name, total))
            matrix, y = matrix[rows], None if y is None else y[rows]
        final = retrain_clone(
            self.final, matrix, y, total if is_weighted and self.takes_weights else None, seed, **self.fixed_settings
        )
        reweighted = remaining.replaced(weights=total) if is_weighted else remaining
        return replace(
            self,
            predictor=_with_last_step(self.predictor, final),
            final=final,
            form=self.make(self.inputs(remaining.x), reweighted),
            _cache={},
        )

    def forget(self, train: Examples, remaining: NDArray[np.bool_], seed: int = 0, refit: bool = False) -> Unlearned:
        """The closed form of the whole estimator on the remaining examples, with its steps refitted."""
        require_classes(train, remaining.astype(np.float64), self.loss)
        fitted, steps = refit_estimator(self.predictor, train, remaining, seed)
        return Unlearned(fitted, self.reread(fitted, train.take(remaining)), Route.CLOSED_FORM, steps)

    def doubts(self, train: Examples, queries: Examples) -> list[str]:
        """Sentences about some queries: outputs that depend on the order of examples, or that name another class."""
        x = self.embed(queries)
        form = self.form_on(train)
        determined, sentences = form.is_determined(x), form.doubts(x)
        if self.loss.classes is not None:
            best = self.loss.classes[self.loss.decide(self.form.outputs(self._fitted, x))]
            others = (np.asarray(self.predictor.predict(queries.x)) != best) & determined
            if others.any():
                sentences.append(
                    f"For {int(others.sum())} of {len(queries)} queries {self.name} predicts another class than its "
                    "own scores rank first; what is measured are these scores."
                )
        if determined.all():
            return sentences
        return [
            *sentences,
            f"For {int((~determined).sum())} of {len(queries)} queries (the first is "
            f"{queries.ids[int(np.argmin(determined))].item()!r}) several training examples are equally near: which of "
            "them are neighbours, and their scores, depend on the order of the training examples.",
        ]

    @property
    def _fitted(self) -> Any:
        """What the estimator learnt from all examples."""
        if "fitted" not in self._cache:
            self._cache["fitted"] = self.form.fitted(np.ones(len(self.form.weights)))
        return self._cache["fitted"]

    def form_on(self, train: Examples) -> ClosedForm:
        """The closed form on these examples. Raises ValueError if the estimator was not fitted on them."""

        def make() -> ClosedForm:
            form = self.make(self.inputs(train.x), train)
            require_same_outputs(self, form)
            return form

        cache: DataCache[ClosedForm] = self._cache.setdefault("form", DataCache(1))
        return cache.get_or_make(train, make)


def _with_last_step(predictor: Any, final: Any) -> Any:
    """The pipeline with another last step; the estimator itself if it is not a pipeline."""
    if not hasattr(predictor, "steps"):
        return final
    return type(predictor)([*predictor.steps[:-1], (predictor.steps[-1][0], final)])


def require_same_outputs(model: ClosedFormModel, form: ClosedForm) -> None:
    """Raise ValueError if the closed form does not give what the estimator gives: it was fitted on other data."""
    difference = _largest_difference(model, form)
    if difference > AGREEMENT:
        raise ValueError(
            f"expected the data that {model.name} was fitted on, got examples from which it learns something else (its "
            f"outputs differ by a relative {difference:.2g}); pass the same rows, labels and sample weights as to fit()"
        )


def _largest_difference(model: ClosedFormModel, form: ClosedForm) -> float:
    """The largest relative difference between the outputs of the closed form and of the estimator."""
    count = len(form.weights)
    if getattr(model.final, "n_samples_fit_", count) not in (count, form.weights.sum()):
        return np.inf
    x = form.probes(np.unique(np.linspace(0, count - 1, CHECKED_EXAMPLES).astype(np.intp)))
    determined = form.is_determined(x)
    if not determined.any():
        return 0.0
    x = x[determined]
    z, final, loss = form.outputs(form.fitted(np.ones(count)), x), model.final, model.loss
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        if hasattr(final, "predict_joint_log_proba"):
            ours, theirs = z, final.predict_joint_log_proba(x)
        elif hasattr(final, "decision_function"):
            ours, theirs = loss.expand(z), final.decision_function(x)
        elif hasattr(final, "predict_proba"):
            ours, theirs = loss.probabilities(z), final.predict_proba(x)
        else:
            ours, theirs = z, final.predict(x)
    theirs = np.asarray(theirs, dtype=np.float64).reshape(ours.shape)
    with np.errstate(invalid="ignore"):
        differences = np.where(ours == theirs, 0.0, np.abs(ours - theirs))
    scale = 1.0 + np.abs(np.where(np.isfinite(theirs), theirs, 0.0)).max(initial=0.0)
    return float(np.nan_to_num(differences / scale, nan=np.inf).max(initial=0.0))
