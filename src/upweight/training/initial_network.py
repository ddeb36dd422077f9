"""The net at the beginning of a training, and torch's random numbers while it is made and trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from upweight.gradients.network import Network, unwrap
from upweight.training.recipe import Training


@contextmanager
def preserve_random_state(device: torch.device) -> Iterator[None]:
    """Restore the state of torch's random numbers on exit, so that they can be seeded inside; enables gradients."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        yield


@contextmanager
def preserve_buffers(net: nn.Module) -> Iterator[None]:
    """Restore the buffers of a net on exit."""
    buffers = [(buffer, buffer.clone()) for buffer in net.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def seed_torch(device: torch.device, seed: int) -> None:
    """Seed torch's random numbers on the CPU and this device; torch.manual_seed is ten times as slow."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def set_random_state(device: torch.device, state: Tensor) -> None:
    """Set torch's random numbers to a recorded state: that of the CPU, then that of a GPU if there was one."""
    size = len(torch.get_rng_state())
    torch.set_rng_state(state[:size].clone())  # torch reads it as a struct, which has to be aligned
    if device.type == "cuda" and len(state) > size:
        torch.cuda.set_rng_state(state[size:].clone(), device)


def prepare_network(training: Training, network: Network, seed: int) -> Network:
    """A copy of the network in train mode, with the trainable parameters and buffers of `training.initial`."""
    if training.initial is None:
        raise ValueError(
            "the training does not say where it begins: pass Training(initial=…), a function seed -> net that makes "
            "the untrained net, or the state dict of the net before it was trained"
        )
    copy = trainable_copy(network)
    initial = read_initial(training, copy, seed)
    buffers = dict(copy.net.named_buffers())
    with torch.no_grad():
        for name, tensor in [*copy.parameters().items(), *((n, b) for n, b in buffers.items() if n in initial)]:
            if name not in initial or initial[name].shape != tensor.shape:
                got = f"shape {tuple(initial[name].shape)}" if name in initial else "none"
                raise ValueError(f"expected initial {name!r} of shape {tuple(tensor.shape)}, got {got}")
            tensor.copy_(initial[name])
    copy.net.train()
    return copy


def trainable_copy(network: Network) -> Network:
    """A copy of the network to train, without hooks on gradients, whose embeddings give dense gradients.

    Not all derivatives through a training would call such hooks, and sparse gradients have no second derivatives.
    """
    copy = network.writable_copy(with_hooks=False)
    for module in copy.net.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            module.sparse = False
    return copy


def read_initial(training: Training, network: Network, seed: int) -> Mapping[str, Tensor]:
    """Initial parameters and buffers by name; `initial` may be a function, a net or a state dict."""
    initial = training.initial
    if callable(initial) and not isinstance(initial, nn.Module):
        with preserve_random_state(network.device):
            seed_torch(network.device, seed)
            initial = initial(seed)
    if isinstance(initial, nn.Module):
        return dict(unwrap(initial).state_dict())
    if isinstance(initial, Mapping):
        return initial
    raise TypeError(f"expected initial as a function seed -> net, a net or a state dict, got {type(initial).__name__}")
