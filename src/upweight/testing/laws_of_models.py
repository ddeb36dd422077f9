"""Laws of models: what each capability of `upweight.core.model` promises, against the plainest way to find it."""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import (
    Differentiable,
    Embeddable,
    Measurable,
    Parametric,
    Replayable,
    Retrainable,
    Stackable,
    TreeBased,
    can,
)
from upweight.core.rows import Rows
from upweight.testing.assertions import CLOSE, close, hold, same
from upweight.testing.in_place import change
from upweight.testing.laws_of_identity import other_examples
from upweight.testing.laws_of_model_training import retrain, weights

Array = NDArray[np.float64]
STEP = 1e-4  # of central differences, relative to what is moved
DIFFERENCES = 1e-4  # what they may be off by, of the largest
FEW = 3  # examples that are tried where each costs a training


class ModelLaw(StrEnum):
    """The laws of models. The value is the sentence by which they are reported."""

    MEASURE = "each query has one finite number, whatever else is asked with it"
    PREDICT = "each example has one prediction, and probabilities that sum to 1"
    NOTES = "notes are sentences"
    IDENTITY = "a model is itself, and no other model"
    CHANGED = "examples changed in place are measured anew"
    ROWS = "rows are derivatives in the parameters"
    EMBED = "each example has one row of features, whatever else is asked with it"
    PARAMETERS = "a model at its own parameters is itself, and moving a copy does not move it"
    RETRAIN = "training with weights of 1 gives the model anew, with half of them 0 another one"
    WEIGHTS = "trained again, weight 0 is absence, weight 2 is a copy"
    STACK = "trainings made together are those made alone"
    REPLAY = "a replay's derivatives are those of training again"
    TREES = "leaves and margins give the measurement"
    FOLDER = "another model does not read this one's retrainings"


@dataclass(frozen=True, eq=False)
class Modelled:
    """A model with its training set and queries.

    Attributes:
        others: models of the same data that are not this one: what differs → the model.
        not_weighted: why its training takes weights otherwise than as copies; empty where it does not.
    """

    model: Any
    train: Examples
    queries: Examples
    others: Mapping[str, Any] = field(default_factory=dict)
    not_weighted: str = ""

    @property
    def name(self) -> str:
        """The model, for people."""
        return repr(self.model)


def measure(of: Modelled) -> None:
    """Shape (m,), finite, the same alone and in another order; the measurement has words."""
    values = of.model.measure(of.queries)
    hold(np.shape(values) == (len(of.queries),), f"expected ({len(of.queries)},), got {np.shape(values)}")
    hold(bool(np.isfinite(values).all()), "measurements are not all finite")
    alone = np.concatenate([of.model.measure(one) for one in of.queries.batches(1)])
    close(alone, values, CLOSE, "queries one by one and all together")
    backwards = of.queries.take(np.arange(len(of.queries))[::-1])
    close(of.model.measure(backwards)[::-1], values, CLOSE, "queries in the opposite order")
    hold(bool(of.model.measurement), "expected `measurement` to say what is measured, got nothing")


def predict(of: Modelled) -> None:
    """As many predictions as examples; probabilities (m, classes)."""
    predictions = of.model.predict(of.queries)
    hold(len(predictions.predicted) == len(of.queries), f"{len(predictions.predicted)} for {len(of.queries)} examples")
    if predictions.probabilities is not None:
        expected = (len(of.queries), len(predictions.classes))
        found = np.shape(predictions.probabilities)
        hold(found == expected, f"expected probabilities of shape {expected}, got {found}")
        close(predictions.probabilities.sum(axis=1), np.ones(len(of.queries)), CLOSE, "sums of probabilities and 1")


def notes(of: Modelled) -> None:
    """A sequence of sentences, not one string."""
    found = of.model.notes
    hold(not isinstance(found, str) and all(isinstance(note, str) and note for note in found), f"got {found!r}")


