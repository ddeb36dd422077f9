"""Laws of models: each capability of `upweight.core.model` is compared with the plainest way to compute its result."""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.capability_checks import can
from upweight.core.examples import Examples
from upweight.core.model import Differentiable, Embeddable, Measurable, Parametric, Retrainable
from upweight.core.replayable import Replayable
from upweight.core.rows import Rows
from upweight.core.stackable import Stackable
from upweight.core.tree_based import TreeBased
from upweight.testing.assertions import (
    DIFFERENCE_STEP,
    DIFFERENCE_TOLERANCE,
    SOLVER_TOLERANCE,
    assert_close,
    assert_identical,
    assert_true,
)
from upweight.testing.in_place import change
from upweight.testing.laws_of_identity import other_examples
from upweight.testing.laws_of_model_training import check_replay, check_retrain, check_stack, check_weights
from upweight.testing.model_case import ModelCase

Array = NDArray[np.float64]


class ModelLaw(StrEnum):
    """The laws of models. The value is the sentence that reports give."""

    MEASURE = "each query has one finite number, whatever the batch"
    PREDICT = "each example has one prediction, and probabilities that sum to 1"
    NOTES = "notes are sentences"
    IDENTITY = "a model has one identity, and no other model has the same"
    CHANGED = "examples that were changed in place are measured anew"
    ROWS = "rows are derivatives in the parameters"
    EMBED = "each example has one row of features, whatever the batch"
    PARAMETERS = "a copy at the model's parameters equals it, and other parameters change only the copy"
    RETRAIN = "retraining with weights of 1 reproduces the model, with half of them 0 it does not"
    WEIGHTS = "in retraining, weight 0 is absence and weight 2 is a copy"
    STACK = "models retrained together equal models retrained alone"
    REPLAY = "a replay's derivatives are those of retraining"
    TREES = "leaves and margins give the measurement"
    FOLDER = "another model does not read this model's retrainings"


def check_measure(case: ModelCase) -> None:
    """Measurements have shape (m,), are finite, depend on neither batch nor order, and have a description."""
    values = case.model.measure(case.queries)
    assert_true(np.shape(values) == (len(case.queries),), f"expected ({len(case.queries)},), got {np.shape(values)}")
    assert_true(bool(np.isfinite(values).all()), "expected finite measurements, got infinite ones or NaN")
    alone = np.concatenate([case.model.measure(query) for query in case.queries.batches(1)])
    assert_close(alone, values, SOLVER_TOLERANCE, "queries one by one and all together")
    backwards = case.queries.take(np.arange(len(case.queries))[::-1])
    assert_close(case.model.measure(backwards)[::-1], values, SOLVER_TOLERANCE, "queries in the opposite order")
    assert_true(bool(case.model.measurement), "expected `measurement` to say what is measured, got an empty string")


def check_predict(case: ModelCase) -> None:
    """There is one prediction per example; probabilities have shape (m, classes) and sum to 1."""
    predictions = case.model.predict(case.queries)
    assert_true(
        len(predictions.predicted) == len(case.queries),
        f"got {len(predictions.predicted)} predictions for {len(case.queries)} examples",
    )
    if predictions.probabilities is not None:
        expected = (len(case.queries), len(predictions.classes))
        shape = np.shape(predictions.probabilities)
        assert_true(shape == expected, f"expected probabilities of shape {expected}, got {shape}")
        assert_close(
            predictions.probabilities.sum(axis=1),
            np.ones(len(case.queries)),
            SOLVER_TOLERANCE,
            "sums of probabilities and 1",
        )


def check_notes(case: ModelCase) -> None:
    """Notes are a sequence of sentences, not one string."""
    notes = case.model.notes
    assert_true(
        not isinstance(notes, str) and all(isinstance(note, str) and note for note in notes),
        f"expected a sequence of sentences, got {notes!r}",
    )


