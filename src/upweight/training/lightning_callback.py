"""A callback of Lightning's Trainer that records its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from upweight.training.trajectory import Trajectory

try:
    from lightning.pytorch import Callback
except ImportError:
    try:  # the same under its older name
        from pytorch_lightning import Callback
    except ImportError:
        Callback = object


class LightningTrajectory(Callback):  # type: ignore[misc]
    """Records the training of a `lightning.Trainer` as a `Trajectory`.

        recorder = uw.LightningTrajectory("run", every=50)
        trainer = Trainer(…, callbacks=[recorder])
        trainer.fit(module, uw.indexed(loader))              # training_step gets batch = (ids, batch)
        model = uw.TorchModel(module, loss, trajectory=recorder.trajectory)

    Steps are recorded inside of the optimiser's step, so that the learning rate is the one that was used: when
    Lightning's own hooks run, a scheduler has already set the next one. Clipping by norm (`gradient_clip_val`) and
    accumulated batches are recorded too. Lightning divides the losses of all batches by `accumulate_grad_batches`; if
    that does not divide the number of batches, the last step of an epoch is less than a mean, and shares are recorded.

    Args:
        folder: where checkpoints are written.
        every: steps between two checkpoints.
        net: the part of the module whose parameters the optimiser trains, by name; "" for the module itself.
        random: whether to remember torch's random numbers at the beginning of every step (5 kB each), for dropout.

    Attributes:
        trajectory: the recorded trajectory.

    Raises:
        ImportError: Lightning is not installed.
        ValueError: several optimisers, clipping by value, several devices; batches without ids.
    """

    def __init__(self, folder: str | Path, *, every: int = 1, net: str = "", random: bool = False) -> None:
        if Callback is object:
            raise ImportError('LightningTrajectory needs Lightning: pip install "upweight[lightning]"')
        super().__init__()
        self.trajectory, self.net, self.random = Trajectory(folder, every=every), net, random
        self._taken: list[Any] = []
        self._hook: Any = None
        self._has_shares = False  # whether some step accumulates fewer batches than its losses are divided by

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Save the initial parameters, and listen to the optimiser's steps."""
        if len(trainer.optimizers) != 1:
            raise ValueError(f"expected a training with one optimiser, got {len(trainer.optimizers)}")
        if trainer.world_size > 1:
            raise ValueError(
                f"expected a training on one device, got {trainer.world_size}: each sees a part of every batch; record "
                "in your own loop, with the ids of all processes"
            )
        if trainer.gradient_clip_val and "value" in str(trainer.gradient_clip_algorithm).lower():
            raise ValueError('clipping by value cannot be followed; use gradient_clip_algorithm="norm"')
        self.trajectory.clip = float(trainer.gradient_clip_val) if trainer.gradient_clip_val else None
        (optimiser,), net = trainer.optimizers, self._net(pl_module)
        if self.trajectory.shards:
            self.trajectory.resume(net, optimiser)
        self.trajectory.save(net, optimiser)
        self._taken = []
        self._has_shares = trainer.num_training_batches % trainer.accumulate_grad_batches != 0
        self._hook = optimiser.register_step_post_hook(
            lambda stepped, *_: self._record(net, stepped, trainer.accumulate_grad_batches)
        )

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Remember the ids of the batch."""
        ids = batch[0] if isinstance(batch, tuple | list) and len(batch) == 2 else None
        if getattr(ids, "ndim", None) != 1 or ids is None or ids.is_floating_point():
            raise ValueError(
                "expected batches (ids, batch), which say what examples they hold: pass uw.indexed(loader) to "
                "trainer.fit, and take the batch apart in training_step (ids, batch = batch)"
            )
        if self.random and not self._taken:
            self.trajectory.start_step()
        self._taken.append(ids.cpu().numpy())

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Save the last parameters."""
        self._hook.remove()
        self.trajectory.save(self._net(pl_module), trainer.optimizers[0])

    def _record(self, net: nn.Module, optimiser: Any, divisor: int) -> None:
        taken, self._taken = self._taken, []
        shares = [1.0 / (divisor * len(ids)) for ids in taken for _ in ids] if self._has_shares else None
        self.trajectory.record(net, optimiser, batch=taken[0] if len(taken) == 1 else taken, shares=shares)

    def _net(self, module: nn.Module) -> nn.Module:
        return module.get_submodule(self.net)