def identity(of: Modelled) -> None:
    """The same at every call; different from that of every other model, and those from each other."""
    here = of.model.identity()
    hold(here == of.model.identity(), "two calls of identity() differ")
    of.model.measure(of.queries)
    hold(here == of.model.identity(), "identity() is another after a measurement")
    every = {"the model itself": here, **{what: other.identity() for what, other in of.others.items()}}
    for (first, ours), (second, theirs) in combinations(every.items(), 2):
        hold(ours != theirs, f"{first} and the one of another {second} have one identity")


def changed(of: Modelled) -> None:
    """Measured once, changed in place and measured again, examples give what new ones with that content give."""
    queries = of.queries.replaced(x=copy.deepcopy(of.queries.x))
    of.model.measure(queries)
    change(queries.x)
    expected = of.model.measure(of.queries.replaced(x=copy.deepcopy(queries.x)))
    close(of.model.measure(queries), expected, CLOSE, "queries changed in place and the same made anew")


def rows(of: Modelled) -> None:
    """Measurement rows are central differences of the measurement; inner products are those of the dense rows."""
    ours: Rows = of.model.measure_rows(of.queries)
    dense = ours.dense()
    directions = np.random.default_rng(0).normal(size=(2, dense.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    up, down = (of.model.measure_shifted(of.queries, sign * STEP * directions) for sign in (1.0, -1.0))
    close(dense @ directions.T, (up - down) / (2 * STEP), DIFFERENCES, "measurement rows and differences")
    losses: Rows = of.model.loss_rows(of.train)
    hold(len(losses) == len(of.train), f"expected a loss row per training example, got {len(losses)}")
    close(ours.dot(losses), dense @ losses.dense().T, CLOSE, "rows.dot and the product of dense rows")


def embed(of: Modelled) -> None:
    """(m, d), the same alone."""
    features = _dense(of.model.embed(of.queries))
    hold(features.ndim == 2 and len(features) == len(of.queries), f"expected (m, d), got {features.shape}")
    alone = np.vstack([_dense(of.model.embed(one)) for one in of.queries.batches(1)])
    close(alone, features, CLOSE, "features of examples one by one and all together")


def parameters(of: Modelled) -> None:
    """with_parameters(parameters) measures the same; another point is another model and leaves this one."""
    before, theta = of.model.measure(of.queries), of.model.parameters
    there = of.model.with_parameters(theta)
    close(there.measure(of.queries), before, CLOSE, "the model at its own parameters and itself")
    moved = of.model.with_parameters(theta + 0.1)
    close(moved.parameters, theta + 0.1, CLOSE, "parameters that were set and those that are read")
    same(of.model.parameters, theta, "parameters before and after a copy was moved")
    same(of.model.measure(of.queries), before, "measurements before and after a copy was moved")
    hold(moved.identity() != of.model.identity(), "a model at other parameters has the identity of this one")


def stack(of: Modelled) -> None:
    """retrain_many = retrain, row by row."""
    rows_of_weights = np.ones((FEW, len(of.train)))
    rows_of_weights[np.arange(1, FEW), np.arange(1, FEW)] = 0.0
    together = of.model.retrain_many(of.train, rows_of_weights, [0] * FEW)
    for row, model in zip(rows_of_weights, together, strict=True):
        alone = of.model.retrain(of.train, row)
        close(model.measure(of.queries), alone.measure(of.queries), CLOSE, "trained with others and alone")


def replay(of: Modelled) -> None:
    """∂m/∂wᵢ of a replay = central differences of the measurement after training again with other weights."""
    ones = np.ones(len(of.train))
    run = of.model.replay(of.train, ones)
    there = of.model.with_parameters(run.parameters)
    slopes = run.gradients(there.measure_rows(of.queries))[:, :FEW]
    step = 10 * STEP

    def after(place: int, by: float) -> Array:
        moved = ones.copy()
        moved[place] += by
        return np.asarray(of.model.retrain(of.train, moved).measure(of.queries), dtype=np.float64)

    differences = np.stack([(after(i, step) - after(i, -step)) / (2 * step) for i in range(FEW)], axis=1)
    close(slopes, differences, 10 * DIFFERENCES, "a replay's derivatives and differences of trainings")


def trees(of: Modelled) -> None:
    """Leaves are in range, their margins give the measurement, its slopes are central differences."""
    ensemble, leaves = of.model.trees(), of.model.leaves(of.queries)
    hold(leaves.shape == (len(of.queries), ensemble.trees), f"expected a leaf per example and tree, got {leaves.shape}")
    margins = ensemble.margins(leaves)
    close(of.model.measure_margins(of.queries, margins), of.model.measure(of.queries), CLOSE, "by margins and directly")
    slopes = of.model.measure_slopes(of.queries, margins)
    for output in range(margins.shape[1]):
        step = np.zeros(margins.shape)
        step[:, output] = STEP
        up, down = (of.model.measure_margins(of.queries, margins + sign * step) for sign in (1.0, -1.0))
        scale = max(float(np.abs(slopes).max()), 1e-12)
        off = float(np.abs((up - down) / (2 * STEP) - slopes[:, output]).max())
        hold(off <= DIFFERENCES * scale, f"slopes in output {output} are off differences by {off:.3g} of {scale:.3g}")


def folder(of: Modelled) -> None:
    """In a folder that holds this model's retrainings, every other model and training set finds its own numbers."""
    with tempfile.TemporaryDirectory() as place, _foreign_results_expected():
        _effects(of.model, of.train, of.queries, place)
        for what, other in of.others.items():
            if can(other, Retrainable):
                expected = _effects(other, of.train, of.queries, None)
                same(
                    _effects(other, of.train, of.queries, place),
                    expected,
                    f"another {what}, with the folder and without",
                )
        labels = other_examples(of.train).get("labels")
        if labels is not None and hasattr(of.model, "hypothetical"):
            free = of.model.hypothetical()
            expected = _effects(free, labels, of.queries, None)
            same(_effects(free, labels, of.queries, place), expected, "other labels, with the folder and without")


@contextmanager
def _foreign_results_expected() -> Iterator[None]:
    """No warning of a folder that holds results of other models: here it has to."""
    logger = logging.getLogger("upweight")

    def is_other(record: logging.LogRecord) -> bool:
        return record.module != "result_cache"

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _effects(model: Any, train: Examples, queries: Examples, place: str | None) -> Array:
    """Effects of two removals by real retraining, (m, 2)."""
    from upweight.evaluate.removals import named_removals
    from upweight.evaluate.retrain_truth import retrain_truth
    from upweight.retraining.retraining import Retraining

    removals = named_removals({str(i): [i] for i in train.ids[:2].tolist()})
    return retrain_truth(model, train, queries, removals, retraining=Retraining(processes=1, folder=place)).actual


def _dense(features: Any) -> Array:
    return np.asarray(features.toarray() if hasattr(features, "toarray") else features, dtype=np.float64)


MODEL_RULES: Mapping[ModelLaw, tuple[type, Callable[[Modelled], None]]] = {
    ModelLaw.MEASURE: (Measurable, measure),
    ModelLaw.PREDICT: (Measurable, predict),
    ModelLaw.NOTES: (Measurable, notes),
    ModelLaw.IDENTITY: (Measurable, identity),
    ModelLaw.CHANGED: (Measurable, changed),
    ModelLaw.ROWS: (Differentiable, rows),
    ModelLaw.EMBED: (Embeddable, embed),
    ModelLaw.PARAMETERS: (Parametric, parameters),
    ModelLaw.RETRAIN: (Retrainable, retrain),
    ModelLaw.WEIGHTS: (Retrainable, weights),
    ModelLaw.STACK: (Stackable, stack),
    ModelLaw.REPLAY: (Replayable, replay),
    ModelLaw.TREES: (TreeBased, trees),
    ModelLaw.FOLDER: (Retrainable, folder),
}
