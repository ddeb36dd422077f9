"""Held out: what models say of training examples that they were not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Predictions
from upweight.core.weights import present

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


def held_out(
    model: Any, train: Examples, alone: Array | None, folds: int, seed: int, tell: Callable[[int, int], None]
) -> HeldOut:
    """Two rounds of `folds` trainings.

    `alone` (n,) is the loss without each example, which says what looks wrong; None takes the first round's own.
    """
    places = _folds(train, folds, seed)
    first = _Round(model, train, places, np.ones(len(train), dtype=bool), seed, lambda done: tell(done, 2 * folds))
    suspicion = first.loss if alone is None else alone
    kept = np.ones(len(train), dtype=bool)
    there = present(train)
    wrong = int((~first.agrees[there]).sum())
    kept[there[np.argsort(-suspicion[there], kind="stable")[:wrong]]] = False
    _keep_classes(train, kept, places)
    second = _Round(model, train, places, kept, seed, lambda done: tell(folds + done, 2 * folds))
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


class _Round:
    """One training per fold, each measured on its own fold."""

    def __init__(
        self,
        model: Any,
        train: Examples,
        places: Sequence[NDArray[np.intp]],
        kept: NDArray[np.bool_],
        seed: int,
        tell: Callable[[int], None],
    ) -> None:
        self.loss, self.agrees = np.full(len(train), np.nan), np.zeros(len(train), dtype=bool)
        said = []
        for done, where in enumerate(places, start=1):
            weights = kept.astype(np.float64)
            weights[where] = 0.0
            fold = train.take(where)
            trained = model.retrain_roughly(train, weights, seed)
            self.loss[where] = -trained.measure(fold)
            said.append(trained.predict(fold))
            labels = [fold.label(i) for i in fold.ids.tolist()]
            self.agrees[where] = [p == label for p, label in zip(said[-1].predicted, labels, strict=True)]
            tell(done)
        self.predictions = tuple(said)


def _folds(train: Examples, folds: int, seed: int) -> tuple[NDArray[np.intp], ...]:
    """Every class spread evenly, in an order that the seed decides; examples of weight 0 are in no fold."""
    assert train.y is not None
    there = present(train)
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
