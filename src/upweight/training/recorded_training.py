"""The recipe of a recorded run of transformers' Trainer, for retraining and derivatives through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.examples import Examples, Id
from upweight.training.checkpoint_file import EVIDENCE, OF_STEPS, STATE
from upweight.training.recipe import Training
from upweight.training.recorded_batches import flat_ids
from upweight.training.recorded_run import RecordedRun
from upweight.training.replay_record import RecordedMicroBatches, ReplayRecord
from upweight.training.step_evidence import read_evidence
from upweight.training.trajectory import Trajectory

Array = NDArray[np.float64]
MEANS: dict[str, Literal["step", "batch", "sum"]] = {"pooled": "step", "averaged": "batch", "summed": "sum"}


def recorded_training(
    trajectory: Trajectory, record: ReplayRecord, train: Examples | None, settings: Mapping[str, Any]
) -> Training:
    """The recipe of the run; positions are those of `train`, or of the Trainer's data set if that is None.

    Raises ValueError for a run that cannot be replayed.
    """
    _require_replayable(trajectory, record)
    batches, last = trajectory.batches(), trajectory.shards[-1].step
    assert trajectory.steps is not None
    if batches is None or not last:
        raise ValueError(f"{trajectory.folder} holds no steps; call trainer.train() first")
    micro = record.read(last)
    positions, count = _positions([flat_ids(step) for step in batches], record, train)
    counts = _counts(positions, micro, count)
    tensors = trajectory.read(0)
    initial = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith((STATE, EVIDENCE)) and name not in OF_STEPS
    }
    steps = [np.split(step, np.cumsum(sizes)[:-1]) for step, sizes in zip(positions, micro.sizes, strict=True)]
    names = [name for name in initial if name in (trajectory.trained or initial)]
    training = trajectory.steps.training(trajectory.recorded_rates(), steps, names)
    assert record.facts.accumulation is not None
    training = replace(
        training,
        clip=record.facts.clip,
        counts=None if (counts == 1.0).all() else counts,
        mean_over=MEANS[record.facts.accumulation],
        initial=initial,
        recorded=RecordedRun(
            record.facts.device, micro.states, micro.places, _first_gradient(trajectory), record.facts.autocast
        ),
    )
    return replace(training, **settings)


def _require_replayable(trajectory: Trajectory, record: ReplayRecord) -> None:
    if record.facts.obstacles:
        raise ValueError(
            f"this run cannot be replayed: {'; '.join(record.facts.obstacles)}. Its trajectory still serves TracIn, "
            "GAS and SOURCE; to retrain it, pass TorchModel(…, training=train_fn), a function (weights, seed) -> net"
        )
    if not trajectory.shards or trajectory.shards[0].step != 0:
        raise ValueError(f"{trajectory.folder} has no checkpoint from before the first step, where a replay begins")


def _positions(
    batches: Sequence[Sequence[Id]], record: ReplayRecord, train: Examples | None
) -> tuple[list[NDArray[np.intp]], int]:
    """The positions of the examples of every step, and the number of training examples."""
    if train is not None:
        try:
            return [train.positions(step) for step in batches], len(train)
        except KeyError as error:
            raise ValueError(f"the run took examples that the training set does not have: {error.args[0]}") from error
    if record.facts.examples is None:
        raise ValueError("expected the training set, recorder.training(train): no Trainer was attached whose it is")
    if record.ids is None:
        return [np.asarray(step, dtype=np.intp) for step in batches], record.facts.examples
    places = {identifier: position for position, identifier in enumerate(record.ids.tolist())}
    return [np.array([places[i] for i in step], dtype=np.intp) for step in batches], record.facts.examples


def _counts(positions: Sequence[NDArray[np.intp]], micro: RecordedMicroBatches, count: int) -> Array:
    """The terms in the loss of every example, (n,), 1 for those that no step took.

    Raises ValueError if an example was not the same in all steps.
    """
    where = np.concatenate(positions)
    order = np.argsort(where, kind="stable")
    same_example = np.diff(where[order]) == 0
    for values, what in ((micro.terms, "labels"), (micro.contents, "inputs")):
        changed = same_example & (np.diff(np.concatenate(values)[order]) != 0)
        if changed.any():
            raise ValueError(
                f"this run cannot be replayed: the {what} of {len(np.unique(where[order][1:][changed]))} examples "
                "differ between steps (random masks, augmentation), so that the training set does not say what they "
                "took. Draw masks once, before training"
            )
    counts = np.ones(count)
    counts[where] = np.concatenate(micro.terms)
    return counts


def _first_gradient(trajectory: Trajectory) -> dict[str, Tensor]:
    """Sketches of the gradient of the first step."""
    if len(trajectory) < 2:
        return {}
    evidence = read_evidence(trajectory.read(1), is_next_step=trajectory.shards[1].step == 1)
    return {} if evidence is None else evidence["gradients"]
