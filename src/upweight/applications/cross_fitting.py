"""Cross-fitting: predictions of training examples by models that were not trained on them."""

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
FOLDS = 5  # if there are as many examples
MAX_ALONE_NAMED = 5  # examples that are the only ones of their class
MIN_RESOLVED_SHARE = 0.05  # of the disagreements with given labels; with less, the second round is not used


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Out-of-fold predictions of two rounds. The second was trained without the labels that looked wrong in the first.

    Attributes:
        loss: (2, n), the out-of-fold loss; NaN for an example in no fold: one of weight 0, and the only one of a class;
            and in the second round, for those of folds that it did not reach.
        agrees: (2, n), whether the prediction equals the given label.
        left_out: (n,), whether the example was left out of training in the second round.
        helps: whether the second round predicts held-out labels better than the first.
        counted: (n,), the loss that goes into the score of suspicion.
        predictions: of the better round, one per fold.
        places: the positions of the examples in each fold.
    """

    loss: Array
    agrees: NDArray[np.bool_]
    left_out: NDArray[np.bool_]
    helps: bool
    counted: Array
    predictions: tuple[Predictions, ...]
    places: tuple[NDArray[np.intp], ...]
    notes: tuple[str, ...] = ()

    def chances(self, chosen: NDArray[np.intp], names: Sequence[Any]) -> Array | None:
        """Out-of-fold probabilities (len(chosen), classes) in the order of these class names, or None.

        They are NaN for an example in no fold.
        """
        if any(fold.probabilities is None for fold in self.predictions):
            return None
        table = np.full((self.loss.shape[1], len(names)), np.nan)
        for positions, fold in zip(self.places, self.predictions, strict=True):
            assert fold.probabilities is not None
            table[positions] = fold.probabilities[:, [fold.classes.index(name) for name in names]]
        return table[chosen]


def held_out(
    model: Any, train: Examples, leave_one_out: Array | None, folds: int | None, retraining: Retraining
) -> HeldOut:
    """Two rounds of one training per fold; None for five folds, or as many as there are examples if these are fewer.

    The second round stops after one fold if that shows that it will not help.

    `leave_one_out` (n,) is the loss of each example under a model trained without it. The examples with the largest
    losses look wrong. None takes the out-of-fold losses of the first round instead.

    The only example of a class is in no fold, because no model knows the class without it. In the place of its
    out-of-fold loss it has its leave-one-out loss, or without that the largest out-of-fold loss of the others.

    Raises ValueError if no class has two examples, or for more folds than examples that can be left out.
    """
    foldable, alone = _foldable(train)
    places, count = fold_positions(train, foldable, folds, retraining.only_seed("mislabeled"))
    everything = np.ones(len(train), dtype=bool)
    first = train_on_folds(retraining.part(0, 2 * count), model, train, places, everything)
    suspicion = first.loss if leave_one_out is None else leave_one_out
    trusted = everything.copy()
    disagreements = int((~first.agrees[foldable]).sum())
    trusted[foldable[np.argsort(-suspicion[foldable], kind="stable")[:disagreements]]] = False
    _keep_classes(train, trusted, places)
    second, helps = _second_round(retraining, model, train, places, trusted, first)
    notes = [*fold_notes(count, folds), *_notes_of_single_classes(train, alone)]
    if not helps:
        notes.append(
            "Training without the labels that look wrong did not improve held-out predictions, so it was not used."
        )
    first_counts = first.loss if leave_one_out is None else np.zeros(len(train))
    counted = (second.loss if helps else first_counts).copy()
    counted[alone] = counted[foldable].max() if leave_one_out is None else leave_one_out[alone]
    return HeldOut(
        np.stack([first.loss, second.loss]),
        np.stack([first.agrees, second.agrees]),
        ~trusted,
        helps,
        counted,
        (second if helps else first).predictions,
        places,
        tuple(notes),
    )


def _second_round(
    retraining: Retraining,
    model: Any,
    train: Examples,
    places: Sequence[NDArray[np.intp]],
    trusted: NDArray[np.bool_],
    first: Round,
) -> tuple[Round, bool]:
    """The second round and whether it helps; after the first fold it ends if that rules out that it does."""
    count = len(places)
    second = train_on_folds(retraining.part(count, 2 * count), model, train, places[:1], trusted)
    if _change(first, second, places[:1], deviations=1.0) > MIN_RESOLVED_SHARE:
        others = train_on_folds(retraining.part(count + 1, 2 * count), model, train, places[1:], trusted)
        second = second.joined(others, places[0])
        return second, _change(first, second, places) > MIN_RESOLVED_SHARE
    if retraining.progress is not None:
        retraining.progress("retrain", 2 * count, 2 * count)
    return second, False


def _change(first: Round, second: Round, places: Sequence[NDArray[np.intp]], deviations: float = 0.0) -> float:
    """The share of the disagreements of the first round that the second resolves, less those that it makes.

    With `deviations`, as many standard deviations more than was seen: predictions that change do so by chance.
    """
    held = np.concatenate(places)
    gained = int((second.agrees & ~first.agrees)[held].sum())
    lost = int((first.agrees & ~second.agrees)[held].sum())
    margin = deviations * float(np.sqrt(gained + lost + 1))
    return (gained - lost + margin) / max(1, int((~first.agrees[held]).sum()))


def fold_notes(count: int, requested: int | None) -> list[str]:
    """A note if there are fewer folds than usual, because there are few examples."""
    if requested is not None or count >= FOLDS:
        return []
    return [f"There are only {count} examples that can be left out, so there are {count} folds and not {FOLDS}."]


def _notes_of_single_classes(train: Examples, alone: NDArray[np.intp]) -> list[str]:
    """The examples that are the only ones of their class."""
    assert train.y is not None
    notes = []
    for position in alone[:MAX_ALONE_NAMED].tolist():
        identifier, label = train.ids[position].item(), train.y[position].item()
        notes.append(
            f"Example {identifier!r} is the only one of class {train.labels.get(label, label)!r}: no model knows the "
            "class without it, so it is in no fold, and its loss counts as a leave-one-out estimate."
        )
    if len(alone) > MAX_ALONE_NAMED:
        notes.append(
            f"The same holds for {len(alone) - MAX_ALONE_NAMED:,} more examples, each the only one of its class."
        )
    return notes


class Round(NamedTuple):
    """One training per fold, each measured on the fold that it was not trained on; see `HeldOut`.

    `agrees` means nothing for regression targets.
    """

    loss: Array
    agrees: NDArray[np.bool_]
    predictions: tuple[Predictions, ...]

    def joined(self, other: Round, own: NDArray[np.intp]) -> Round:
        """This round for these positions, and the other one for all others."""
        loss, agrees = other.loss.copy(), other.agrees.copy()
        loss[own], agrees[own] = self.loss[own], self.agrees[own]
        return Round(loss, agrees, (*self.predictions, *other.predictions))


def train_on_folds(
    retraining: Retraining,
    model: Any,
    train: Examples,
    places: Sequence[NDArray[np.intp]],
    trusted: NDArray[np.bool_],
) -> Round:
    """Retrain without each fold, on the trusted examples of the other folds."""
    answers, seed = RetrainedOutputs.of(model, train), retraining.only_seed("mislabeled")
    tasks = []
    for fold in places:
        weights = trusted.astype(np.float64)
        weights[fold] = 0.0
        tasks.append(Task(weights=weights, seed=seed, roughly=True, queries=fold))
    loss, agrees, predictions = np.full(len(train), np.nan), np.zeros(len(train), dtype=bool), []
    for fold, columns in zip(places, run_tasks(retraining, model, train, tasks, train, answers), strict=True):
        measurements, predicted = answers.read(columns)
        loss[fold] = -measurements
        labels = [train.label(i) for i in train.ids[fold].tolist()]
        agrees[fold] = [p == label for p, label in zip(predicted.predicted, labels, strict=True)]
        predictions.append(predicted)
    return Round(loss, agrees, tuple(predictions))


def can_be_held_out(train: Examples) -> bool:
    """Whether some class has two examples, so that a model without one of them still knows the class."""
    return len(_foldable(train)[0]) > 0


def _foldable(train: Examples) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of the examples of weight above 0 that can be left out, and of those that are alone in their class."""
    assert train.y is not None
    weighted = weighted_positions(train)
    _, class_of, counts = np.unique(train.y[weighted], return_inverse=True, return_counts=True)
    is_alone = counts[class_of] == 1
    return weighted[~is_alone], weighted[is_alone]


