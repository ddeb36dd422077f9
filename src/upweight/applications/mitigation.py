"""Mitigation of an attack: remove training examples above a falling cutoff until the target's label changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.predicted_labels import predicted_labels
from upweight.core.examples import Examples
from upweight.core.progress import no_progress
from upweight.core.weights import weighted_positions
from upweight.retraining.retrain import retrain
from upweight.retraining.retraining import Retraining

Array = NDArray[np.float64]
FALL = 0.75  # factor of the cutoff from one training to the next
LOWEST = 2.0  # z-value where the cutoff stops falling
MAX_REMOVED_SHARE = 0.5  # share of the examples of its label that may be removed for a target


@dataclass(frozen=True, eq=False)
class Mitigation:
    """The effect of removing the attackers of one target.

    Attributes:
        removed: positions of the training examples that were removed for this target, strongest first.
        others: how many were removed for other targets; the labels below are without these too.
        trainings: how many trainings it took, without those that are shared by all targets.
        label, probability: the target's predicted label without all that was removed for any target, as a value of the
            training labels.
        base: its predicted label after retraining on all examples.
        reproduced: whether `base` is the label that the given model predicts.
        control: its label after removing, for all targets together, as many random examples of each label instead; None
            if it was not tried because the label did not change.
        why_not: why removal ended without a change of the label; None if it changed.
    """

    removed: NDArray[np.intp]
    others: int
    trainings: int
    label: Any
    probability: float | None
    base: Any
    reproduced: bool
    control: Any
    why_not: str | None

    @property
    def changed(self) -> bool:
        """Whether the target's label changed."""
        return self.why_not is None

    @property
    def confirmed(self) -> bool:
        """Whether the label changed without the attackers, and not without as many random examples."""
        return self.changed and self.control == self.base


@dataclass
class _Removal:
    """What is removed for one target, and why it ended without a change of its label."""

    target: Examples
    predicted: Any
    z: Array
    base: Any
    removed: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    trainings: int = 0
    why_not: str | None = None


class Mitigator:
    """Removes the attackers of one target after another; what was removed for one stays removed for the next.

    Args:
        model, train: the model and its training set.
        retraining: how to train, and the progress to report to.
    """

    def __init__(self, model: Any, train: Examples, retraining: Retraining) -> None:
        self.model, self.train, self.retraining = model, train, retraining
        self.report = retraining.progress or no_progress
        self.seed = retraining.only_seed("poisoned")
        self.weights = np.ones(len(train))
        self.base = self.current = self._trained(self.weights)

    def mitigate(self, targets: Sequence[tuple[Examples, Any, Array]]) -> list[Mitigation]:
        """The effect of removal for each target (its query, its predicted label, z-values of training examples (n,)).

        What is removed for one target can give another one its label back, so the targets are visited until none has
        it. In the end one control, for all of them, is trained without as many random examples of each label.
        """
        removals = [_Removal(*target, self._label(self.base, target[0])[0]) for target in targets]
        for removal in removals:
            if removal.base != removal.predicted:
                removal.why_not = "training on everything does not give this prediction"
        self.report("retrain", 0, len(removals))
        while unchanged := [
            r for r in removals if r.why_not is None and self._label(self.current, r.target)[0] == r.base
        ]:
            for removal in unchanged:
                self._remove_for(removal)
            self.report("retrain", len(removals) - len(unchanged), len(removals))
        self.report("retrain", len(removals), len(removals))
        control = self._trained(self._control()) if len(self.removed) else None
        return [self._result(removal, control) for removal in removals]

    def _remove_for(self, removal: _Removal) -> None:
        """Remove the examples with the highest z-values until the predicted label of the target changes."""
        steps = self._steps(removal.z)
        while self._label(self.current, removal.target)[0] == removal.base:
            step = next(steps, None)
            if step is None:
                removal.why_not = (
                    "removing all training examples with unusual influence on it does not change its label"
                )
                return
            weights = self.weights.copy()
            weights[step] = 0.0
            try:
                self.current = self._trained(weights)
            except ValueError as error:  # mostly because a class would be lost
                removal.why_not = f"the model cannot be trained without its attackers ({error})"
                return
            self.weights, removal.trainings = weights, removal.trainings + 1
            removal.removed = np.concatenate([removal.removed, step])

    def _result(self, removal: _Removal, control: Any) -> Mitigation:
        label, probability = self._label(self.current, removal.target)
        changed = label != removal.base and removal.base == removal.predicted
        return Mitigation(
            removed=removal.removed,
            others=len(self.removed) - len(removal.removed),
            trainings=removal.trainings,
            label=label,
            probability=probability,
            base=removal.base,
            reproduced=removal.base == removal.predicted,
            control=self._label(control, removal.target)[0] if changed and control is not None else None,
            why_not=None if changed else removal.why_not,
        )

    @property
    def removed(self) -> NDArray[np.intp]:
        """Positions of all that was removed."""
        return np.flatnonzero(self.weights == 0)

    def accuracy(self, queries: Examples, counted: NDArray[np.bool_]) -> tuple[float, float] | None:
        """The accuracy (before, after) removal on the queries where `counted` (m,); None without labels or queries."""
        if queries.y is None or not counted.any():
            return None
        queries = queries.take(counted)
        before, after = (
            float(np.mean(predicted_labels(model, self.train, queries)[0] == queries.y))
            for model in (self.base, self.current)
        )
        return before, after

    def _steps(self, z: Array) -> Iterator[NDArray[np.intp]]:
        """What to remove next: the positions above a cutoff that falls, strongest first."""
        order = np.argsort(-z, kind="stable")
        is_left = self.weights[order] > 0
        most = int(MAX_REMOVED_SHARE * np.isfinite(z).sum()) - int((np.isfinite(z[order]) & ~is_left).sum())
        order = order[(z[order] >= LOWEST) & is_left][: max(0, most)]
        cutoff = float(z[order[0]]) if len(order) else LOWEST
        while len(order):
            cutoff = max(LOWEST, FALL * cutoff)
            count = int((z[order] >= cutoff).sum())
            if count:
                yield order[:count]
            order = order[count:]

    def _control(self) -> Array:
        """Weights without as many random examples of each label as were removed."""
        assert self.train.y is not None
        rng, weights = np.random.default_rng(self.seed), np.ones(len(self.train))
        present = weighted_positions(self.train)
        for label, count in zip(*np.unique(self.train.y[self.removed], return_counts=True), strict=True):
            same = present[self.train.y[present] == label]
            weights[rng.choice(same, min(int(count), int(MAX_REMOVED_SHARE * len(same))), replace=False)] = 0.0
        return weights

    def _label(self, model: Any, target: Examples) -> tuple[Any, float | None]:
        labels, probabilities = predicted_labels(model, self.train, target)
        return labels[0].item(), None if probabilities is None else float(probabilities[0])

    def _trained(self, weights: Array) -> Any:
        return retrain(self.model, self.train, weights, self.seed, retraining=self.retraining)
