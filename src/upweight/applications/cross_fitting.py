"""Held out: what models say of training examples that they were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Predictions
from upweight.core.weights import weighted_positions
from upweight.retraining.engine import run_tasks
from upweight.retraining.retrained_outputs import RetrainedOutputs
from upweight.retraining.retraining import Retraining
from upweight.retraining.task import Task

Array = NDArray[np.float64]
HELPS = 0.05  # share of the disagreements that leaving suspects out must settle to be believed


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Out-of-fold answers of two rounds; the second was trained without what looked wrong after the first.

    Attributes:
        loss: (2, n); NaN for an example of weight 0, which no fold holds.
        agrees: (2, n) whether the prediction is the given label.
        left_out: (n,) what was no training data in the second round.
        helps: whether the second round predicts held-out labels better.
        counted: (n,) the part that goes into the score of suspicion.
    """

    loss: Array
    agrees: NDArray[np.bool_]
    left_out: NDArray[np.bool_]
    helps: bool
    counted: Array
    predictions: tuple[Predictions, ...]  # of the better round, one per fold
    places: tuple[NDArray[np.intp], ...]  # the folds
    notes: tuple[str, ...] = ()

    def chances(self, chosen: NDArray[np.intp], names: Sequence[Any]) -> Array | None:
        """Probabilities (len(chosen), classes) in the order of these class names, None where there are none."""
        if any(said.probabilities is None for said in self.predictions):
            return None
        table = np.full((self.loss.shape[1], len(names)), np.nan)
        for where, said in zip(self.places, self.predictions, strict=True):
            assert said.probabilities is not None
            table[where] = said.probabilities[:, [said.classes.index(name) for name in names]]
        return table[chosen]


def held_out(model: Any, train: Examples, alone: Array | None, folds: int, retraining: Retraining) -> HeldOut:
    """Two rounds of `folds` trainings.

    `alone` (n,) is the loss without each example, which says what looks wrong; None takes the first round's own.
    """
    places = _folds(train, folds, retraining.only_seed("mislabeled"))
    everything = np.ones(len(train), dtype=bool)
    first = _round(retraining.part(0, 2 * folds), model, train, places, everything)
    suspicion = first.loss if alone is None else alone
    kept, weighted = everything.copy(), weighted_positions(train)
    wrong = int((~first.agrees[weighted]).sum())
    kept[weighted[np.argsort(-suspicion[weighted], kind="stable")[:wrong]]] = False
    _keep_classes(train, kept, places)
    second = _round(retraining.part(folds, 2 * folds), model, train, places, kept)
    settled = (second.agrees.sum() - first.agrees.sum()) / max(1, wrong)
    helps = bool(settled > HELPS)
    notes = (
        ()
        if helps
        else ("Leaving out what looks wrong made held-out labels no easier to predict, so it was not used.",)
    )
    counted = second.loss if helps else first.loss if alone is None else np.zeros(len(train))
    return HeldOut(
        np.stack([first.loss, second.loss]),
        np.stack([first.agrees, second.agrees]),
        ~kept,
        helps,
        counted,
        (second if helps else first).predictions,
        places,
        notes,
    )


class _Round(NamedTuple):
    """One training per fold, each measured on its own fold; see `HeldOut`."""

    loss: Array
    agrees: NDArray[np.bool_]
    predictions: tuple[Predictions, ...]


def _round(
    retraining: Retraining,
    model: Any,
    train: Examples,
    places: Sequence[NDArray[np.intp]],
    kept: NDArray[np.bool_],
) -> _Round:
    """Train without each fold on what is kept."""
    answers, seed = RetrainedOutputs.of(model, train), retraining.only_seed("mislabeled")
    tasks = []
    for where in places:
        weights = kept.astype(np.float64)
        weights[where] = 0.0
        tasks.append(Task(weights=weights, seed=seed, roughly=True, queries=where))
    loss, agrees, predictions = np.full(len(train), np.nan), np.zeros(len(train), dtype=bool), []
    for where, columns in zip(places, run_tasks(retraining, model, train, tasks, train, answers), strict=True):
        measurements, predicted = answers.read(columns)
        loss[where] = -measurements
        labels = [train.label(i) for i in train.ids[where].tolist()]
        agrees[where] = [p == label for p, label in zip(predicted.predicted, labels, strict=True)]
        predictions.append(predicted)
    return _Round(loss, agrees, tuple(predictions))


def _folds(train: Examples, folds: int, seed: int) -> tuple[NDArray[np.intp], ...]:
    """Every class spread evenly, in an order that the seed decides; examples of weight 0 are in no fold."""
    assert train.y is not None
    there = weighted_positions(train)
    counts = np.unique(train.y[there], return_counts=True)
    if isinstance(folds, bool) or not 2 <= folds <= len(there):
        raise ValueError(f"expected between 2 and {len(there)} folds, got {folds!r}")
    if counts[1].min() < 2:
        rare = counts[0][counts[1].argmin()].item()
        raise ValueError(
            f"expected every class to have at least two examples, {rare!r} has one: without it no model knows the "
            "class; remove it or collect more"
        )
    shuffled = there[np.random.default_rng(seed).permutation(len(there))]
    by_class = shuffled[np.argsort(train.y[shuffled], kind="stable")]
    return tuple(np.sort(by_class[start::folds]) for start in range(folds))


def _keep_classes(train: Examples, kept: NDArray[np.bool_], places: Sequence[NDArray[np.intp]]) -> None:
    """Where leaving out would leave a fold's training without a class, that class is kept whole."""
    assert train.y is not None
    fold_of, there = np.full(len(train), -1, dtype=np.intp), np.zeros(len(train), dtype=bool)
    for number, where in enumerate(places):
        fold_of[where], there[where] = number, True
    for one in np.unique(train.y[there]):
        member = there & (train.y == one)
        if len(np.unique(fold_of[member & kept])) < 2:
            kept[member] = True
