"""explainable: from a fitted estimator to a model, by the first family that reads it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass, replace
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples, require_examples
from upweight.core.library_calls import library_call
from upweight.core.measurement import Measurement, as_measurement
from upweight.core.model import Retrainable
from upweight.core.model_reader import ModelReader, UnsupportedSettingsError
from upweight.core.parameter_measurement import PValue
from upweight.core.plugins import MODELS, plugins, warn_about
from upweight.core.refittable import Refittable
from upweight.core.weights import require_any_weight
from upweight.models import refit
from upweight.models.pipeline import last_step
from upweight.models.wrappers import read_through
from upweight.trees.boosting_loss import BoostingLoss

# The modules here that are model readers, in the order in which they are tried.
FAMILIES = (
    "lightgbm",
    "xgboost",
    "catboost",
    "sklearn.trees",
    "sklearn.linear_models",
    "sklearn.closed_form",
    "sklearn.compositions",
    "pytorch.layered_perceptrons",
)
OPTIONS = {  # option of `explainable` → the models that it is for
    "smoothing": "support vector machines",
    "objective": "models with an l2 on their parameters",
    "loss": "boosters trained on an objective of your own",
    "at": "models whose training ends at an optimum of their parameters",
}


@library_call
def explainable(
    estimator: Any,
    train: Examples,
    measure: Measurement | Callable[[NDArray[np.float64], Any], Any] | None = None,
    smoothing: float | None = None,
    objective: Literal["sum", "mean"] | None = None,
    *,
    loss: BoostingLoss | None = None,
    at: Literal["model", "optimum"] | None = None,
) -> Retrainable:
    """The model that attributors are fitted on, by the first family that reads the estimator.

    Linear models and trees have families of their own, which use what is inside the estimator. Every other classifier
    and regressor with the interface of scikit-learn is explained by refitting it (`refittable`).

    Args:
        estimator: a fitted estimator of scikit-learn, a booster of LightGBM, XGBoost or CatBoost, or a Pipeline that
            ends in one; results of statsmodels, with `train=examples_of(results)`; or an estimator that an installed
            plugin reads (`ModelReader`). It is never changed.
        train: the examples that it was fitted on, as passed to `fit` (weights included).
        measure: the measurement of a query: `Loss()` (default), `Margin()`, `Probability(of=…)`, or a function
            `f(outputs, labels) -> (m,)`. `Coefficient(…)` and `ParameterFunction(…)` measure a linear model itself,
            `PValue(…)` results of statsmodels.
        smoothing: temperature t of the smoothed hinge for support vector machines (Koh & Liang 2017, §4.2). The default
            is theirs, .001. Smaller is closer to retraining and slower.
        objective: "sum" if the l2 stays as it is when an example is removed, "mean" if losses are averaged anew. The
            default is what the estimator minimises.
        loss: the loss of a booster that was trained on an objective of your own (`upweight.trees.losses.Custom`).
        at: "optimum" accepts scores that are taken at the optimum of the training objective even if the estimator
            stopped so far from it that it predicts something else; the scores then have a warning. Such queries are
            refused by default ("model"). Predictions are those of the estimator in both cases.

    Raises:
        TypeError: it is neither a classifier nor a regressor; or an option is for other estimators.
        ValueError: the estimator is not fitted, or was not fitted on `train`; its penalty has no Hessian (l1), or its
            objective is not known.
    """
    require_examples(train, "train")
    require_any_weight(train)
    given, (estimator, notes) = estimator, _inside(estimator, train, isinstance(measure, PValue))
    final = last_step(estimator)
    readers = _readers_of(estimator)  # plugins are tried only if no built-in family reads it
    first = next(readers, None)
    if first is None:
        raise _unsupported(final)
    named = {"smoothing": smoothing, "objective": objective, "loss": loss, "at": at}
    options = {name: value for name, value in named.items() if value is not None}
    accepted = inspect.signature(first.read).parameters
    for name in options:
        if name not in accepted:
            raise TypeError(f"{name}= is for {OPTIONS[name]}, got a {type(final).__name__}; leave it out")
    reason: UnsupportedSettingsError | None = None
    for reader in chain([first], readers):
        if reader is refit and reason is not None:
            break
        try:
            read: Callable[..., Retrainable] = reader.read
            model = _with_notes(read(estimator, train, as_measurement(measure), **options), notes)
            return _with_observations(model, given, train)
        except UnsupportedSettingsError as error:
            if options:
                raise
            reason = error
    assert reason is not None
    if not refit.reads(estimator):
        raise reason
    try:
        model = refit.read(estimator, train, as_measurement(measure), reason=str(reason))
    except ValueError as failure:
        raise ValueError(f"{reason}. Nor can it be refitted: {failure}") from failure
    return _with_notes(model, notes)


def _with_notes(model: Retrainable, notes: tuple[str, ...]) -> Retrainable:
    """The model with notes about the wrappers that it was read through."""
    return replace(model, notes=(*notes, *model.notes)) if notes and is_dataclass(model) else model


def _with_observations(model: Retrainable, given: Any, train: Examples) -> Retrainable:
    """A linear model of results of statsmodels with what these say of their rows and their dispersion."""
    if not _are_results(given):
        return model
    from upweight.models.statsmodels_observations import with_observations
    from upweight.models.statsmodels_results import examples_of

    return with_observations(model, given, examples_of(given), train)


@library_call
def refittable(
    estimator: Any, train: Examples, measure: Measurement | Callable[[NDArray[np.float64], Any], Any] | None = None
) -> Refittable:
    """Any classifier or regressor with the interface of scikit-learn, as a model that is explained by refitting it.

    Whole pipelines, searches and other wrappers are cloned and fitted anew, with all choices that they make. Nothing
    inside the estimator is used, so the same call also serves estimators that have a family of their own.

    Args:
        estimator: the fitted estimator. It is never changed.
        train: the examples that it was fitted on, as passed to `fit` (weights included).
        measure: as in `explainable`. `Loss()` is half the squared error of numbers and of probabilities (half the Brier
            score), the logistic loss of decision values if there are no probabilities, and 1 for a wrong label if there
            are none either.

    Raises:
        TypeError: it is neither a classifier nor a regressor.
        ValueError: it cannot be cloned, is not fitted, cannot predict `train`, or does not know its labels.
    """
    require_examples(train, "train")
    require_any_weight(train)
    notes: tuple[str, ...] = ()
    if _are_results(estimator):
        estimator, notes = _inside(estimator, train)
    if not refit.reads(estimator):
        raise _unsupported(last_step(estimator))
    model = refit.read(estimator, train, as_measurement(measure))
    return replace(model, notes=(*notes, *model.notes))


def _are_results(estimator: Any) -> bool:
    """Whether this comes from statsmodels; only then is the module that reads it imported."""
    return type(estimator).__module__.partition(".")[0] == "statsmodels"


def _inside(estimator: Any, train: Examples, is_tested: bool = False) -> tuple[Any, tuple[str, ...]]:
    """The estimator inside all wrappers, or the one that results of statsmodels stand for, and notes.

    `is_tested`: its coefficients need tests, which only statsmodels itself has.
    """
    if not _are_results(estimator):
        return read_through(estimator)
    from upweight.models.statsmodels_results import are_results, as_estimator, require_design

    if not are_results(estimator):
        raise TypeError(f"expected results of statsmodels, as fit() returns them, got {type(estimator).__name__}")
    require_design(estimator, train)
    return as_estimator(estimator, is_tested)


def _unsupported(estimator: Any) -> TypeError:
    """The error for an object that no family reads."""
    name = type(estimator).__name__
    if hasattr(estimator, "named_parameters"):
        return TypeError(f"expected an estimator, got the network {name}; wrap it as uw.TorchModel(net, loss)")
    return TypeError(
        f"expected a classifier or a regressor that upweight can read, got {name}. Supported are all estimators with "
        "fit, predict and get_params that scikit-learn calls a classifier or a regressor (sklearn.base.is_classifier), "
        "pipelines that end in one, and boosters of LightGBM, XGBoost and CatBoost; for any other model write a "
        "subclass of uw.Retrainable, and use uw.LeaveOneOut, which only retrains it"
    )


def _readers_of(estimator: Any) -> Iterator[ModelReader]:
    """The families that read the estimator: built-in ones, then plugins by name, and last the one that refits it."""
    for family in FAMILIES:
        built_in: ModelReader = importlib.import_module(f"upweight.models.{family}")
        if built_in.reads(estimator):
            yield built_in
    for plugin in plugins(MODELS, frozenset(family.partition(".")[0] for family in FAMILIES), _misfit).values():
        try:
            is_read = plugin.loaded.reads(estimator)
        except Exception as error:  # a plugin may raise anything
            warn_about(plugin.point, f"reads({type(estimator).__name__}) raised {type(error).__name__}: {error}")
            continue
        if is_read:
            yield plugin.loaded
    if refit.reads(estimator):
        yield refit


def _misfit(plugin: Any) -> str | None:
    """Why this object is not a model reader; None if it is one."""
    if all(callable(getattr(plugin, name, None)) for name in ("reads", "read")):
        return None
    return f"expected a module or object with the functions `reads` and `read` (upweight.ModelReader), got {plugin!r}"