def fold_positions(
    train: Examples, foldable: NDArray[np.intp], folds: int | None, seed: int
) -> tuple[tuple[NDArray[np.intp], ...], int]:
    """Folds of these positions, and how many; in an order drawn by the seed.

    Every class is spread evenly over the folds, and so are regression targets. None for five folds, or as many as there
    are examples if these are fewer.
    """
    assert train.y is not None
    count = _fold_count(folds, len(foldable))
    shuffled = foldable[np.random.default_rng(seed).permutation(len(foldable))]
    by_label = shuffled[np.argsort(train.y[shuffled], kind="stable")]
    return tuple(np.sort(by_label[start::count]) for start in range(count)), count


def _fold_count(folds: int | None, foldable: int) -> int:
    if foldable < 2:
        raise ValueError(
            "expected a class with at least two examples (or two examples of a regression): without its only example "
            "no model knows a class"
        )
    if folds is None:
        return min(FOLDS, foldable)
    if isinstance(folds, bool) or not isinstance(folds, int | np.integer) or not 2 <= folds <= foldable:
        raise ValueError(f"expected between 2 and {foldable} folds, got {folds!r}")
    return int(folds)


def _keep_classes(train: Examples, trusted: NDArray[np.bool_], places: Sequence[NDArray[np.intp]]) -> None:
    """Trust all examples of a class (in place) if otherwise the training of some fold would have none of it."""
    assert train.y is not None
    fold_of, weighted = np.full(len(train), -1, dtype=np.intp), np.zeros(len(train), dtype=bool)
    for number, fold in enumerate(places):
        fold_of[fold], weighted[fold] = number, True
    for label in np.unique(train.y[weighted]):
        of_label = weighted & (train.y == label)
        if len(np.unique(fold_of[of_label & trusted])) < 2:
            trusted[of_label] = True
