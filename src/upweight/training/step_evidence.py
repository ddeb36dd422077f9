"""A few numbers per parameter of a step, from which it can be seen later whether training made the step as replayed.

A parameter of more than `SKETCH_WIDTH` numbers is stored as a sketch of `SKETCH_WIDTH` numbers: sums of its numbers
with fixed random signs. A sketch is linear, so sketches of two checkpoints can be subtracted; its length is that of
the parameter on average (the count sketch, Charikar, Chen & Farach-Colton 2002).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from upweight.gradients.network import unwrap
from upweight.training.checkpoint_file import EVIDENCE, STATE

SKETCH_WIDTH = 32  # numbers in the sketch of one parameter
FIRST_SIGNS = 1 << 20  # random signs that are held in memory
MOMENTS = ("momentum_buffer", "exp_avg")  # the first moments of SGD and of Adam

Sketches = dict[str, Tensor]


def step_evidence(net: nn.Module, optimiser: Any) -> dict[str, Tensor]:
    """Sketches of parameters, first moments and gradients right after a step, as tensors of a checkpoint's file."""
    parameters = dict(unwrap(net).named_parameters())
    moments: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        state = optimiser.state.get(parameter, {})
        for kind in MOMENTS:
            if (
                state.get(kind) is not None and "square_avg" not in state
            ):  # RMSprop's momentum does not average gradients
                moments[name] = state[kind]
    gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    kinds: dict[str, Mapping[str, Tensor]] = {"parameters": parameters, "moments": moments, "gradients": gradients}
    return {
        f"{EVIDENCE}{kind}.{name}": sketch(tensor.detach())
        for kind, values in kinds.items()
        for name, tensor in values.items()
    }


def read_evidence(tensors: Mapping[str, Tensor], *, is_next_step: bool) -> dict[str, Sketches] | None:
    """Sketches by kind and parameter of the step after the checkpoint before this one; None if there are none.

    If this checkpoint is the next step itself, its own tensors serve if no sketches were recorded.
    """
    stored = {key.removeprefix(EVIDENCE): tensor for key, tensor in tensors.items() if key.startswith(EVIDENCE)}
    if stored:
        kinds: dict[str, Sketches] = {"parameters": {}, "moments": {}, "gradients": {}}
        for key, tensor in stored.items():
            kind, _, name = key.partition(".")
            kinds[kind][name] = tensor
        return kinds
    if not is_next_step:
        return None
    parameters = {
        name: sketch(tensor)
        for name, tensor in tensors.items()
        if not name.startswith(STATE) and tensor.is_floating_point()
    }
    return {"parameters": parameters, "moments": moment_sketches(tensors), "gradients": {}}


def moment_sketches(tensors: Mapping[str, Tensor]) -> Sketches:
    """Sketches of the first moments that a checkpoint holds, by parameter."""
    prefixes = {f"{STATE}{kind}.": tensors for kind in MOMENTS}
    return {
        key.removeprefix(prefix): sketch(tensor)
        for prefix in prefixes
        for key, tensor in tensors.items()
        if key.startswith(prefix)
    }


def sketch(tensor: Tensor) -> Tensor:
    """At most `SKETCH_WIDTH` numbers in float64 that summarise a tensor; the tensor itself if it has no more."""
    flat = (tensor.to_dense() if tensor.is_sparse else tensor).reshape(-1).cpu().double()
    if len(flat) <= SKETCH_WIDTH:
        return flat.clone()
    padded = torch.zeros(-(-len(flat) // SKETCH_WIDTH) * SKETCH_WIDTH, dtype=torch.float64)
    torch.mul(flat, _signs(len(flat)), out=padded[: len(flat)])
    return padded.view(-1, SKETCH_WIDTH).sum(dim=0)


def _signs(count: int) -> Tensor:
    return _first_signs()[:count] if count <= FIRST_SIGNS else _random_signs(count)


@cache
def _first_signs() -> Tensor:
    return _random_signs(FIRST_SIGNS)


def _random_signs(count: int) -> Tensor:
    """`count` random signs, the same on every machine and in every version: the bits of PCG64 with seed 0."""
    words = np.random.PCG64(0).random_raw(-(-count // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8))[:count]
    return torch.from_numpy(bits.astype(np.int8) * 2 - 1)
