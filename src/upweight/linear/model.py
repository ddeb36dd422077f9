"""LinearModel: a trained generalised linear model behind a fixed feature map, with every capability in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.curvature_recipes import Arnoldi, Hessian, LiSSA, Nystrom
from upweight.core.data_cache import DataCache
from upweight.core.examples import Examples
from upweight.core.fitted_state import FittedState
from upweight.core.identity import digests
from upweight.core.measurement import Measurement
from upweight.core.model import Embeddable, Movable, Parametric, Perturbable, Predictions, Retrainable
from upweight.core.objective import Objective
from upweight.core.weights import checked_weights, example_counts, require_classes, sample_weights
from upweight.linear.curvature import LinearCurvature
from upweight.linear.design import Design
from upweight.linear.features import Features
from upweight.linear.losses.loss import LinearLoss
from upweight.linear.problem import Problem
from upweight.linear.rows import FactoredRows

Array = NDArray[np.float64]
ELSEWHERE = 0.25  # ‖∇J‖ in units of random-sign gradients from which the training data cannot be these
ELSEWHERE_HINGE = 0.9  # the same for the smoothed hinge, whose optimum is beside the hinge's
EXACT = 1e-10  # share of the data's own scale below which residuals are rounding
SAME = 0.9  # share of training predictions in which an unfinished model and its optimum must agree
REFIT = 100  # Newton steps of a refit at most


@dataclass(frozen=True, eq=False, repr=False)
class LinearModel(Perturbable, Parametric, Retrainable, Embeddable):
    """A generalised linear model as scikit-learn and others fit it.

    Attributes:
        name: the estimator, for people.
        design: raw inputs → Features, everything before the last step; it is held fixed when examples are removed.
        family: the loss.
        objective: how losses were put together, with the l2.
        theta: (K, d) trained parameters.
        measurement_of: what is asked of a query.
        predictor: the estimator itself, for `predict` and `predict_proba`; never changed.
        class_weights: class → weight, held at its value on the full training set.
        refit: trains the estimator itself again, `(features, targets, weights) -> theta`, where Newton steps on the
            loss are not its training (the hinge); None otherwise.
        again: fits a fresh copy of the estimator, `(examples, weights) -> (design, theta)`; None for kernel machines.
        counts_examples: the mean is over examples, whatever their weights (SGD); else over weights.
        unfinished: the solver itself says that it stopped before the optimum.
        notes: what a reader should know, as warnings.
        elsewhere: other training sets are not refused. handed_in: these are the parameters of `predictor`.
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
    again: Callable[[Examples, Array], tuple[Design, Array]] | None = None
    counts_examples: bool = False
    unfinished: bool = False
    notes: tuple[str, ...] = ()
    elsewhere: bool = False
    handed_in: bool = True
    _seen: dict[str, Any] = field(default_factory=dict, repr=False)

    def problem(self, train: Examples) -> Problem:
        """The training objective on these examples. Raises ValueError when the model was fitted on other data."""
        problems: DataCache[Problem] = self._seen.setdefault("problem", DataCache(1))
        return problems.get_or_make(train, lambda: self._problem(train))

    def _problem(self, train: Examples) -> Problem:
        if train.y is None:
            raise ValueError("the training set has no labels; pass Examples(x, y) with the y the model was fitted on")
        features = self._features(train)
        weights = sample_weights(train)
        counts = None if train.weights is None else example_counts(weights)
        if self.class_weights is not None:
            weights = weights * np.array([self.class_weights.get(label, 1.0) for label in train.y.tolist()])
        fixed = self.objective.l2 if self.objective.reduction == "sum" else 0.0
        each, shares = self.objective.l2 if self.objective.reduction == "mean" else 0.0, None
        if self.counts_examples:  # SGD decays with every row; with one of weight 0 too, whose share goes with nobody
            shares = (weights > 0).astype(np.float64)
            fixed += each * float((shares == 0).sum())
        targets = self.family.encode(train.y)
        problem = Problem(features, targets, weights, self.family, fixed, each, self.theta, shares, counts)
        if not self.elsewhere:
            self._recognise(problem)
        self._seen.pop("optimum", None)
        return problem

    def _recognise(self, problem: Problem) -> None:
        """Refuse data that the model was not fitted on: there its parameters are no optimum."""
        off = problem.off_optimum
        if self.refit is not None:  # however much a hinge is smoothed, it was trained with the hinge
            off = min(off, replace(problem, family=self.family.sharp()).off_optimum)
        if problem.noise <= EXACT * problem.scale:
            raise ValueError(
                f"{self.name} fits its training data exactly: no example leaves a residual, so none has an effect that "
                "could be traced; add l2 (Ridge(alpha=…), a smaller C) or examples"
            )
        if off <= (ELSEWHERE if self.refit is None else ELSEWHERE_HINGE):
            return
        if self.unfinished and self._agrees_with_optimum(problem):
            return
        raise ValueError(
            f"expected the data that {self.name} was fitted on: at these examples the gradient of its training "
            f"objective is {off:.2g} of what random data would leave (0 = optimum). Pass the same rows, labels and "
            "sample weights as to fit(); if they are the same, the solver stopped too early (raise max_iter, lower tol)"
            + ("" if self.objective.l2 else ", or there is no optimum: without l2, separable classes have none")
        )

    def _agrees_with_optimum(self, problem: Problem) -> bool:
        """Whether a model that stopped on the way predicts the training set as the optimum it was heading for does."""
        there = LinearCurvature(problem, None, 0.0).settled().problem.outputs
        ours, theirs = self.family.expand(problem.outputs), self.family.expand(there)
        if self.family.classes is None:
            return bool(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] >= SAME)
        if ours.shape[1] == 1:
            return bool(np.mean((ours > 0) == (theirs > 0)) >= SAME)
        return bool(np.mean(ours.argmax(axis=1) == theirs.argmax(axis=1)) >= SAME)

    @property
    def measurement(self) -> str:
        """What is measured, in words."""
        return self.measurement_of.described(self.family)

    def version(self) -> FittedState:
        """What the estimator and its steps hold: another, once they were fitted again."""
        return FittedState(self.predictor)

    def identity(self) -> dict[str, str]:
        """The parameters with all that comes before them, the objective, the family, the measurement, the trainer."""
        return digests(
            parameters=(self.theta, self.design),
            objective=(self.objective, self.counts_examples, self.class_weights),
            loss=self.family,
            measurement=self.measurement_of,
            training=(self.name, self.refit, self.again),
        )

    def embed(self, examples: Examples) -> Any:
        """The columns that enter the linear model, without the intercept's, (n, d); sparse where they are."""
        features = self._features(examples)
        return features.x

    @property
    def parameters(self) -> Array:
        """θ, one vector."""
        return self.theta.ravel()

    def with_parameters(self, parameters: Array) -> LinearModel:
        """The same model at another θ."""
        theta = np.asarray(parameters, dtype=np.float64).reshape(self.theta.shape)
        same = self.handed_in and np.array_equal(theta, self.theta)
        shared = self._seen.setdefault("features", DataCache(2))
        return replace(self, theta=theta, handed_in=same, _seen={"features": shared})

    def hypothetical(self, new_inputs: bool = False) -> LinearModel:
        """Without the check of the training set; for new inputs with the parameters of the columns."""
        if not new_inputs or self.design.coordinates is None:
            return replace(self, elsewhere=True, _seen={})
        if not self.design.coordinates.is_linear:
            raise TypeError(
                f"{self.name} is a kernel machine, its parameters are made of its training inputs: neither new inputs "
                "nor moved ones have a place in it; use a linear model on features of your own"
            )
        design, theta = self.design.on_columns(self.theta)
        return replace(self, design=design, theta=theta, elsewhere=True, _seen={})

    def measure(self, queries: Examples) -> Array:
        """The measurement of every query."""
        return self.measurement_of.value(self.family, self._features(queries).times(self.theta.T), queries.y)

    def measure_shifted(self, queries: Examples, shifts: Array) -> Array:
        """The measurement at θ + shift, for every shift (g, K·d): (m, g)."""
        features = self._features(queries)
        base = features.times(self.theta.T)
        wide = shifts.reshape(-1, *self.theta.shape)
        out = np.empty((len(queries), len(wide)))
        for g, shift in enumerate(wide):
            out[:, g] = self.measurement_of.value(self.family, base + features.times(shift.T), queries.y)
        return out

    def predict(self, examples: Examples) -> Predictions:
        """The estimator's own predictions, as readable labels; at other parameters what it would say there."""
        if not self.handed_in:
            return self._predict_here(examples)
        predicted = self.predictor.predict(examples.x)
        readable = tuple(_readable(v, examples.labels) for v in predicted.tolist())
        if self.family.classes is None:
            return Predictions(readable)
        classes = tuple(_readable(v, examples.labels) for v in self.family.classes.tolist())
        has = hasattr(self.predictor, "predict_proba")
        return Predictions(readable, classes, np.asarray(self.predictor.predict_proba(examples.x)) if has else None)

    def _predict_here(self, examples: Examples) -> Predictions:
        z = self._features(examples).times(self.theta.T)
        if self.family.classes is None:
            said = self.family.expand(z)
            return Predictions(tuple((said[:, 0] if said.shape[1] == 1 else said).tolist()))
        classes = tuple(_readable(v, examples.labels) for v in self.family.classes.tolist())
        # A machine's probabilities are fitted beside it, and theta does not know them.
        has = hasattr(self.predictor, "predict_proba") and self.refit is None
        chances = np.asarray(self.family.probabilities(z)) if has else None
        return Predictions(tuple(classes[place] for place in self.family.decide(z)), classes, chances)

    def movable(self, examples: Examples) -> Movable:
        """The raw inputs, where every step of the pipeline can be followed backwards; else the last step's columns."""
        inputs = self.design.inputs
        if inputs.has_pullback:
            names = None if examples.names is None else tuple(examples.names)
            return Movable(np.asarray(inputs.raw(examples.x), dtype=np.float64), names, "inputs", True)
        said = f"columns that enter {self.name}, which the steps before it make of the inputs"
        return Movable(np.asarray(inputs.raw(inputs(examples.x))), inputs.names, said, False)

    def input_gradients(self, train: Examples, vectors: Array) -> Array:
        """wᵢ (Vᵀrᵢ + ΘᵀAᵢVxᵢ), pulled back through the pipeline to the raw inputs where that can be done.

        Source: Koh & Liang (2017), §2.2, ∇ₓ∇θ of the loss, contracted with v.
        """
        if self.design.coordinates is not None:
            raise TypeError(f"the parameters of {self.name} are made of its training inputs; ask hypothetical() of it")
        problem, columns = self.problem(train), self.design.columns_of(self.theta)
        derivatives, wide = problem.derivatives, vectors.reshape(-1, *self.theta.shape)
        out = np.empty((len(wide), len(train), columns.shape[1]))
        for k, v in enumerate(wide):
            bent = derivatives.apply(problem.features.times(v.T))
            out[k] = derivatives.gradient @ self.design.columns_of(v) + bent @ columns
        out *= problem.weights[:, None]
        return self.design.inputs.pull_back(train.x, out) if self.design.inputs.has_pullback else out

    def loss_rows(self, train: Examples) -> FactoredRows:
        """wᵢ(∇ℓᵢ + l2 share): the share is zero where the objective sums losses."""
        problem = self.problem(train)
        slopes = problem.weights[:, None] * problem.derivatives.gradient
        if problem.each == 0:
            return FactoredRows(problem.features, slopes)
        return FactoredRows(
            problem.features, slopes, problem.carried, problem.each * problem.penalty_gradient(problem.theta)
        )

    def measure_rows(self, queries: Examples) -> FactoredRows:
        """∇θ of every query's measurement."""
        features = self._features(queries)
        z = features.times(self.theta.T)
        return FactoredRows(features, self.measurement_of.gradient(self.family, z, queries.y))

    def gradient_norm(self, train: Examples) -> float | None:
        """How far the parameters are from the optimum on these examples; None where training minimised the hinge."""
        return self.problem(train).gradient_norm if self.refit is None else None

    def dispersion(self, train: Examples, effective: float) -> float:
        """Residual sum of squares over n − p for a squared loss, 1 for a likelihood.

        n is how many examples the rows count for. Weights that are not all whole are precisions: there every row of
        weight above 0 counts once (weighted least squares).
        """
        if not self.family.constant:
            return 1.0
        problem = self.problem(train)
        squares = 2.0 * float(problem.weights @ problem.derivatives.loss)
        count = float(example_counts(sample_weights(train)).sum())
        return max(squares / max(count - effective, 1.0), 1e-300)

    def curvature(self, train: Examples, recipe: Any, damping: float | None) -> LinearCurvature:
        """The exact Hessian; recipe is `Hessian(solver=Direct() | CG())` or None. Needs no damping where it has l2."""
        if not (recipe is None or isinstance(recipe, Hessian)) or isinstance(
            getattr(recipe, "solver", None), LiSSA | Arnoldi | Nystrom
        ):
            raise TypeError(
                f"expected Hessian(solver=Direct() | CG()) or None for {self.name}, whose Hessian is exact, "
                f"got {recipe!r}"
            )
        return LinearCurvature(self.problem(train), recipe, damping or 0.0)

    def retrain(self, train: Examples, weights: Array, seed: int = 0) -> LinearModel:
        """The optimum under these weights, by Newton steps to a gradient of 1e-11; `seed` changes nothing (convex).

        Models whose training is no smooth optimisation (the hinge) are trained again by the estimator itself.
        """
        weights = checked_weights(train, weights)
        require_classes(train, weights, self.family)
        problem = self.problem(train)
        if self.refit is not None:
            # a regulariser that goes with the examples is the same as more weight on those that stay
            kept = weights * problem.weights * (problem.ridge / problem.ridge_of(weights))
            return self.with_parameters(self.refit(problem.features, problem.targets, kept))
        if "optimum" not in self._seen:  # warm start: where all refits of this model begin
            self._seen["optimum"] = LinearCurvature(problem, None, 0.0).settled()
        start = self._seen["optimum"]
        moved = start.after(weights[None], None, REFIT, 1e-11)
        return self.with_parameters(start.parameters + moved.shifts[0])

    def retrain_roughly(self, train: Examples, weights: Array, seed: int = 0) -> LinearModel:
        """By the estimator's own solver and tolerance, where it has one on the columns."""
        if self.again is None:
            return self.retrain(train, weights, seed)
        require_classes(train, weights, self.family)
        kept = np.flatnonzero(weights * sample_weights(train))
        design, theta = self.again(train.take(kept), weights[kept])
        return replace(self, design=design, theta=theta, elsewhere=True, handed_in=False, _seen={})

    def _features(self, examples: Examples) -> Features:
        """Features of these examples; the last two sets are remembered, so that a pipeline runs once per set."""
        known: DataCache[Features] = self._seen.setdefault("features", DataCache(2))
        return known.get_or_make(examples, lambda: self.design(examples.x))


def _readable(value: Any, labels: dict[Any, str]) -> Any:
    return labels.get(value, value) if not isinstance(value, list) else value
