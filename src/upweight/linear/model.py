"""A trained generalised linear model behind a fixed feature map, with its capabilities in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature import Curvature, ExactCurvature
from upweight.core.curvature_recipes import Hessian
from upweight.core.deprecation import RenamedAttribute, ReplacedBy, accept_old_fields
from upweight.core.estimator_model import EstimatorModel
from upweight.core.examples import Examples
from upweight.core.forecast import Forecast
from upweight.core.forgettable import Forgettable, Unlearned
from upweight.core.head_objective import HeadObjective
from upweight.core.identity import digests
from upweight.core.labels import require_labels
from upweight.core.measurement import Measurement, TrainingLoss
from upweight.core.model import Movable, Parametric, Perturbable, Predictions
from upweight.core.objective import Objective
from upweight.core.parameter_measurement import Coefficients, ParameterMeasurement
from upweight.core.rows import DenseRows
from upweight.core.weights import checked_weights, require_classes, sample_weights
from upweight.linear.coefficients import CoefficientMap
from upweight.linear.curvature_choice import curvature_of, require_exact_recipe
from upweight.linear.design import Design
from upweight.linear.features import Features
from upweight.linear.forecast import forecast_fit
from upweight.linear.head_objective import head_objective
from upweight.linear.loss_rows import input_gradients, loss_rows, movable_columns
from upweight.linear.losses.loss import LinearLoss
from upweight.linear.missing_rows import Stopping
from upweight.linear.model_cache import ModelCache, OptimumCurvature
from upweight.linear.observations import Observations
from upweight.linear.predictions import predictions_at, predictions_of_estimator
from upweight.linear.problem import Problem
from upweight.linear.query_measurement import CoefficientMeasurement, OutputMeasurement
from upweight.linear.retraining import retrained_parameters
from upweight.linear.rows import FactoredRows
from upweight.linear.training_data_check import SolverState, missing_rows, require_training_data
from upweight.linear.training_problem import Weighting, training_problem

Array = NDArray[np.float64]


@accept_old_fields(
    {
        "handed_in": ReplacedBy("is_original"),
        "elsewhere": ReplacedBy("is_hypothetical"),
        "again": ReplacedBy("fit_copy"),
    }
)
@dataclass(frozen=True, eq=False, repr=False)
class LinearModel(Perturbable, Parametric, EstimatorModel):
    """A generalised linear model as scikit-learn and others fit it.

    Attributes:
        name: the estimator, for people.
        design: the map from raw inputs to features, all steps before the linear model; fixed when examples are removed.
        family: the loss.
        objective: how the losses were combined, with the l2.
        theta: (K, d) trained parameters.
        measurement_of: the measurement of a query.
        predictor: the estimator itself, for `predict` and `predict_proba`; never changed.
        class_weights: class → weight, fixed at its value on the full training set.
        refit: retrains the estimator itself, `(features, targets, weights) -> theta`, for losses with kinks; else None.
        fit_copy: fits a copy of the estimator, `(examples, weights) -> (design, theta)`; None for kernel machines.
        counts_examples: the objective is a mean over examples, whatever their weights (SGD); else over weights.
        unfinished: the solver reported that it stopped before the optimum.
        stopping: the gradient at which the solver stopped by itself; None if that is not known.
        at_optimum: the user accepts scores at an optimum that predicts something else; None on data of another optimum.
        notes: warnings for the reader of the scores.
        is_hypothetical: accept training sets that the model was not fitted on.
        is_original: `theta` are the parameters of `predictor`.
        column_names: of the columns that enter the linear model; None for x0, x1, ….
        forgetting: (model, train, remaining, seed, refit) → the estimator on these examples; None without one.
        observations: how many observations every row stands for, and where the dispersion comes from.
    """

    name: str
    design: Design
    family: LinearLoss
    objective: Objective
    theta: Array
    measurement_of: Measurement
    predictor: Any
    class_weights: dict[Any, float] | None = None
    refit: Callable[[Features, NDArray[Any], Array], Array] | None = None
    fit_copy: Callable[[Examples, Array], tuple[Design, Array]] | None = None
    counts_examples: bool = False
    unfinished: bool = False
    stopping: Stopping | None = None
    at_optimum: bool | None = False
    notes: tuple[str, ...] = ()
    is_hypothetical: bool = False
    is_original: bool = True
    handed_in = RenamedAttribute("is_original")
    elsewhere = RenamedAttribute("is_hypothetical")
    again = RenamedAttribute("fit_copy")
    column_names: tuple[str, ...] | None = None
    forgetting: Callable[[LinearModel, Examples, NDArray[np.bool_], int, bool], Unlearned] | None = None
    observations: Observations = field(default_factory=Observations)
    _cache: ModelCache = field(default_factory=ModelCache, repr=False)

    def problem(self, train: Examples) -> Problem:
        """The training objective on these examples. Raises ValueError if the model was fitted on other data."""
        return self._cache.problem.get_or_make(train, lambda: self._make_problem(train))

    def _make_problem(self, train: Examples) -> Problem:
        require_labels(train)
        weighting = Weighting(self.objective, self.class_weights, self.counts_examples, self.observations)
        problem = training_problem(train, self._features(train), self.family, self.theta, weighting)
        if not self.is_hypothetical:
            accepted, has_refit = bool(self.at_optimum), self.refit is not None
            require_training_data(problem, SolverState(self.name, has_refit, self.unfinished, self.stopping, accepted))
        self._cache.optimum = None
        return problem

    def why_off_optimum(self, train: Examples) -> str | None:
        """A sentence if rows seem to be missing: the solver stopped at a smaller gradient than there is here."""
        if not self.is_original or self.is_hypothetical:
            return None
        return self._cache.why_off_optimum.get_or_make(
            train, lambda: missing_rows(self.problem(train), self.name, self.stopping)
        )

    def is_within_tolerance(self, train: Examples) -> bool:
        """Whether the solver reached the gradient per unit of weight that it was asked for, which refits do too."""
        stopping = self.stopping
        return stopping is not None and stopping.scale == "weight" and stopping.is_reached(self.problem(train))

    def parameter_query(self) -> Examples | None:
        """One query, named by the measurement, if that depends on the coefficients alone."""
        if not isinstance(self.measurement_of, ParameterMeasurement):
            return None
        return Examples(np.empty((1, 0)), ids=[self.measurement])

    def coefficient_map(self) -> CoefficientMap:
        """The estimator's coefficients as a function of θ. Raises TypeError if columns have none (a kernel)."""
        return CoefficientMap(self.design, self.family, self.column_names, self.name)

    def coefficients(self, theta: Array | None = None) -> Coefficients:
        """Coefficients and intercepts in the estimator's own form, with their names; at other parameters if given."""
        return self.coefficient_map().of(self.theta if theta is None else theta)

    @property
    def training_loss(self) -> TrainingLoss:
        """The loss of the outputs."""
        return self.family

    def identity(self) -> dict[str, str]:
        """Digests of parameters and feature map, objective, loss, measurement and training."""
        return digests(
            parameters=(self.theta, self.design),
            objective=(self.objective, self.counts_examples, self.class_weights),
            loss=self.family,
            measurement=self.measurement_of,
            training=(self.name, self.refit, self.fit_copy),
        )

    def embed(self, examples: Examples) -> Any:
        """The columns that enter the linear model, without the intercept, (n, d); sparse if the features are."""
        return self._features(examples).x

    def head_objective(self, train: Examples) -> HeadObjective | None:
        """The objective of a logistic or softmax regression with l2 and no penalty on the intercept; else None."""
        return None if self.refit is not None else head_objective(self.problem(train))

    @property
    def parameters(self) -> Array:
        """θ as one vector."""
        return self.theta.ravel()

    def with_parameters(self, parameters: Array) -> LinearModel:
        """The same model at another θ."""
        theta = np.asarray(parameters, dtype=np.float64).reshape(self.theta.shape)
        is_unchanged = self.is_original and np.array_equal(theta, self.theta)
        return replace(self, theta=theta, is_original=is_unchanged, _cache=ModelCache(self._cache.features))

    def with_observations(self, observations: Observations) -> LinearModel:
        """The same model with what is known of the rows that it was fitted on."""
        return replace(self, observations=observations, _cache=ModelCache(self._cache.features))

    def hypothetical(self, new_inputs: bool = False) -> LinearModel:
        """The model without the check of the training set; for new inputs, with parameters on the columns."""
        design, theta = self.design, self.theta
        if new_inputs:
            design, theta = design.for_new_inputs(theta, self.name)
        return replace(self, design=design, theta=theta, is_hypothetical=True, at_optimum=None, _cache=ModelCache())

    def measure(self, queries: Examples) -> Array:
        """The measurement of every query."""
        return self._query_measurement().values(queries)

    def measure_shifted(self, queries: Examples, shifts: Array) -> Array:
        """The measurement at θ + shift, for every shift (g, K·d): (m, g)."""
        return self._query_measurement().shifted_values(queries, shifts)

    def predict(self, examples: Examples) -> Predictions:
        """The estimator's predictions as readable labels; at other parameters, those of the linear model."""
        if isinstance(self.measurement_of, ParameterMeasurement) and np.shape(examples.x) == (len(examples), 0):
            return Predictions(tuple(self.measure(examples).tolist()))  # not a query, but the measurement itself
        if self.is_original:
            return predictions_of_estimator(self.predictor, self.family, examples)
        # The probabilities of a support vector machine are a second fit, which is not part of theta.
        has_probabilities = hasattr(self.predictor, "predict_proba") and self.refit is None
        outputs = self._features(examples).times(self.theta.T)
        return predictions_at(outputs, self.family, examples.labels, has_probabilities)

    def movable(self, examples: Examples) -> Movable:
        """The raw inputs if gradients can be backpropagated through the pipeline; else the columns of its last step."""
        return movable_columns(self.design, self.name, examples)

    def input_gradients(self, train: Examples, vectors: Array) -> Array:
        """∂⟨rowᵢ, v⟩/∂xᵢ for vectors v (k, K·d), at the raw inputs if the pipeline can be backpropagated through."""
        return input_gradients(self.problem(train), self.design, self.name, train.x, vectors)

    def loss_rows(self, train: Examples) -> FactoredRows:
        """wᵢ(∇ℓᵢ + the example's share of the l2 gradient); the share is zero if the objective sums losses."""
        return loss_rows(self.problem(train))

    def measure_rows(self, queries: Examples) -> FactoredRows | DenseRows:
        """∇θ of every query's measurement."""
        return self._query_measurement().gradients(queries)

    def gradient_norm(self, train: Examples) -> float | None:
        """How far the parameters are from the optimum on these examples; None if training minimised the hinge."""
        return self.problem(train).gradient_norm if self.refit is None else None

    def dispersion(self, train: Examples, effective: float) -> float:
        """Pearson's estimate with `effective` parameters, or what it is fixed at."""
        fixed = self.fixed_dispersion
        return self.problem(train).dispersion(effective) if fixed is None else fixed

    @property
    def fixed_dispersion(self) -> float | None:
        """The dispersion if it is not estimated, such as 1 for a likelihood without one; else None."""
        return self.observations.fixed_dispersion(self.family.has_dispersion)

    def curvature(self, train: Examples, recipe: Any, damping: float | None) -> ExactCurvature:
        """The exact Hessian; `recipe` is `Hessian(solver=Direct() | CG())` or None. With l2 it needs no damping."""
        require_exact_recipe(recipe, self.name)
        curvature = curvature_of(self.problem(train), recipe, damping or 0.0)
        if recipe is None and not damping:
            self._cache.curvature = ref(curvature)
        return curvature

    def forecast(
        self, recipe: Any, train: Examples, queries: int | None = None, fitted: Curvature | None = None
    ) -> Forecast | None:
        """What fitting takes if the Hessian is factored; None if that is short or not known."""
        chosen = getattr(recipe, "curvature", "none")
        if queries is not None or self.refit is not None or not (chosen is None or isinstance(chosen, Hessian)):
            return None
        return forecast_fit(self.problem(train), chosen, getattr(recipe, "correction", None) is not None)

    def retrain(self, train: Examples, weights: Array, seed: int = 0) -> LinearModel:
        """The optimum under these weights, by Newton steps; `seed` changes nothing, because the objective is convex.

        Models trained with the hinge, which is not smooth, are retrained by the estimator itself.
        """
        weights = checked_weights(train, weights)
        require_classes(train, weights, self.family)
        problem = self.problem(train)
        if self.refit is not None:
            return self.with_parameters(self.refit(problem.features, problem.targets, problem.scaled_weights(weights)))
        return self.with_parameters(retrained_parameters(self.optimum(train), weights))

    def optimum(self, train: Examples) -> OptimumCurvature:
        """The curvature at the optimum on the training set: the warm start of all retrainings."""
        return self._cache.optimum_of(self.problem(train))

    def forget(self, train: Examples, remaining: NDArray[np.bool_], seed: int = 0, refit: bool = False) -> Unlearned:
        """The estimator at the optimum on the remaining examples, with its steps refitted; or a refit."""
        assert self.forgetting is not None
        return self.forgetting(self, train, remaining, seed, refit)

    def lacks(self, capability: type) -> str | None:
        """A model that was read from no estimator has none to give back."""
        has_none = capability is Forgettable and self.forgetting is None
        return f"there is no estimator behind this {self.name}" if has_none else None

    def know_features(self, examples: Examples, matrix: Any) -> None:
        """Keep what the steps make of the training examples, so that they do not run again.

        Copies of an example have to reach a kink of the loss together: their features are computed one by one then,
        and equal to the last bit.
        """
        has_kinks = self.refit is not None
        of_design = self.design.features_of if has_kinks else self.design.training_features
        self._cache.features.get_or_make(examples, lambda: of_design(matrix))

    def retrain_roughly(self, train: Examples, weights: Array, seed: int = 0) -> LinearModel:
        """Retrain with the estimator's own solver and tolerance, if it works on the columns and knows all classes.

        It does not know a class all of whose examples have weight 0: its outputs are those of the others.
        """
        if self.fit_copy is None:
            return self.retrain(train, weights, seed)
        require_classes(train, weights, self.family)
        remaining = np.flatnonzero(weights * sample_weights(train))
        design, theta = self.fit_copy(train.take(remaining), weights[remaining])
        if theta.shape != self.theta.shape:
            return self.retrain(train, weights, seed)
        return replace(self, design=design, theta=theta, is_original=False).hypothetical()

    def _features(self, examples: Examples) -> Features:
        """Features of these examples; those of the training set and of the last two sets are cached.

        So the steps before the model run once per set.
        """
        known = self._cache.problem.get(examples)
        if known is not None:
            return known.features
        return self._cache.features.get_or_make(examples, lambda: self.design(examples.x))

    def _query_measurement(self) -> OutputMeasurement | CoefficientMeasurement:
        if isinstance(self.measurement_of, ParameterMeasurement):
            return CoefficientMeasurement(self.measurement_of, self.coefficient_map(), self.theta)
        return OutputMeasurement(self.measurement_of, self.family, self._features, self.theta)
