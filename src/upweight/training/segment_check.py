"""What a recorded training did that SOURCE by segments does not model, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from upweight.gradients.network import BATCH_NORMS
from upweight.training.trajectory import Trajectory

CONSEQUENCE = "Scores can be wrong in order and sign: do not act on them without retraining (uw.verify)."


def unmodelled_settings(trajectory: Trajectory) -> Iterator[str]:
    """Warnings about settings of the recorded training that segments leave out."""
    if trajectory.steps is not None and trajectory.steps.clip is not None:
        yield (
            f"Gradients were clipped to a norm of {trajectory.steps.clip:g}, which SOURCE by segments leaves out; it "
            f"follows clipping step by step (segments=None, with batch=ids in every record). {CONSEQUENCE}"
        )


def unfollowed_modes(modules: Sequence[str]) -> Iterator[str]:
    """Warnings about modules in training mode, which steps follow and segments leave out."""
    if modules:
        yield (
            f"The training had the {modules[0]} in training mode, which SOURCE follows step by step (segments=None), "
            f"and not by segments: it takes running statistics as constants, and no dropout. {CONSEQUENCE}"
        )


def training_mode_warnings(trajectory: Trajectory, net: nn.Module) -> Iterator[str]:
    """Warnings from the checkpoints alone, for a training whose steps cannot be compared with those of a replay."""
    first, last = trajectory.read(0), trajectory.read(len(trajectory) - 1)
    statistics = {name: f"{name}.running_mean" for name, m in net.named_modules() if isinstance(m, BATCH_NORMS)}
    stored = [(name, key) for name, key in statistics.items() if key in first and key in last]
    used = [name for name, key in stored if not torch.equal(first[key], last[key])]
    if used:
        yield (
            f"The running statistics of the batch norm {used[0]!r} changed in the recorded training: it used batch "
            "statistics, through which the examples of a batch depend on each other, and SOURCE by segments takes "
            "running statistics as constants. It follows them step by step if trajectory.record got batch=ids and the "
            f"initial parameters were saved. {CONSEQUENCE}"
        )
    dropout = [n for n, m in net.named_modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0]
    if dropout:
        yield (
            f"The net has dropout ({dropout[0]!r}), which SOURCE leaves out, and it cannot be seen whether the "
            "training used it: steps are checked only if trajectory.record got batch=ids and the initial parameters "
            f"were saved. {CONSEQUENCE}"
        )
