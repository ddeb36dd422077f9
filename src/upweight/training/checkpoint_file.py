"""The file of one checkpoint: parameters, buffers, optimiser state, and what is stored of the steps before it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from upweight.core.archive import well_formed
from upweight.core.files import open_atomically, open_regular
from upweight.gradients.network import unwrap
from upweight.training.module_modes import decode_modes
from upweight.training.recorded_batches import batch_size, decode_batches, require_batches
from upweight.training.trajectory_manifest import Shard

STATE = "optimiser."  # prefix of the names of the optimiser's tensors
RATES, BATCHES, SHARES = "rates", "batches", "shares"  # names of the tensors that describe the steps
GROUP_RATES = "group_rates"  # learning rates by parameter group, if they differ
RANDOM = "random_states"  # the state of torch's random numbers at the beginning of every step
MODES = "modes"  # which modules were in training mode
OF_STEPS = (RATES, BATCHES, SHARES, GROUP_RATES, RANDOM, MODES)
EVIDENCE = "evidence."  # prefix of the names of the tensors by which a step is checked


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor]) -> int:
    """Write the tensors, whole or not at all; returns the checksum of the file."""
    data = save(dict(tensors))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomically(path) as file:
        file.write(data)
    return zlib.crc32(data)


def read_checkpoint(folder: Path, shard: Shard) -> dict[str, Tensor]:
    """All tensors of a checkpoint. Raises ValueError if its file is missing or damaged."""
    path = folder / shard.file
    try:
        with open_regular(path) as file:
            data = file.read()
    except FileNotFoundError as error:
        raise ValueError(
            f"the checkpoint of step {shard.step} is missing ({path}); without it the trajectory has a gap: record "
            "the run again"
        ) from error
    if zlib.crc32(data) != shard.crc32:
        raise ValueError(
            f"the checkpoint of step {shard.step} ({path}) is damaged: its {len(data):,} bytes do not match their "
            "checksum; record the run again"
        )
    with well_formed(path):
        try:
            tensors = load(data)
        except SafetensorError as error:
            raise ValueError(f"not a safetensors file: {error}") from error
        _require_steps(tensors)
    return tensors


def _require_steps(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError or TypeError if learning rates or ids of batches have another form than when written."""
    rates = tensors[RATES]
    if rates.dtype != torch.float64 or rates.ndim != 1 or not bool(torch.isfinite(rates).all()):
        raise ValueError("expected one finite learning rate per step")
    for name in (GROUP_RATES, RANDOM):
        if name in tensors and (tensors[name].ndim != 2 or len(tensors[name]) != len(rates)):
            raise ValueError(f"expected one row of {name} per step")
    if MODES in tensors:
        decode_modes(tensors[MODES])
    if BATCHES not in tensors:
        return
    batches = decode_batches(tensors[BATCHES])
    require_batches(batches, len(rates))
    shares = tensors.get(SHARES)
    if shares is not None and (shares.dtype != torch.float64 or shares.shape != (sum(map(batch_size, batches)),)):
        raise ValueError("expected one share for each example of every step")


def saved_tensors(net: nn.Module) -> dict[str, Tensor]:
    """The parameters of a net (tied ones once), and the buffers that its state dict contains."""
    net = unwrap(net)
    persistent = set(net.state_dict(keep_vars=True))
    return {
        **dict(net.named_parameters()),
        **{name: buffer for name, buffer in net.named_buffers() if name in persistent},
    }


def optimiser_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The optimiser's tensors of a checkpoint, `<kind of state>.<parameter>` → tensor."""
    return {name.removeprefix(STATE): t for name, t in tensors.items() if name.startswith(STATE)}


def require_rates(shard: Shard, rates: NDArray[np.float64], previous_step: int) -> None:
    """Raise ValueError unless the checkpoint holds one learning rate for each step since the one before it."""
    if len(rates) != shard.step - previous_step:
        raise ValueError(
            f"expected the {shard.step - previous_step} learning rates of steps {previous_step + 1} to {shard.step} "
            f"in {shard.file}, got {len(rates)}: steps are missing"
        )


def require_same_tensors(name: str, stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless the stored tensors have the names, shapes and types of the net's (`expected`).

    `name` is the checkpoint in words.
    """
    names = {key for key in stored if not key.startswith((STATE, EVIDENCE)) and key not in OF_STEPS}
    problems = (
        (names - set(expected), "tensors that the net lacks"),
        (set(expected) - names, "not all of the net's tensors"),
    )
    for differing, problem in problems:
        if differing:
            raise ValueError(
                f"{name} does not belong to this net: it has {problem} ({', '.join(sorted(differing)[:3])}, "
                f"{len(differing)} in all); pass the net that was recorded"
            )
    for key, tensor in expected.items():
        wanted, got = (tuple(tensor.shape), tensor.dtype), (tuple(stored[key].shape), stored[key].dtype)
        if wanted != got:
            raise ValueError(
                f"{name} does not belong to this net: expected {key!r} of shape {wanted[0]} in {wanted[1]}, got "
                f"{got[0]} in {got[1]}"
            )
