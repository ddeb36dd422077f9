"""A callback of transformers' Trainer that records its training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from upweight.core.examples import Examples
from upweight.training.checkpoint_file import saved_tensors
from upweight.training.indexed_batches import IndexedCollator, IndexedDataset, columns_of_forward, ids_of_dataset
from upweight.training.micro_batches import MicroBatch, random_state
from upweight.training.recipe import Training
from upweight.training.recorded_training import recorded_training
from upweight.training.replay_record import ReplayRecord, RunFacts
from upweight.training.trainer_arguments import facts_of, require_recordable
from upweight.training.trainer_objective import ItemsProbe, objective_shares
from upweight.training.trajectory import Trajectory


class TrajectoryCallback(TrainerCallback):  # type: ignore[misc]  # what it inherits is not looked at
    """Records the training of a `transformers.Trainer` as a `Trajectory`, and so that it can be replayed.

        recorder = uw.TrajectoryCallback("run", every=50).attach(trainer)
        trainer.train()
        model = uw.TorchModel(trainer.model, loss, collate=collate, trajectory=recorder.trajectory)

    Recorded are checkpoints with AdamW's moments, the learning rate of every step as it was used, and which examples it
    took: all micro-batches of an accumulated step, and nothing of evaluations in between. A step that a scaler skipped
    is not recorded. With `training=recorder.training()` the model can also be retrained and replayed.

    Args:
        folder: of the trajectory; the callback of another process reads what was recorded there.
        every: steps between checkpoints. There is one wherever the Trainer saves, too.
        column: the name under which the examples' positions (or, without `attach`, your ids) travel in the batches.

    Attributes:
        trajectory: the recorded trajectory.

    Without `attach`, pass `callbacks=[recorder]`, put ids into a column of the data set of this name, keep it in your
    collator, and set `remove_unused_columns=False`. The column is taken out of the batch before the net sees it.

    Raises:
        ValueError: at the beginning of the training, for a Trainer on several devices or with another optimiser than
            SGD, Adam and AdamW; at the first step, for batches without ids.
    """

    def __init__(self, folder: str | Path, *, every: int = 1, column: str = "example") -> None:
        self.trajectory, self.column = Trajectory(folder, every=every), column
        self._record = ReplayRecord(self.trajectory.folder)
        self._trainer: Any = None
        self._hooks: list[Any] = []
        self._taken: list[MicroBatch] = []  # of the step that is being made
        self._open: MicroBatch | None = None  # whose forward pass is being made
        self._steps: list[list[MicroBatch]] = []  # since the last checkpoint
        self._step, self._probe = 0, ItemsProbe()

    def attach(self, trainer: Any, ids: Any = None) -> Self:
        """Let this Trainer's batches say which examples they hold, and add the callback to it.

        `ids`: a column of the training set that holds unique ids, or one id per example; None for positions. Columns
        that the net does not take are still dropped, unless `remove_unused_columns=False`.

        Raises TypeError for a data set without positions, and ValueError for ids that are not unique.
        """
        require_recordable(trainer.args)
        dataset = trainer.train_dataset
        self._record.ids, self._trainer = ids_of_dataset(dataset, ids), trainer
        columns = columns_of_forward(trainer.model, trainer.label_names) if trainer.args.remove_unused_columns else None
        trainer.data_collator = IndexedCollator(trainer.data_collator, self.column, columns)
        trainer.train_dataset = IndexedDataset(dataset, self.column)
        trainer.args.remove_unused_columns = False  # the collator does this; the Trainer would drop the positions
        trainer.add_callback(self)
        return self

    def training(self, train: Examples | None = None, **settings: Any) -> Training:
        """The recorded run as a recipe, for `TorchModel(…, training=…)` and `uw.hf.from_trainer(…, training=…)`.

        Args:
            train: the training set, in any order; None for the attached Trainer's own.
            settings: of `Training`, which take precedence, e.g. `denominator="renormalised"`.

        The loss of an example has to be the sum over its tokens. Weights then change J = Σ wᵢℓᵢ/N with N the tokens of
        the step ("fixed"), or those of weight ("renormalised").

        Raises ValueError for a run that cannot be replayed, with the reason.
        """
        return recorded_training(self.trajectory, self._record, train, settings)

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Save the initial parameters, or continue from the step at which the Trainer was resumed."""
        net, optimiser = others["model"], others["optimizer"]
        require_recordable(args)
        self._clear()
        facts = facts_of(args, self._trainer)
        self.trajectory.clip = facts.clip
        if state.global_step == 0:
            self._record.facts = facts
        else:
            self._resume(net, int(state.global_step), facts)
        self.trajectory.save(net, optimiser)
        self._step = self.trajectory.shards[-1].step
        self._passed_on(state)
        self._record.write(self._step, [])
        self._probe = ItemsProbe(self._trainer, args)
        self._hooks = [
            net.register_forward_pre_hook(self._before_forward, with_kwargs=True),
            net.register_forward_hook(self._after_forward, with_kwargs=True),
        ]

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Record the step: parameters are new, and the learning rate and the gradients still those of the step."""
        taken, self._taken = self._taken, []
        if getattr(others["optimizer"], "step_was_skipped", False):
            return
        if not taken:
            raise ValueError(
                f"expected the ids of the examples as {self.column!r} in the batches of step {state.global_step + 1}, "
                "got none: call recorder.attach(trainer) before trainer.train(), or see the docstring of "
                "TrajectoryCallback for a column of your own"
            )
        shares = objective_shares(taken, self._record.facts, self._probe, others["model"])
        self._steps.append(taken)
        self._step += 1
        if self._step % self.trajectory.every == 0:
            self._write(int(state.global_step) + 1)
        batch = taken[0].ids if len(taken) == 1 else [micro.ids for micro in taken]
        self.trajectory.record(others["model"], others["optimizer"], batch=batch, shares=shares)

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Save the last step now: after it the Trainer may load the parameters of an earlier one."""
        if control.should_training_stop or state.global_step >= state.max_steps:
            self._save(state, others)

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Save a checkpoint of the trajectory where the Trainer has one, so that both can be resumed."""
        self._save(state, others)

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Save the last checkpoint; if the Trainer loaded an earlier, better one, the trajectory ends there."""
        best = getattr(state, "best_global_step", None)
        self._clear()
        if not getattr(args, "load_best_model_at_end", False):
            self._save(state, others)
        elif best:
            self._rewind(int(best))
            self._record.write_facts()

    def _save(self, state: Any, others: Mapping[str, Any]) -> None:
        if self._steps:
            self._write(int(state.global_step))
        self.trajectory.save(others["model"], others["optimizer"])

    def _write(self, loop_step: int) -> None:
        """Write the micro-batches since the last checkpoint; the trajectory writes the checkpoint next."""
        self._record.facts.loop_steps[str(self._step)] = loop_step
        self._record.write(self._step, self._steps)
        self._steps = []

    def _passed_on(self, state: Any) -> None:
        self._record.facts.loop_steps.setdefault(str(self._step), int(state.global_step))

    def _resume(self, net: nn.Module, loop_step: int, facts: RunFacts) -> None:
        """Continue from the Trainer's checkpoint. Raises ValueError if the trajectory has none of that step."""
        before = self._record.facts
        if not self.trajectory.shards:
            facts.note(f"its recording began at step {loop_step}, where the optimiser had moments already")
            self._record.facts = facts
            return
        self._rewind(loop_step)
        stored, current = self.trajectory.read(len(self.trajectory) - 1), saved_tensors(net)
        differ = [name for name, tensor in current.items() if not torch.equal(stored[name], tensor.detach().cpu())]
        if differ:
            raise ValueError(
                f"{self.trajectory.name_of(-1)} is not the net that the Trainer resumes ({differ[0]!r} differs): "
                "resume the run that was recorded there, or record into another folder"
            )
        facts.accumulation, facts.shifted, facts.loop_steps = before.accumulation, before.shifted, before.loop_steps
        for obstacle in before.obstacles:
            facts.note(obstacle)
        self._record.facts = facts

    def _rewind(self, loop_step: int) -> None:
        steps = [int(step) for step, of_loop in self._record.facts.loop_steps.items() if of_loop == loop_step]
        self.trajectory.rewind(min(steps, default=loop_step))
        self._record.rewind(self.trajectory.shards[-1].step)

    def _before_forward(self, net: nn.Module, args: Any, inputs: dict[str, Any]) -> Any:
        """Take the ids out of the batch."""
        ids = inputs.pop(self.column, None)
        if ids is None or not net.training or self._probe.is_running:
            return args, inputs
        if not self._taken:
            self.trajectory.start_step()
        chosen, terms = np.asarray(ids.detach().cpu() if isinstance(ids, Tensor) else ids), None
        if chosen.ndim == 2:  # by the collator of `attach`
            chosen, terms = chosen[:, 0], chosen[:, 1:]
        chosen = chosen if self._record.ids is None else self._record.ids[chosen]
        micro = MicroBatch.of(chosen.tolist(), inputs, terms)
        micro.state = random_state(_device(net))
        self._taken.append(micro)
        self._open = micro
        return args, inputs

    def _after_forward(self, net: nn.Module, args: Any, inputs: dict[str, Any], outputs: Any) -> None:
        micro, self._open = self._open, None
        if self._probe.is_running or not net.training:
            return
        if micro is None:
            self._record.facts.note("the net was called several times for one batch, or without its examples' ids")
            return
        assert micro.state is not None
        before, drew = micro.state, not torch.equal(micro.state, random_state(_device(net)))
        if not drew:
            micro.state = None
        self._probe(net, args, inputs, outputs, before)

    def _clear(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._taken, self._open, self._steps = [], None, []


def _device(net: nn.Module) -> torch.device:
    return next(net.parameters()).device
