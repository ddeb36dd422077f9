"""RefitModel: any estimator with the interface of scikit-learn, of which only predictions and `fit` are used."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.contents import relevant
from upweight.core.data_cache import DataCache
from upweight.core.estimator_model import EstimatorModel
from upweight.core.examples import Examples
from upweight.core.forgettable import Route, Unlearned
from upweight.core.identity import digests
from upweight.core.input_kinds import as_array, is_sparse
from upweight.core.measurement import Measurement, TrainingLoss
from upweight.core.model import Embeddable, Predictions
from upweight.core.parameter_measurement import ParameterMeasurement
from upweight.core.refittable import Bagged, Refittable, Trial
from upweight.core.weights import checked_weights, require_classes, sample_weights
from upweight.models.estimator_outputs import Outputs, readable_predictions
from upweight.models.input_checks import transform
from upweight.models.pipeline import last_step, steps_before
from upweight.models.refit.bags import bags_of, has_bags, member_outputs
from upweight.models.refit.sample_weights import fit_clone, weight_keyword
from upweight.models.refit.seeds import is_seeded, seeded_clone
from upweight.models.unlearning import REFITTED, step_records

Array = NDArray[np.float64]
OUTPUT_TOLERANCE = 1e-9  # share of the largest output by which outputs of two trainings may differ by rounding
MAX_DRIFT = 1e-3  # largest distance of a refit from the given model, as a share of the largest output
LEFT_OUT_STRIDE = 4  # every fourth example is left out to see whether seeds matter
MAX_DRIFT_IN_NOISE = 3.0  # the same for a random model, in distances between refits with two seeds

log = logging.getLogger("upweight")


@dataclass(frozen=True, eq=False, repr=False)
class RefitModel(Refittable, EstimatorModel, Bagged):
    """A fitted estimator that is explained by fitting clones of it.

    Attributes:
        name: the class of the estimator, for messages.
        predictor: the estimator, which is never changed.
        outputs: which of its predictions are measured.
        measurement_of: the measurement of a query.
        training_outputs: its outputs on the training set that it was read with.
        is_numeric: whether the inputs of its last step are numbers, so that neighbours can be found among them.
        notes: sentences for the reader of scores.
        column_names: of the training set, for measurements of coefficients; None for x0, x1, ….
    """

    converges = False  # retraining starts anew

    name: str
    predictor: Any
    outputs: Outputs
    measurement_of: Measurement
    training_outputs: Array
    is_numeric: bool
    notes: Sequence[str] = ()
    column_names: tuple[str, ...] | None = None
    _cache: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def takes_fractions(self) -> bool:  # type: ignore[override]
        """Whether `fit` takes sample weights."""
        return weight_keyword(self.predictor) is not None

    @property
    def threads(self) -> bool:  # type: ignore[override]
        """Whether the estimator, or one inside it, trains with processes or threads of its own."""
        settings = self.predictor.get_params(deep=True)
        return any(name.rpartition("__")[2] == "n_jobs" and value not in (None, 1) for name, value in settings.items())

    @property
    def training_loss(self) -> TrainingLoss:
        """The loss of the outputs."""
        return self.outputs.family

    def identity(self) -> dict[str, str]:
        """Digests of the predictions on the training set, the loss, the measurement and the training settings."""
        settings = seeded_clone(self.predictor, 0).get_params(deep=True)  # without what fit stored in parts
        return digests(
            parameters=self.training_outputs,
            objective=None,
            loss=(self.outputs.kind, self.outputs.family),
            measurement=self.measurement_of,
            training=(type(self.predictor), relevant(type(self.predictor), settings)),
        )

    def lacks(self, capability: type) -> str | None:
        """Features exist only if the inputs of the last step are numbers, and members only in an ensemble with bags."""
        if capability is Embeddable and isinstance(self.measurement_of, ParameterMeasurement):
            return "coefficients are measured, which are no examples with neighbours"
        if capability is Embeddable and not self.is_numeric:
            return f"the inputs of this {self.name} are not numbers, so there are no distances between them"
        if capability is Bagged and not self._is_bagged:
            return f"this {self.name} is not an ensemble that records which examples each member was trained on"
        return None

    def outputs_for(self, examples: Examples) -> Array:
        """The outputs that are measured, (m, K). Raises ValueError if the estimator cannot take these inputs."""
        try:
            outputs = self.outputs.of(self.predictor, examples.x)
        except Exception as error:  # an estimator may raise anything
            raise ValueError(
                f"this {self.name} cannot predict these inputs ({type(error).__name__}: {error}); pass the inputs in "
                "the form in which they went into fit()"
            ) from error
        if not np.isfinite(outputs).all():
            raise ValueError(
                f"expected finite predictions of this {self.name}, got {outputs[~np.isfinite(outputs)][0]}"
            )
        return outputs

    def measure(self, queries: Examples) -> Array:
        """The measurement of every query."""
        if isinstance(self.measurement_of, ParameterMeasurement):
            at = self.predictor.coefficients(self.column_names)
            return np.full(len(queries), self.measurement_of.of_coefficients(at))
        return self.measurement_of.value(self.outputs.family, self.outputs_for(queries), queries.y)

    def parameter_query(self) -> Examples | None:
        """One query, named by the measurement, if that depends on the coefficients alone."""
        if not isinstance(self.measurement_of, ParameterMeasurement):
            return None
        return Examples(np.empty((1, 0)), ids=[self.measurement])

    def predict(self, examples: Examples) -> Predictions:
        """The estimator's own predictions, with readable labels."""
        if isinstance(self.measurement_of, ParameterMeasurement) and np.shape(examples.x) == (len(examples), 0):
            return Predictions(tuple(self.measure(examples).tolist()))  # not a query, but the measurement itself
        predicted, has_probabilities = self.predictor.predict(examples.x), self.outputs.kind == "probabilities"
        return readable_predictions(
            predicted, self.classes, examples.labels, lambda: self.outputs_for(examples) if has_probabilities else None
        )

    def embed(self, examples: Examples) -> Any:
        """The inputs of the last step, (n, d): what the steps before it give, or the inputs themselves."""
        steps = steps_before(self.predictor)
        features = examples.x if steps is None else transform(steps, examples.x)
        if is_sparse(features):
            return features.tocsr().astype(np.float64)
        return np.asarray(as_array(features), dtype=np.float64).reshape(len(examples), -1)

    def leaves(self, examples: Examples) -> NDArray[np.intp]:
        """The leaf of every example in every tree of the last step, (m, trees). Raises ValueError if it has none."""
        features, final = self.embed(examples), last_step(self.predictor)
        members = np.ravel(np.asarray(getattr(final, "estimators_", []), dtype=object)).tolist()
        trees = [final] if hasattr(final, "apply") else [member for member in members if hasattr(member, "apply")]
        if not trees:
            return super().leaves(examples)
        found = [np.asarray(tree.apply(features)).reshape(len(examples), -1) for tree in trees]
        return np.hstack(found).astype(np.intp)

    @property
    def _is_bagged(self) -> bool:
        return has_bags(self.predictor) and self.is_numeric and self.outputs.kind != "decision values"

    def bags(self, train: Examples) -> Array:
        """How often each member of the ensemble drew each example, (members, n)."""
        return bags_of(self.predictor, len(train))

    def measure_members(self, queries: Examples) -> Array:
        """The measurement of every query on every member of the ensemble, (members, m)."""
        family, features = self.outputs.family, self.embed(queries)
        outputs = member_outputs(self.predictor, features, family.classes)
        return np.stack([self.measurement_of.value(family, values, queries.y) for values in outputs])

    def retrain(self, train: Examples, weights: Array, seed: int = 0) -> RefitModel:
        """A clone of the whole estimator, with its preprocessing, fitted with these weights times the examples' own.

        Raises ValueError if the clone cannot be fitted to these examples, or cannot predict after that.
        """
        weights = checked_weights(train, weights)
        if self.classes is not None:
            require_classes(train, weights, self.outputs.family)
        fitted, _ = fit_clone(self.predictor, train, weights, seed)
        retrained = replace(self, predictor=fitted, notes=(), _cache={})
        retrained.outputs_for(train.take([0]))  # with few examples, some can be fitted but cannot predict
        return retrained

    def forget(self, train: Examples, remaining: NDArray[np.bool_], seed: int = 0, refit: bool = False) -> Unlearned:
        """A refit of the whole estimator on the remaining examples."""
        model = self.retrain(train, remaining.astype(np.float64), seed)
        return Unlearned(model.predictor, model, Route.REFIT, step_records(self.predictor, REFITTED))

    def trial(self, train: Examples) -> Trial:
        """The time of one refit, and whether seeds matter; computed once for each training set."""
        cache: DataCache[Trial] = self._cache.setdefault("trial", DataCache(1))
        return cache.get_or_make(train, lambda: self._trial(train))

    def _trial(self, train: Examples) -> Trial:
        start = time.perf_counter()
        fitted, warned = fit_clone(self.predictor, train, np.ones(len(train)), 0)
        seconds = time.perf_counter() - start
        log.info("one refit of this %s on %s examples took %.2g s", self.name, f"{len(train):,}", seconds)
        given = self.outputs_for(train)
        scale = max(1.0, float(np.abs(given).max()))
        drift = float(np.abs(self.outputs.of(fitted, train.x) - given).max())
        noise = self._seed_noise(train)
        is_random, notes = (
            noise > OUTPUT_TOLERANCE * scale,
            [f"Fitting this {self.name} warns: {text}" for text in warned[:2]],
        )
        if not is_random and drift > MAX_DRIFT * scale:
            raise ValueError(self._not_reproduced(drift))
        if not is_random or drift <= MAX_DRIFT * scale:
            return Trial(seconds, is_random, tuple(notes))
        if is_seeded(self.predictor) or drift > MAX_DRIFT_IN_NOISE * noise:
            notes.append(self._not_reproduced(drift))
        else:
            notes.append(
                f"This {self.name} was fitted without a seed, so its own training cannot be repeated: scores are "
                "effects on the trainings of other seeds. Fit it with random_state=0 to explain one training."
            )
        return Trial(seconds, is_random, tuple(notes))

    def _seed_noise(self, train: Examples) -> float:
        """The largest difference between outputs of two seeds.

        Some examples are left out of the training, because many models give the same outputs on their training examples
        with any seed.
        """
        weights = np.ones(len(train))
        weights[::LEFT_OUT_STRIDE] = 0.0
        try:
            first, second = (fit_clone(self.predictor, train, weights, seed)[0] for seed in (1, 2))
            return float(np.abs(self.outputs.of(first, train.x) - self.outputs.of(second, train.x)).max())
        except ValueError:  # a class was lost, for example
            first, second = (fit_clone(self.predictor, train, np.ones(len(train)), seed)[0] for seed in (1, 2))
        return float(np.abs(self.outputs.of(first, train.x) - self.outputs.of(second, train.x)).max())

    def _not_reproduced(self, drift: float) -> str:
        return (
            f"expected the data that {self.name} was fitted on, got examples on which a refit predicts something "
            f"else (by up to {drift:.2g}). Pass the same rows, labels and sample weights as to fit(); a model that was "
            "continued (warm_start, partial_fit), or whose settings were changed since, has to be fitted once more"
        )

    def measure_uninformed(self, train: Examples, weights: Array, queries: Examples) -> Array:
        """The measurement of the shares of classes, or of the mean target, for every query."""
        family = self.outputs.family
        targets = np.asarray(family.encode(np.asarray(train.y)), dtype=np.float64)
        total = weights * sample_weights(train)
        if total.any():
            mean = np.average(targets, axis=0, weights=total)
        else:
            mean = targets.mean(axis=0) if self.classes is None else np.full(targets.shape[1], targets.mean())
        if self.outputs.kind == "decision values":
            mean = np.zeros_like(mean)  # no preference for any class
        return self.measurement_of.value(family, np.tile(mean, (len(queries), 1)), queries.y)