def check_identity(case: ModelCase) -> None:
    """The identity is the same at every call, and the identities of all models differ from each other."""
    identity = case.model.identity()
    assert_true(identity == case.model.identity(), "two calls of identity() differ")
    case.model.measure(case.queries)
    assert_true(identity == case.model.identity(), "identity() changed after a measurement")
    identities = {
        "the model itself": identity,
        **{difference: other.identity() for difference, other in case.others.items()},
    }
    for (first, first_identity), (second, second_identity) in combinations(identities.items(), 2):
        assert_true(
            first_identity != second_identity, f"the models {first!r} and {second!r} differ, but have the same identity"
        )


def check_changed(case: ModelCase) -> None:
    """Examples that are measured, changed in place and measured again give what new examples with that content give."""
    queries = case.queries.replaced(x=copy.deepcopy(case.queries.x))
    case.model.measure(queries)
    change(queries.x)
    expected = case.model.measure(case.queries.replaced(x=copy.deepcopy(queries.x)))
    assert_close(
        case.model.measure(queries),
        expected,
        SOLVER_TOLERANCE,
        "queries changed in place and new queries with the same content",
    )


def check_rows(case: ModelCase) -> None:
    """Measurement rows equal central differences of the measurement; `dot` equals the product of dense rows."""
    measure_rows: Rows = case.model.measure_rows(case.queries)
    dense = measure_rows.dense()
    directions = np.random.default_rng(0).normal(size=(2, dense.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    up, down = (case.model.measure_shifted(case.queries, sign * DIFFERENCE_STEP * directions) for sign in (1.0, -1.0))
    assert_close(
        dense @ directions.T,
        (up - down) / (2 * DIFFERENCE_STEP),
        DIFFERENCE_TOLERANCE,
        "measurement rows and differences",
    )
    loss_rows: Rows = case.model.loss_rows(case.train)
    assert_true(len(loss_rows) == len(case.train), f"expected a loss row per training example, got {len(loss_rows)}")
    assert_close(
        measure_rows.dot(loss_rows),
        dense @ loss_rows.dense().T,
        SOLVER_TOLERANCE,
        "rows.dot and the product of dense rows",
    )


def check_embed(case: ModelCase) -> None:
    """Features have shape (m, d) and do not depend on the batch."""
    features = _dense(case.model.embed(case.queries))
    assert_true(features.ndim == 2 and len(features) == len(case.queries), f"expected (m, d), got {features.shape}")
    alone = np.vstack([_dense(case.model.embed(query)) for query in case.queries.batches(1)])
    assert_close(alone, features, SOLVER_TOLERANCE, "features of examples one by one and all together")


def check_parameters(case: ModelCase) -> None:
    """`with_parameters(parameters)` measures the same; other parameters give another model and leave this one alone."""
    before, theta = case.model.measure(case.queries), case.model.parameters
    copied = case.model.with_parameters(theta)
    assert_close(
        copied.measure(case.queries),
        before,
        SOLVER_TOLERANCE,
        "a copy of the model at its own parameters, and the model",
    )
    moved = case.model.with_parameters(theta + 0.1)
    assert_close(
        moved.parameters, theta + 0.1, SOLVER_TOLERANCE, "parameters that were set, and parameters of the copy"
    )
    assert_identical(case.model.parameters, theta, "parameters before and after a copy was moved")
    assert_identical(case.model.measure(case.queries), before, "measurements before and after a copy was moved")
    assert_true(
        moved.identity() != case.model.identity(),
        "expected another identity for a model with other parameters, got the same",
    )


def check_trees(case: ModelCase) -> None:
    """There is a leaf per example and tree, margins give the measurement, and its slopes equal central differences."""
    ensemble, leaves = case.model.trees(), case.model.leaves(case.queries)
    assert_true(
        leaves.shape == (len(case.queries), ensemble.trees), f"expected a leaf per example and tree, got {leaves.shape}"
    )
    margins = ensemble.margins(leaves)
    assert_close(
        case.model.measure_margins(case.queries, margins),
        case.model.measure(case.queries),
        SOLVER_TOLERANCE,
        "the measurement by margins and directly",
    )
    slopes = case.model.measure_slopes(case.queries, margins)
    for output in range(margins.shape[1]):
        step = np.zeros(margins.shape)
        step[:, output] = DIFFERENCE_STEP
        up, down = (case.model.measure_margins(case.queries, margins + sign * step) for sign in (1.0, -1.0))
        scale = max(float(np.abs(slopes).max()), 1e-12)
        off = float(np.abs((up - down) / (2 * DIFFERENCE_STEP) - slopes[:, output]).max())
        assert_true(
            off <= DIFFERENCE_TOLERANCE * scale,
            f"slopes in output {output} and differences differ by {off:.3g}, where the largest slope is {scale:.3g}",
        )


def check_folder(case: ModelCase) -> None:
    """In a folder that holds this model's retrainings, every other model and training set gets its own results."""
    with tempfile.TemporaryDirectory() as shared_folder, _foreign_results_expected():
        _effects(case.model, case.train, case.queries, shared_folder)
        for difference, other in case.others.items():
            if can(other, Retrainable):
                expected = _effects(other, case.train, case.queries, None)
                assert_identical(
                    _effects(other, case.train, case.queries, shared_folder),
                    expected,
                    f"another {difference}, with the folder and without",
                )
        labels = other_examples(case.train).get("labels")
        if labels is not None and hasattr(case.model, "hypothetical"):
            relabelled = case.model.hypothetical()
            expected = _effects(relabelled, labels, case.queries, None)
            assert_identical(
                _effects(relabelled, labels, case.queries, shared_folder),
                expected,
                "other labels, with the folder and without",
            )


@contextmanager
def _foreign_results_expected() -> Iterator[None]:
    """Silence the warning that a folder holds results of other models: in this law it has to."""
    logger = logging.getLogger("upweight")

    def is_unrelated(record: logging.LogRecord) -> bool:
        return record.module != "result_cache"

    logger.addFilter(is_unrelated)
    try:
        yield
    finally:
        logger.removeFilter(is_unrelated)


def _effects(model: Any, train: Examples, queries: Examples, folder: str | None) -> Array:
    """Effects of two removals by real retraining, (m, 2)."""
    from upweight.evaluate.removals import named_removals
    from upweight.evaluate.retrain_truth import retrain_truth
    from upweight.retraining.retraining import Retraining

    removals = named_removals({str(i): [i] for i in train.ids[:2].tolist()})
    return retrain_truth(model, train, queries, removals, retraining=Retraining(processes=1, folder=folder)).actual


def _dense(features: Any) -> Array:
    return np.asarray(features.toarray() if hasattr(features, "toarray") else features, dtype=np.float64)


MODEL_LAW_CHECKS: Mapping[ModelLaw, tuple[type, Callable[[ModelCase], None]]] = {
    ModelLaw.MEASURE: (Measurable, check_measure),
    ModelLaw.PREDICT: (Measurable, check_predict),
    ModelLaw.NOTES: (Measurable, check_notes),
    ModelLaw.IDENTITY: (Measurable, check_identity),
    ModelLaw.CHANGED: (Measurable, check_changed),
    ModelLaw.ROWS: (Differentiable, check_rows),
    ModelLaw.EMBED: (Embeddable, check_embed),
    ModelLaw.PARAMETERS: (Parametric, check_parameters),
    ModelLaw.RETRAIN: (Retrainable, check_retrain),
    ModelLaw.WEIGHTS: (Retrainable, check_weights),
    ModelLaw.STACK: (Stackable, check_stack),
    ModelLaw.REPLAY: (Replayable, check_replay),
    ModelLaw.TREES: (TreeBased, check_trees),
    ModelLaw.FOLDER: (Retrainable, check_folder),
}
