"""Which modules of a net are in training mode, as a short list that a checkpoint can hold."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from upweight.gradients.network import BATCH_NORMS


def read_modes(net: nn.Module) -> Tensor:
    """The names of the modules whose mode is not that of the module around them, as the bytes of a JSON text.

    The net itself is named if it is in training mode.
    """
    modes = {name: module.training for name, module in net.named_modules()}
    names = [name for name, mode in modes.items() if mode != _mode_around(name, modes)]
    return torch.frombuffer(bytearray(json.dumps(names).encode()), dtype=torch.uint8)


def decode_modes(stored: Tensor) -> tuple[str, ...]:
    """The names in the tensor of `read_modes`. Raises ValueError for anything else."""
    names = json.loads(bytes(stored.numpy()))
    if type(names) is not list or not all(type(name) is str for name in names):
        raise ValueError("expected names of modules")
    return tuple(names)


def set_modes(net: nn.Module, names: Sequence[str], *, norms_alone: bool) -> None:
    """Set the modes that `names` describe; with `norms_alone` all modules but batch norms are in eval mode."""
    chosen, modes = set(names), dict[str, bool]()
    for name, module in net.named_modules():
        modes[name] = _mode_around(name, modes) != (name in chosen)
        module.training = modes[name] and (not norms_alone or isinstance(module, BATCH_NORMS))


def copy_modes(source: nn.Module, target: nn.Module) -> None:
    """Give a net with the same modules the modes of `source`."""
    for from_module, to_module in zip(source.modules(), target.modules(), strict=True):
        to_module.training = from_module.training


def _mode_around(name: str, modes: dict[str, bool]) -> bool:
    """The mode of the nearest module around this one; eval mode for the net itself."""
    while name:
        name = name.rpartition(".")[0]
        if name in modes:
            return modes[name]
    return False
