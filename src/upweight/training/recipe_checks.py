"""Checks of the settings of a training recipe."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.training.parameter_groups import ParameterGroup
from upweight.training.update_rule import UpdateRule

OPTIMISERS = ("sgd", "adam", "adamw", "rmsprop")
SCHEDULES = ("constant", "linear", "cosine")
DENOMINATORS = ("fixed", "renormalised", "rebatched")
MEANS = ("batch", "step", "sum")


def check_words(training: Any) -> None:
    """Raise ValueError for an unknown word, and unless there are either epochs or batches."""
    if not isinstance(training.optimiser, UpdateRule):
        other = "; state the rule of another optimiser as uw.UpdateRule(step, state=…)"
        _require_one_of("optimiser", training.optimiser, OPTIMISERS, other)
    if not callable(training.schedule):
        _require_one_of("schedule", training.schedule, SCHEDULES)
    _require_one_of("denominator", training.denominator, DENOMINATORS)
    _require_one_of("mean_over", training.mean_over, MEANS)
    if (training.epochs is None) == (training.batches is None):
        raise ValueError("expected either epochs= (batches are drawn from the seed) or batches= (one array per step)")
    if training.batches is not None and training.denominator == "rebatched":
        raise ValueError('denominator="rebatched" draws batches of the remaining examples; pass epochs=, not batches=')
    if not all(isinstance(group, ParameterGroup) for group in training.groups):
        raise TypeError("expected groups as a sequence of uw.ParameterGroup(parameters=…, lr=…, weight_decay=…)")


def check_numbers(training: Any) -> None:
    """Raise ValueError for numbers that no training has."""
    _check_steps(training)
    _require("seed", is_whole_number(training.seed, 0), "a whole number ≥ 0", training.seed)
    _require("momentum", 0 <= training.momentum < 1, "a number in [0, 1)", training.momentum)
    _require("betas", all(0 <= b < 1 for b in training.betas), "two numbers in [0, 1)", training.betas)
    _require("alpha", 0 <= training.alpha < 1, "a number in [0, 1)", training.alpha)
    _require("eps", training.eps >= 0 and training.eps_root >= 0, "numbers ≥ 0", (training.eps, training.eps_root))
    _require("weight_decay", 0 <= training.weight_decay < np.inf, "a number ≥ 0", training.weight_decay)
    _require("clip", training.clip is None or training.clip > 0, "a norm > 0", training.clip)
    _require("ema", training.ema is None or 0 <= training.ema < 1, "a number in [0, 1)", training.ema)
    holds = training.counts is None or (np.isfinite(training.counts).all() and np.min(training.counts) >= 0)
    _require("counts", holds, "one number ≥ 0 for every example", training.counts)
    _check_random_states(training)
    if training.nesterov and not training.momentum:
        raise ValueError("nesterov needs a momentum > 0")
    if training.nesterov and training.optimiser != "sgd":
        raise ValueError(f"nesterov is a setting of sgd, not of {training.optimiser}; leave it out")
    if training.momentum and training.optimiser not in ("sgd", "rmsprop"):
        raise ValueError(f"momentum is a setting of sgd and rmsprop, not of {training.optimiser}; leave it out")
    if training.centred and training.optimiser != "rmsprop":
        raise ValueError(f"centred is a setting of rmsprop, not of {training.optimiser}; leave it out")


def _check_steps(training: Any) -> None:
    rates = [("lr", training.lr), *((f"lr of {g.parameters!r}", g.lr) for g in training.groups if g.lr is not None)]
    for name, value in rates:
        lr = np.asarray(value, dtype=np.float64)
        _require(name, lr.ndim <= 1 and lr.size > 0 and np.isfinite(lr).all() and (lr >= 0).all(), "numbers ≥ 0", lr)
        if lr.ndim == 1 and (training.schedule != "constant" or training.warmup):
            raise ValueError("a sequence of learning rates is a schedule of its own; leave schedule and warmup out")
        if lr.ndim == 1 and training.batches is not None and len(training.batches) != len(lr):
            raise ValueError(f"expected one lr for every step ({len(training.batches)}), got {len(lr)}")
    epochs, batches = training.epochs, training.batches
    _require("epochs", epochs is None or is_whole_number(epochs, 1), "a whole number ≥ 1", epochs)
    _require("batches", batches is None or len(batches) > 0, "at least one step", batches)
    _require("batch_size", is_whole_number(training.batch_size, 1), "a whole number ≥ 1", training.batch_size)
    _require("warmup", is_whole_number(training.warmup, 0), "a whole number ≥ 0", training.warmup)
    _require("accumulate", is_whole_number(training.accumulate, 1), "a whole number ≥ 1", training.accumulate)
    if training.accumulate > 1 and batches is not None:
        raise ValueError("batches= says which batches a step accumulates, as lists of arrays; leave accumulate out")


def steps_of_batches(batches: Any) -> tuple[Any, ...]:
    """Positions of every step, read-only: an array, or a tuple of arrays for a step that accumulates gradients."""
    return tuple(
        tuple(_positions(t, batch) for batch in step) if _is_accumulated(step) else _positions(t, step)
        for t, step in enumerate(batches)
    )


def _check_random_states(training: Any) -> None:
    states, batches = training.random_states, training.batches
    if states is not None and (batches is None or len(states) != len(batches)):
        steps = "batches=" if batches is None else f"{len(batches)} steps"
        raise ValueError(f"expected random_states of each step of batches=, got {len(states)} states for {steps}")


def _is_accumulated(step: Any) -> bool:
    return isinstance(step, list | tuple) and len(step) > 0 and all(np.ndim(batch) == 1 for batch in step)


def _positions(step: int, batch: Any) -> NDArray[np.intp]:
    array = np.asarray(batch)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iu" or (array < 0).any():
        raise ValueError(f"expected positions ≥ 0 in the training set for step {step} of batches=, got {batch!r}")
    array = array.astype(np.intp)
    array.setflags(write=False)
    return array


def is_whole_number(value: Any, least: int) -> bool:
    """Whether a value is a whole number of at least this size."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= least


def _require_one_of(name: str, value: Any, known: tuple[str, ...], otherwise: str = "") -> None:
    if value not in known:
        raise ValueError(f"expected {name} to be one of {', '.join(known)}, got {value!r}{otherwise}")


def _require(name: str, holds: Any, expected: str, value: Any) -> None:
    if not holds:
        raise ValueError(f"expected {name} to be {expected}, got {value}")
