"""Reading trees: from a fitted estimator to a TreeModel, checked against the library's own predictions."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.contents import relevant
from upweight.core.examples import Examples
from upweight.core.labels import require_labels
from upweight.core.measurement import Measurement
from upweight.core.model_reader import UnsupportedSettingsError
from upweight.models.pipeline import last_step, steps_before
from upweight.models.tree_forgetting import TreeForgetting
from upweight.models.tree_spec import TreeSpec
from upweight.models.unlearning import with_last_step
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.model import TreeModel
from upweight.trees.outputs import TreeOutputs

Array = NDArray[np.float64]
SpecReader = Callable[[Any, Examples, Any, BoostingLoss | None], TreeSpec]
# Largest accepted difference of margins, relative to the largest margin: libraries sum in single precision.
MARGIN_TOLERANCE = 2e-5


def library_of(estimator: Any) -> str:
    """The package that the estimator, or the last step of a pipeline, comes from."""
    return type(last_step(estimator)).__module__.partition(".")[0]


def read_trees(
    read_spec: SpecReader, estimator: Any, train: Examples, measure: Measurement, loss: BoostingLoss | None
) -> TreeModel:
    """The fitted estimator, or the pipeline that ends in one, as a model.

    `read_spec(last step, train, steps before it, loss)` reads the trees of one library. `loss` is the user's own; None
    takes the loss that the library reports.

    Raises:
        ValueError: the leaf values do not give the library's own margins, or do not follow from the training set.
    """
    require_labels(train)
    reading = _Reading(read_spec, estimator, train, measure, loss)
    return _with_training(reading(), train)


@dataclass(frozen=True)
class _Reading:
    """The estimator that a model is read from."""

    read_spec: SpecReader
    estimator: Any
    train: Examples
    measure: Measurement
    loss: BoostingLoss | None

    def __deepcopy__(self, memo: dict[int, Any]) -> _Reading:
        # By pickle, because LightGBM's own copy of a Booster loses its settings.
        estimator = pickle.loads(pickle.dumps(self.estimator))
        return replace(self, estimator=estimator, train=copy.deepcopy(self.train, memo))

    def __call__(self) -> TreeModel:
        return _model(self.read_spec, self.estimator, self.train, self.measure, self.loss)


def _model(
    read_spec: SpecReader, whole: Any, train: Examples, measure: Measurement, loss: BoostingLoss | None
) -> TreeModel:
    """The model of an estimator or a pipeline, with its margins checked on the training set."""
    estimator, steps = last_step(whole), steps_before(whole)
    spec = read_spec(estimator, train, steps, loss)

    def retrain_on(examples: Examples, seed: int) -> TreeModel:
        retrained = spec.retrain_estimator(spec.inputs(examples.x), examples.y, examples.weights, seed)
        return _model(read_spec, with_last_step(whole, steps, retrained), examples, measure, spec.loss)

    def outputs_on(examples: Examples, seed: int) -> TreeOutputs | None:
        raw = spec.raw
        if raw is None:
            return None
        retrained = spec.retrain_estimator(spec.inputs(examples.x), examples.y, examples.weights, seed)
        return TreeOutputs(model, lambda x: raw(retrained, spec.inputs(x)))

    def reread(fitted: Any, examples: Examples) -> TreeModel:
        return _model(read_spec, fitted, examples, measure, loss)

    model = TreeModel(
        name=type(estimator).__name__,
        predictor=estimator,
        ensemble=spec.ensemble,
        loss=spec.loss,
        measurement_of=measure,
        numbers=lambda x: spec.leaf_numbers(spec.inputs(x)),
        grow=spec.replay_training,
        retrain_on=retrain_on,
        outputs_on=outputs_on,
        is_boosted=spec.rule is not None,
        notes=spec.notes,
        threads=spec.threads,
        settings=(_settings(estimator), spec.inputs),
        splits=spec.splits,
        whole=whole,
        forgetting=TreeForgetting(whole, spec.inputs, spec.write, reread),
        read_again=_Reading(read_spec, whole, train, measure, loss),
    )
    _require_margins(model, spec.margins(spec.inputs(train.x)), train, spec.library)
    return model


def _settings(estimator: Any) -> Any:
    """The training settings: from scikit-learn's interface, or in the library's own form."""
    if hasattr(estimator, "get_params"):
        return relevant(type(estimator), estimator.get_params())
    parameters = getattr(estimator, "params", None)
    return relevant(type(estimator), parameters) if parameters else estimator.save_config()


def _require_margins(model: TreeModel, expected: Array, train: Examples, library: str) -> None:
    """Raise ValueError if the leaf values do not give the library's own margins on the training set."""
    margins = model.margins(train)
    expected = np.asarray(expected, dtype=np.float64).reshape(margins.shape)
    difference, largest = float(np.abs(margins - expected).max()), float(np.abs(expected).max())
    if not difference <= MARGIN_TOLERANCE * max(largest, 1.0):
        raise ValueError(
            f"expected leaf values that give the predictions of this {model.name} ({library}), got margins that differ "
            f"by {difference:.2g}: it uses a version or a feature that is not supported (linear leaves, an initial "
            "estimator, a separate base value for every row, a newer file format); train it without that feature, or "
            "with an older version"
        )


def _with_training(model: TreeModel, train: Examples) -> TreeModel:
    """The model with the notes of its training. Raises ValueError if it was fitted on other examples."""
    training = model.grown(train)
    if not training.exact and not training.unrecorded and training.loss.differentiable:
        raise ValueError(
            f"expected the data that {model.name} was fitted on, got examples whose leaf values differ from the "
            f"model's by {training.mismatch:.2g} of the largest. Pass the same rows, labels and sample weights as to "
            "fit(), and no others (an evaluation set is not part of them). Not supported are models with a separate "
            "base value for every row (init_score, base_margin, baseline), a learning rate that changed on the way, or "
            "an objective function of your own without loss=, and models changed after training (refit, scale)"
        )
    return replace(model, notes=(*model.notes, *training.notes))


def unsupported_objective(
    library: str, objective: str, supported: str, takes_custom: bool = True, reason: str = ""
) -> ValueError:
    """The error for an objective that is not supported, with the reason if there is one.

    `takes_custom`: whether `loss=` can replace it. If not, the model is an estimator that predicts amounts or
    probabilities, which refits can explain. The raw output of a booster may mean anything.
    """
    if "rank" in objective.lower():
        reason = "a ranking loss belongs to pairs or lists, not to single examples"
    because = f" ({reason})" if reason else ""
    message = f"the {library} objective {objective!r} is not supported{because}; train with one of {supported}."
    if not takes_custom:
        return UnsupportedSettingsError(message)
    return ValueError(
        f"{message} For a loss of your own, pass explainable(…, loss=upweight.trees.losses.Custom(gradient, hessian, "
        "third)). If squared errors of its predictions mean something, uw.refittable(estimator, train) refits it"
    )


@contextmanager
def known_format(library: str) -> Iterator[None]:
    """Turn a missing part in what a library writes about its trees into an error that names library and version."""
    try:
        yield
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{library} describes its trees in a form that is not known here ({type(error).__name__}: {error}), "
            "perhaps because the model file is of a newer version; train or load it with an older one, or report it"
        ) from error
