"""A trajectory: checkpoints and learning rates of a training, recorded in the user's own training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from upweight.core.examples import Examples
from upweight.gradients.network import unwrap
from upweight.training.checkpoint_file import (
    OF_STEPS,
    STATE,
    optimiser_tensors,
    read_checkpoint,
    require_same_tensors,
    saved_tensors,
    write_checkpoint,
)
from upweight.training.optimiser_settings import (
    OptimiserSettings,
    group_sizes,
    read_learning_rates,
    read_state,
    restore_state,
    unwrap_optimiser,
)
from upweight.training.pending_steps import PendingSteps
from upweight.training.recipe import Training
from upweight.training.recorded_batches import positions_of
from upweight.training.recorded_sequence import RecordedSequence
from upweight.training.step_evidence import step_evidence
from upweight.training.trajectory_manifest import Shard, read_manifest, write_manifest

NO_RANDOM_STATES = (
    "augment= draws random numbers that the trajectory does not have: call trajectory.start_step() in the loop before "
    "the inputs of each step are made, or leave augment out and let the net see the examples as they are"
)
Augment = Callable[[Any, torch.Generator], Any]


class Trajectory(RecordedSequence):
    """A folder of checkpoints that a training loop writes.

        trajectory = uw.Trajectory("run", every=50)
        for batch in batches:
            …
            optimiser.step()
            trajectory.record(net, optimiser, batch=ids)       # before the scheduler's step

    Call `trajectory.save(net, optimiser)` before the loop as well, to store the initial parameters, and after it, to
    store the last ones if `every` does not divide the number of steps.

    Args:
        folder: created if needed. If it holds a trajectory, that one is read, and continued after `resume`.
        every: steps between checkpoints. SOURCE needs about six checkpoints in all.
        augment: `augment(batch, generator) -> batch`, what the loop does at random to the inputs of a step. It is not
            stored, but given where the trajectory is read; the loop has to call `start_step` in every step.
        clip: the norm to which the loop clips gradients (`clip_grad_norm_`), None if it does not. Given for a folder
            that holds a trajectory, it replaces the norm stored there.

    A checkpoint holds parameters, buffers and the optimiser's state, and for every step since the checkpoint before it
    the learning rate and, if it was passed, which examples the step took. It is written under another name, flushed and
    renamed. Then the manifest, which lists it with its checksum, is written: an interrupted write leaves the trajectory
    as it was.

    Raises:
        ValueError: the folder holds something else, or a damaged trajectory.
    """

    def __init__(
        self, folder: str | Path, every: int = 1, *, clip: float | None = None, augment: Augment | None = None
    ) -> None:
        if every < 1:
            raise ValueError(f"expected a checkpoint every 1 or more steps, got every={every}")
        if clip is not None and not 0 < clip < np.inf:
            raise ValueError(f"expected clip to be a norm > 0, got {clip}")
        self.folder, self.every, self.clip, self.augment = Path(folder), every, clip, augment
        self._random_state: Tensor | None = None  # at the beginning of the current step
        self.shards: list[Shard] = []
        self.steps: OptimiserSettings | None = None
        self._pending = PendingSteps()  # since the last checkpoint
        self._evidence: dict[str, Tensor] = {}  # of the step after the last checkpoint
        self._steps_of: dict[Shard, dict[str, Tensor]] = {}  # of checkpoints that were read
        self._step = 0
        self._may_continue = True  # whether recorded steps follow those in the folder
        recorded = read_manifest(self.folder)
        if recorded is not None:
            steps, self.shards = recorded
            self.steps = steps if clip is None else replace(steps, clip=clip)
            self._step = self.shards[-1].step if self.shards else 0
            self._may_continue = False

    def __len__(self) -> int:
        return len(self.shards)

    def __bool__(self) -> bool:
        """True, also before the first checkpoint, so that `if trajectory: trajectory.record(…)` records."""
        return True

    @property
    def trained(self) -> frozenset[str] | None:
        """The names of the parameters that the optimiser held; None if the trajectory does not say."""
        return None if self.steps is None or self.steps.decays is None else frozenset(self.steps.decays)

    def start_step(self) -> None:
        """Remember torch's random numbers, before the step draws any (augmentation, dropout).

        With them SOURCE makes the step again as it was. Call it in every step or in none.
        """
        state = torch.get_rng_state()
        on_gpu = torch.cuda.is_available()
        self._random_state = torch.cat([state, torch.cuda.get_rng_state()]) if on_gpu else state

    def record(self, net: nn.Module, optimiser: Any, batch: Any = None, shares: Any = None) -> None:
        """Record one step of the optimiser, and save a checkpoint every `every` steps.

        `batch`: ids of the examples that the step took (their positions in the training set if `Examples` were given no
        ids). With them SOURCE follows the training step by step. Pass them in every step or in none. For a step that
        accumulated the gradients of several batches, each divided by their number, pass the list of their ids.

        `shares`: the factor of the loss of each of these examples in the objective of the step, e.g. 1/(tokens in the
        step) for a sum over tokens; None for 1/len(batch). In every step or in none, too.

        The step that follows a checkpoint is also recorded in a few numbers per parameter, from which SOURCE sees
        whether training made the step that it replays.

        Raises TypeError or ValueError for an optimiser that is not supported, for a batch that does not consist of ids,
        and if the folder holds an earlier run that this one does not continue.
        """
        optimiser = self._check(net, optimiser)
        self._pending.add(self._step, read_learning_rates(optimiser), group_sizes(optimiser), batch, shares)
        self._pending.add_modes(unwrap(net), self._random_state)
        self._random_state = None
        if batch is not None and self.shards and self.shards[-1].step == self._step:
            self._evidence = step_evidence(net, optimiser)
        self._step += 1
        if self._step % self.every == 0:
            self.save(net, optimiser)

    def save(self, net: nn.Module, optimiser: Any) -> None:
        """Save a checkpoint of this step, unless there is one already."""
        optimiser = self._check(net, optimiser)
        if self.shards and self.shards[-1].step == self._step:
            return
        tensors = {name: t.detach().cpu().contiguous().clone() for name, t in saved_tensors(net).items()}
        tensors |= {STATE + name: t.detach().cpu().contiguous() for name, t in read_state(net, optimiser).items()}
        tensors |= {**self._pending.tensors(), **self._evidence}
        file = f"step-{self._step:09d}.safetensors"
        checksum = write_checkpoint(self.folder / file, tensors)
        self.shards.append(Shard(self._step, file, checksum, self._pending.rate_sum))
        self._pending, self._evidence = PendingSteps(), {}
        assert self.steps is not None
        write_manifest(self.folder, self.steps, self.shards)

    def resume(self, net: nn.Module, optimiser: Any) -> int:
        """Load the last checkpoint into net and optimiser, to continue from there; returns the steps taken so far.

        The loop has to continue learning rate schedules and the order of the data at that step by itself.
        """
        self._may_continue = True
        if not self.shards:
            return 0
        optimiser = self._check(net, optimiser)
        stored = self.read(len(self.shards) - 1)
        require_same_tensors(self.name_of(-1), stored, saved_tensors(net))
        with torch.no_grad():
            for name, tensor in saved_tensors(net).items():
                tensor.copy_(stored[name])
        restore_state(net, optimiser, optimiser_tensors(stored))
        return self._step

    def rewind(self, step: int) -> None:
        """Forget the checkpoints after this step, to record from it once more, as a loop that was resumed there.

        Raises ValueError if there is no checkpoint of this step.
        """
        earlier = [shard for shard in self.shards if shard.step <= step]
        if not earlier or earlier[-1].step != step:
            raise ValueError(
                f"{self.folder} has no checkpoint of step {step}, from which the training continues; its checkpoints "
                f"are of steps {[shard.step for shard in self.shards][-5:]}. Record into another folder"
            )
        assert self.steps is not None
        forgotten = self.shards[len(earlier) :]
        write_manifest(self.folder, self.steps, earlier)
        for shard in forgotten:
            (self.folder / shard.file).unlink(missing_ok=True)
        self.shards, self._step, self._may_continue = earlier, step, True
        self._pending, self._evidence = PendingSteps(), {}

    def read(self, position: int) -> dict[str, Tensor]:
        """All tensors of one checkpoint. Raises ValueError if its file is missing or damaged."""
        shard = self.shards[position]
        tensors = read_checkpoint(self.folder, shard)
        self._steps_of.setdefault(shard, {name: tensors[name] for name in OF_STEPS if name in tensors})
        return tensors

    def training(self, train: Examples, **settings: Any) -> Training:
        """The recorded run as a recipe for `TorchModel(…, training=…)`, which retrains and replays it.

        It has the batches, learning rates, parameter groups and clipping of the run, its initial parameters, and its
        random numbers if the loop called `start_step`.

        Args:
            train: the training set, in any order.
            settings: of `Training`, which take precedence, e.g. `denominator="renormalised"`.

        Raises ValueError for a run without batches or initial parameters, or one that cannot be replayed.
        """
        batches = self.batches()
        if batches is None or self.shards[0].step != 0 or self.steps is None:
            raise ValueError(
                "expected a run with its examples and its initial parameters: call trajectory.save(net, optimiser) "
                "before the loop, and pass batch=ids to record"
            )
        if self.modes() != ("",) or self.shares() is not None:
            raise ValueError(
                "expected a run of a net in training mode whose steps are means over their examples; describe another "
                "one as uw.Training(…), or pass your own train_fn(weights, seed) -> net"
            )
        states = self.random_states()
        if self.augment is not None and states is None:
            raise ValueError(NO_RANDOM_STATES)
        initial = {n: t for n, t in self.read(0).items() if not n.startswith(STATE) and n not in OF_STEPS}
        names = [name for name in initial if self.trained is None or name in self.trained]
        steps = [positions_of(train, ids) for ids in batches]
        recipe = self.steps.training(self.recorded_rates(), steps, names)
        return replace(recipe, **{"initial": initial, "augment": self.augment, "random_states": states, **settings})

    def _recorded(self) -> list[dict[str, Tensor]]:
        """The tensors that describe the steps before every checkpoint."""
        for position, shard in enumerate(self.shards):
            if shard not in self._steps_of:
                self.read(position)
        return [self._steps_of[shard] for shard in self.shards]

    def name_of(self, position: int) -> str:
        """One checkpoint in words."""
        return f"the checkpoint of step {self.shards[position].step} in {self.folder}"

    def require_end(self, net: nn.Module) -> None:
        """Raise ValueError unless every checkpoint belongs to this net and the last one holds its parameters."""
        if not self.shards:
            raise ValueError(f"{self.folder} holds no checkpoints: call trajectory.record(net, optimiser) in the loop")
        current = saved_tensors(net)
        for position in range(len(self)):
            stored = self.read(position)
            require_same_tensors(self.name_of(position), stored, current)
        differ = [name for name, tensor in current.items() if not torch.equal(stored[name], tensor.detach().cpu())]
        if differ:
            raise ValueError(
                f"{self.name_of(-1)} is not the net that was passed: {differ[0]!r} differs ({len(differ)} of "
                f"{len(current)} tensors). Call trajectory.save(net, optimiser) after the last step, or pass the net "
                "as it was then"
            )

    def _check(self, net: nn.Module, optimiser: Any) -> Any:
        """The torch optimiser itself. Raises TypeError or ValueError if it cannot be recorded here."""
        optimiser = unwrap_optimiser(optimiser)
        settings = replace(OptimiserSettings.of(net, optimiser), clip=self.clip)
        if not self._may_continue:
            raise ValueError(
                f"{self.folder} already holds a run of {self._step} steps: call trajectory.resume(net, optimiser) "
                "before the loop to continue it, or record into another folder"
            )
        if self.steps is not None and not self.steps.continued_by(settings):
            raise ValueError(
                f"expected the optimiser that the trajectory began with ({self.steps}), got {settings}; the learning "
                "rate may change during a training, but changes of momentum, weight decay or kind are not supported"
            )
        self.steps = settings
        return optimiser
