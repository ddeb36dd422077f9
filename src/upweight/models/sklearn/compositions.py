"""Reads wrappers whose members are trained on their own: votes, one class against others, several targets, chains.

Only if every member has exact removals; else the whole wrapper is explained by refits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier

from upweight.core.examples import Examples
from upweight.core.input_kinds import as_array, is_sparse, take_rows
from upweight.core.labels import require_labels
from upweight.core.measurement import Function, Measurement
from upweight.core.model_reader import UnsupportedSettingsError
from upweight.core.parameter_measurement import ParameterMeasurement
from upweight.models.estimator_outputs import outputs_of
from upweight.models.fitted_estimators import require_fitted
from upweight.models.input_checks import transform
from upweight.models.pipeline import last_step, steps_before
from upweight.models.sklearn import closed_form, linear_models
from upweight.models.sklearn.composition_members import Member
from upweight.models.sklearn.composition_model import CompositionModel, require_same_outputs

Part = tuple[Any, Any, NDArray[Any], NDArray[np.intp]]  # fitted member, its inputs, its targets, positions of its rows
METHODS = ("predict", "predict_proba", "decision_function")


def reads(estimator: Any) -> bool:
    """Whether the estimator, or the last step of a pipeline, is such a wrapper."""
    return type(last_step(estimator)).__name__ in PARTS


def read(estimator: Any, train: Examples, measure: Measurement) -> CompositionModel:
    """The fitted wrapper as a model whose members are recomputed without examples.

    Raises:
        UnsupportedSettingsError: a member has no exact removals.
        ValueError: it is not fitted, or was fitted on other examples.
    """
    wrapper = last_step(estimator)
    name = type(wrapper).__name__
    require_fitted(wrapper, name)
    labels = require_labels(train)
    if isinstance(measure, ParameterMeasurement):
        raise TypeError(f"a {name} has no coefficients; measure the loss or a function of the outputs")
    steps = steps_before(estimator)
    x = train.x if steps is None else transform(steps, train.x)
    members = tuple(_member(name, *part, train) for part in PARTS[name](wrapper, x, labels))
    outputs = outputs_of(estimator, train.x, labels, is_classifier(wrapper))
    outputs.family.encode(labels)  # raises for labels that it was never trained on
    model = CompositionModel(
        name=name,
        predictor=estimator,
        wrapper=wrapper,
        steps=steps,
        members=members,
        outputs=outputs,
        measurement_of=measure,
        train_checksum=train.checksum(),
        reread=partial(read, measure=measure),
        notes=_notes(members),
    )
    require_same_outputs(model, train)
    return model


def _notes(members: tuple[Member, ...]) -> tuple[str, ...]:
    """Those of the members, and that the steps before some of them are fixed."""
    notes = list(dict.fromkeys(note for member in members for note in member.model.notes))
    if any(steps_before(member.model.predictor) is not None for member in members):
        notes.append("The steps before a member in a pipeline stay as they were fitted.")
    return tuple(notes)


def _member(name: str, fitted: Any, x: Any, y: NDArray[Any], rows: NDArray[np.intp], train: Examples) -> Member:
    """The member with its training examples. Raises UnsupportedSettingsError if it has no exact removals."""
    reader = next((reader for reader in (linear_models, closed_form) if reader.reads(fitted)), None)
    if reader is None:
        raise UnsupportedSettingsError(
            f"{type(last_step(fitted)).__name__} inside {name} has no removals without training"
        )
    weights = None if train.weights is None else train.weights[rows]
    examples = Examples(x, y, ids=train.ids[rows], weights=weights)
    try:
        model = reader.read(fitted, examples, Function(_first_output))
    except UnsupportedSettingsError:
        raise
    except ValueError as error:  # such as a member that stopped early: from outside, the wrapper can be explained
        raise UnsupportedSettingsError(f"inside {name}: {error}") from error
    methods = frozenset(method for method in METHODS if hasattr(fitted, method))
    return Member(model, examples, rows, methods)


def _first_output(outputs: Any, _: Any) -> Any:
    return outputs[:, 0]


def _all_rows(x: Any) -> NDArray[np.intp]:
    return np.arange(x.shape[0] if hasattr(x, "shape") else len(x), dtype=np.intp)


def _voting(wrapper: Any, x: Any, y: NDArray[Any]) -> Iterator[Part]:
    """VotingClassifier, whose members know classes by their positions, and VotingRegressor."""
    targets = wrapper.le_.transform(y) if hasattr(wrapper, "le_") else y
    for member in wrapper.estimators_:
        yield member, x, targets, _all_rows(x)


def _one_against_rest(wrapper: Any, x: Any, y: NDArray[Any]) -> Iterator[Part]:
    """OneVsRestClassifier: a member per class."""
    if wrapper.multilabel_ or y.ndim != 1:
        raise UnsupportedSettingsError("OneVsRestClassifier with several labels per example is read as it is")
    indicator = np.asarray(wrapper.label_binarizer_.transform(y).toarray())
    for member, column in zip(wrapper.estimators_, indicator.T, strict=True):
        yield member, x, column, _all_rows(x)


def _one_against_one(wrapper: Any, x: Any, y: NDArray[Any]) -> Iterator[Part]:
    """OneVsOneClassifier: a member per pair of classes, on their rows."""
    if wrapper.pairwise_indices_ is not None:
        raise UnsupportedSettingsError(
            "expected OneVsOneClassifier on features, got it on a precomputed matrix, which has no rows to remove; "
            "fit it on the features"
        )
    position = np.searchsorted(wrapper.classes_, y)
    pairs = [(i, j) for i in range(len(wrapper.classes_)) for j in range(i + 1, len(wrapper.classes_))]
    for member, (i, j) in zip(wrapper.estimators_, pairs, strict=True):
        rows = np.flatnonzero((position == i) | (position == j))
        yield member, take_rows(x, rows), (position[rows] == j).astype(np.intp), rows


def _several_targets(wrapper: Any, x: Any, y: NDArray[Any]) -> Iterator[Part]:
    """MultiOutputRegressor and MultiOutputClassifier: a member per target."""
    for member, column in zip(wrapper.estimators_, y.T, strict=True):
        yield member, x, column, _all_rows(x)


def _chain(wrapper: Any, x: Any, y: NDArray[Any]) -> Iterator[Part]:
    """RegressorChain and ClassifierChain: every member also has the targets before its own as columns."""
    if wrapper.cv is not None:
        raise UnsupportedSettingsError("a chain with cv trains on predictions across folds")
    inputs = as_array(x)
    if is_sparse(inputs):
        raise UnsupportedSettingsError("a chain of sparse inputs")
    for place, member in enumerate(wrapper.estimators_):
        before = y[:, wrapper.order_[:place]]
        yield member, np.hstack([inputs, before]), y[:, wrapper.order_[place]], _all_rows(inputs)


PARTS: dict[str, Callable[[Any, Any, NDArray[Any]], Iterator[Part]]] = {
    "VotingClassifier": _voting,
    "VotingRegressor": _voting,
    "OneVsRestClassifier": _one_against_rest,
    "OneVsOneClassifier": _one_against_one,
    "MultiOutputClassifier": _several_targets,
    "MultiOutputRegressor": _several_targets,
    "ClassifierChain": _chain,
    "RegressorChain": _chain,
}
