"""What learned weights gain on held-out data, beside weights that nothing was learned for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.weight_slopes import FreeWeights
from upweight.core.examples import Examples
from upweight.retraining.engine import run_tasks
from upweight.retraining.retrained_outputs import RetrainedOutputs
from upweight.retraining.retraining import Retraining
from upweight.retraining.task import Task

Array = NDArray[np.float64]
LEVEL = 0.9  # of intervals
BOOTSTRAP_SAMPLES = 2000
LEARNED, UNIFORM, DROPPED, RANDOM, SINGLE = "learned", "uniform", "highest losses dropped", "random", "one weight"
RANDOM_DRAWS = 5  # of random weights, if the model has one run
# One for all unlabelled examples; the best on the validation examples is taken.
SINGLE_WEIGHTS = (0.0, 0.1, 0.3, 1.0, 2.0)


@dataclass(frozen=True)
class WeightGain:
    """How the learned weights do on held-out examples beside other weights.

    Attributes:
        weights: which other weights: "uniform", "one weight", "highest losses dropped" or "random".
        described: the same in words, with its setting.
        measured: mean measurement with these weights.
        accuracy: the same for the share of correct predictions; None if the model predicts numbers.
        gain: mean measurement with the learned weights minus that with these.
        interval: 90 % interval of the gain, by a paired bootstrap over held-out examples and trainings.
        trainings: how many models were trained with these weights.
    """

    weights: str
    described: str
    measured: float
    accuracy: float | None
    gain: float
    interval: tuple[float, float]
    trainings: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "weights": self.weights,
            "described": self.described,
            "measured": self.measured,
            "accuracy": self.accuracy,
            "gain": self.gain,
            "interval": list(self.interval),
            "trainings": self.trainings,
        }


@dataclass(frozen=True, eq=False)
class Arms:
    """Weightings to compare, and the trainings of each.

    Attributes:
        weights: name → learned weights (runs, k), or (1, k) for all runs.
        described: name → words.
        runs: seeds of the trainings.
    """

    weights: Mapping[str, Array]
    described: Mapping[str, str]
    runs: tuple[int, ...]

    @classmethod
    def of(cls, model: Any, train: Examples, free: FreeWeights, learned: Array, retraining: Retraining) -> Arms:
        """The learned weights, uniform ones, as many of the highest losses dropped, and the learned ones shuffled."""
        weights = {LEARNED: learned[None], UNIFORM: np.ones((1, len(learned)))}
        described = {LEARNED: "the learned weights", UNIFORM: "all weights 1"}
        count = int((learned < 0.5).sum())
        if 0 < count < len(learned) and model.measurement.startswith("−loss"):
            sizes = np.bincount(free.part[free.part >= 0], minlength=len(learned))
            losses = -free.summed(model.measure(train)) / sizes
            dropped = np.ones(len(learned))
            dropped[np.argsort(-losses, kind="stable")[:count]] = 0.0
            weights[DROPPED], described[DROPPED] = dropped[None], f"the {count:,} of highest loss without weight"
        runs = retraining.runs[:1] if model.converges else retraining.runs
        draws = RANDOM_DRAWS if len(runs) == 1 else len(runs)
        if len(learned) > 1:
            rng = np.random.default_rng(0)
            weights[RANDOM] = np.stack([rng.permutation(learned) for _ in range(draws)])
            described[RANDOM] = "the learned weights at random places"
        return cls(weights, described, runs)

    def with_arm(self, name: str, weights: Array, described: str) -> Arms:
        """These weightings and one more."""
        return Arms({**self.weights, name: weights}, {**self.described, name: described}, self.runs)

    def tasks(self, free: FreeWeights) -> tuple[list[Task], list[str]]:
        """One training per run and arm (all draws of random weights if there is one run), and its arm's name."""
        tasks, names = [], []
        for name, rows in self.weights.items():
            seeds = self.runs if len(self.runs) >= len(rows) else self.runs * len(rows)
            for number, seed in enumerate(seeds):
                tasks.append(Task(weights=free.of_examples(rows[number % len(rows)]), seed=seed))
                names.append(name)
        return tasks, names


def best_single_weight(
    model: Any, train: Examples, validation: Examples, free: FreeWeights, retraining: Retraining
) -> float:
    """The weight for all that does best on the validation examples."""
    tasks = [Task(weights=free.of_examples(np.full(len(free.names), weight))) for weight in SINGLE_WEIGHTS]
    means = [float(np.mean(values)) for values in run_tasks(retraining, model, train, tasks, validation)]
    return SINGLE_WEIGHTS[int(np.argmax(means))]


def gains_of(
    model: Any, train: Examples, held_out: Examples, free: FreeWeights, arms: Arms, retraining: Retraining
) -> tuple[float, float | None, tuple[WeightGain, ...]]:
    """(mean measurement, accuracy) with the learned weights, and their gain beside every other arm."""
    tasks, names = arms.tasks(free)
    outputs = RetrainedOutputs.of(model, held_out)
    results = run_tasks(retraining, model, train, tasks, held_out, outputs)
    measured: dict[str, list[Array]] = {name: [] for name in arms.weights}
    correct: dict[str, list[float]] = {name: [] for name in arms.weights}
    labels = [held_out.label(i) for i in held_out.ids.tolist()] if outputs.classes and held_out.y is not None else None
    for name, columns in zip(names, results, strict=True):
        values, predictions = outputs.read(columns)
        measured[name].append(values)
        if labels is not None:
            plain = [held_out.labels.get(value, value) for value in predictions.predicted]
            correct[name].append(float(np.mean([a == b for a, b in zip(plain, labels, strict=True)])))
    learned = np.stack(measured[LEARNED])
    gains = []
    for name, rows in measured.items():
        if name == LEARNED:
            continue
        differences = learned - np.stack(rows)  # (runs, m); one learned run stands beside all draws of random weights
        accuracy = float(np.mean(correct[name])) if correct[name] else None
        gains.append(
            WeightGain(
                name,
                arms.described[name],
                float(np.mean(rows)),
                accuracy,
                float(differences.mean()),
                paired_interval(differences),
                len(rows),
            )
        )
    accuracy = float(np.mean(correct[LEARNED])) if correct[LEARNED] else None
    return float(learned.mean()), accuracy, tuple(gains)


def paired_interval(differences: Array, seed: int = 0) -> tuple[float, float]:
    """The 90 % interval of the mean of differences (runs, m), by a bootstrap over runs and examples."""
    rng = np.random.default_rng(seed)
    runs, count = differences.shape
    means = np.empty(BOOTSTRAP_SAMPLES)
    for sample in range(BOOTSTRAP_SAMPLES):
        of_runs = differences[rng.integers(runs, size=runs)].mean(axis=0)
        means[sample] = of_runs[rng.integers(count, size=count)].mean()
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
