"""The first step of a recorded run, compared with the replayed one before long work."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from upweight.training.optimiser_step import CLIP_EPSILON
from upweight.training.run import Run, flatten, initial_training_state, iterate_steps, set_parameter_views
from upweight.training.step_evidence import sketch

TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-2}  # of the distance, as a share of the gradient's length
LOW_PRECISION_TOLERANCE = 0.1
PARALLEL = 1e-4  # 1 − cosine up to which two gradients have one direction


def require_recorded_start(run: Run) -> None:
    """Raise ValueError if the first gradient of the run on all examples is not the recorded one."""
    recorded = run.training.recorded
    if recorded is None or not recorded.first_gradient:
        return
    parameters = run.network.parameters()
    before = flatten(list(parameters.values()))
    _, gradient = next(iterate_steps(run, np.ones(len(run.train)), initial_training_state(run), 1))
    set_parameter_views(list(parameters.values()), before)
    assert gradient is not None
    parts = torch.split(_clipped(gradient, run.training.clip), [p.numel() for p in parameters.values()])
    replayed = [sketch(part) for part in parts]
    pairs = zip(parameters, replayed, strict=True)
    wanted = torch.cat([recorded.first_gradient.get(name, torch.zeros_like(part)) for name, part in pairs])
    got = torch.cat(replayed)
    distance = float((wanted - got).norm() / wanted.norm().clamp(min=torch.finfo(torch.float64).tiny))
    if not distance <= TOLERANCES.get(run.network.dtype, LOW_PRECISION_TOLERANCE):
        raise ValueError(
            f"the first step is not the recorded one: its gradient differs by {distance:.2g} of the recorded length; "
            f"{_cause(wanted, got)}"
        )


def _clipped(gradient: Tensor, clip: float | None) -> Tensor:
    if clip is None:
        return gradient
    clipped: Tensor = gradient * (clip / (torch.linalg.vector_norm(gradient) + CLIP_EPSILON)).clamp(max=1.0)
    return clipped


def _cause(wanted: Tensor, got: Tensor) -> str:
    if float(torch.nn.functional.cosine_similarity(wanted, got, dim=0)) > 1.0 - PARALLEL:
        return (
            f"it has the same direction and {float(got.norm() / wanted.norm()):.4g} times the length, so the losses "
            "are combined in another way: for a recorded Trainer the loss of an example is the sum over its tokens"
        )
    return "loss, net, examples or their padding (collate) are not those of the training"
