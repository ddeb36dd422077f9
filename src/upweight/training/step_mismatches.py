"""What a training did that SOURCE does not replay, in sentences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from upweight.gradients.network import BATCH_NORMS
from upweight.training.initial_network import seed_torch
from upweight.training.step_check import Difference, Mismatches, StepCheck

EXPLAINED_STEPS = 3  # mismatches on which an explanation is tried
SAME_RATIO = 0.01  # ratios that differ less are one factor
OTHER_CAUSES = (
    "augmented inputs or other random numbers in the loop, another loss or another weighting of the examples than the "
    "model's, gradients changed before the step (clipping by value, noise) or accumulated over several records, and "
    "batches recorded for other examples"
)


def explain(check: StepCheck, mismatches: Mismatches) -> list[str]:
    """Warnings, with the cause where it can be told.

    Raises ValueError if the recorded batches are positions, and the training set has other ids.
    """
    if mismatches.gradients:
        _refuse_positions(check, mismatches)
        return [_gradient_warning(check, mismatches)]
    return [_update_warning(mismatches)] if mismatches.updates else []


def _refuse_positions(check: StepCheck, mismatches: Mismatches) -> None:
    """Raise ValueError if the gradients are those of the examples at the positions that the batches name."""
    run, ids = check.run, check.run.train.ids
    if ids.dtype.kind not in "iu" or np.array_equal(ids, np.arange(len(ids))):
        return
    for difference in mismatches.gradients[:EXPLAINED_STEPS]:
        positions = ids[run.positions[difference.t]]
        if positions.min() < 0 or positions.max() >= len(ids):
            return
        batches = list(run.positions)
        batches[difference.t] = positions.astype(np.intp)
        theta, _ = check.point(difference.t)
        gradient = check.gradient(difference.t, theta, replace(run, positions=tuple(batches)))
        if difference._replace(replayed=check.sketch(gradient)).exceeds(mismatches.tolerance):
            return
    raise ValueError(
        "expected the ids of the examples in trajectory.record(…, batch=ids), got their positions in the training set: "
        f"the gradient recorded in step {mismatches.gradients[0].t + 1} is that of the examples at these positions, "
        "not of the examples with these ids. Record batch=train.ids[positions], or explain with the same Examples "
        "without ids of their own"
    )


def _gradient_warning(check: StepCheck, mismatches: Mismatches) -> str:
    differences = mismatches.gradients
    largest = max(difference.size for difference in differences)
    return (
        f"The recorded training is not the one that SOURCE replays: in {len(differences)} of {mismatches.checked} "
        f"checked steps (the first is step {differences[0].t + 1}), the recorded gradient of the batch differs from "
        f"the replayed one by up to {largest:.2g} of its length. {_cause(check, mismatches)} Scores of this training "
        "can be wrong in order and sign: do not act on them without retraining (uw.verify)."
    )


def _update_warning(mismatches: Mismatches) -> str:
    differences = mismatches.updates
    largest = max(differences, key=lambda difference: difference.size)
    return (
        f"The recorded training is not the one that SOURCE replays: in {len(differences)} of {mismatches.checked} "
        f"checked steps (the first is step {differences[0].t + 1}), the gradient is the replayed one, but the "
        f"parameters moved otherwise (in step {largest.t + 1} by {largest.ratio:.3g} times the length of the replayed "
        "update). "
        "Possible causes are a scheduler's step before trajectory.record, so that another learning rate was recorded, "
        "and parameters that the loop changed besides the optimiser (averaging, constraints, a second optimiser). "
        "Sizes and order of the scores can be wrong: do not act on them without retraining (uw.verify)."
    )


def _cause(check: StepCheck, mismatches: Mismatches) -> str:
    differences = mismatches.gradients
    if all(difference.is_parallel(mismatches.tolerance) for difference in differences):
        return _scaling(mismatches)
    modes = _training_mode(check, differences[0], mismatches.tolerance)
    if modes:
        return modes
    return f"Possible causes are {OTHER_CAUSES}."


def _scaling(mismatches: Mismatches) -> str:
    ratios = [difference.ratio for difference in mismatches.gradients]
    span = f"{min(ratios):.3g}" if max(ratios) - min(ratios) <= SAME_RATIO * max(ratios) else None
    if span is not None and len(ratios) == mismatches.checked:
        return (
            f"It is {span} times the replayed one in every step: the loss was scaled (a sum in place of the mean over "
            "the batch, or accumulated gradients that were not divided), or gradients were clipped."
        )
    if max(ratios) < 1.0:
        norms = [float(difference.recorded.norm()) for difference in mismatches.gradients]
        return (
            f"It has the same direction but is {min(ratios):.2g} to {max(ratios):.2g} times as long: gradients were "
            f"clipped (to a norm of about {np.median(norms):.2g}). Pass the norm as uw.Trajectory(folder, clip=…), and "
            "SOURCE follows it."
        )
    return (
        f"It has the same direction but is {min(ratios):.2g} to {max(ratios):.2g} times as long: the loss was scaled "
        "or averaged over another number of examples, or gradients were rescaled before the step."
    )


def _training_mode(check: StepCheck, difference: Difference, tolerance: float) -> str | None:
    """What the net does in training mode and not in eval mode; None if that changes nothing."""
    net, device, t = check.run.network.net, check.run.network.device, difference.t
    theta, _ = check.point(t)
    evaluated = check.gradient(t, theta)
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    trained, modes = [], [(module, module.training) for module in net.modules()]
    try:
        net.train()
        for seed in (0, 1):
            seeded = replace(check.run, step_seeds=[seed] * check.run.steps)
            seed_torch(device, seed)
            trained.append(check.gradient(t, theta, seeded))
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for name, buffer in net.named_buffers():
                buffer.copy_(buffers[name])
    norms = [name for name, module in net.named_modules() if isinstance(module, BATCH_NORMS)]
    is_random = not torch.equal(trained[0], trained[1])
    if not is_random and torch.equal(trained[0], evaluated):
        return None
    sentences = [*_batch_statistics(norms, is_random), *_random_layers(net, is_random)]
    is_cause = difference._replace(replayed=check.sketch(trained[0])).is_parallel(tolerance)
    return " ".join(sentences if is_cause else [*sentences, f"Other possible causes are {OTHER_CAUSES}."])


def _batch_statistics(norms: list[str], is_random: bool) -> list[str]:
    if norms:
        return [
            f"In training mode the batch norm {norms[0]!r} uses batch statistics, through which the examples of a "
            "batch depend on each other; trajectory.record found it in eval mode, so that the replay takes running "
            "statistics as constants. Call trajectory.record before net.eval(), and SOURCE follows them."
        ]
    if is_random:
        return []
    return ["The net computes something else in training mode than in eval mode, which the replay uses."]


def _random_layers(net: nn.Module, is_random: bool) -> list[str]:
    if not is_random:
        return []
    layers = [name for name, m in net.named_modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0]
    where = f" (dropout {layers[0]!r})" if layers else " (such as dropout)"
    return [
        f"In training mode the net draws random numbers{where}, and the replay does not know those of the training. "
        "Metagradient replays dropout with its seeds."
    ]
