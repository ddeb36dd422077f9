"""A context that restores the user's network on exit, no matter what passes do to it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock
from typing import TypeVar, final

import numpy as np
import torch
from torch import nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

T = TypeVar("T")


@final
class Passes:
    """The lock of passes over nets, of which a process makes one at a time: they share the random state as well."""

    def __init__(self) -> None:
        self.lock = RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self.lock = RLock()  # the thread that held it is not in this process


PASSES = Passes()


def tensor_versions(net: nn.Module) -> tuple[tuple[int, int], ...]:
    """Address of every parameter and buffer, and torch's count of its changes."""
    with PASSES.lock:
        return tuple((tensor.data_ptr(), tensor._version) for tensor in (*net.parameters(), *net.buffers()))


@contextmanager
def preserve_model(net: nn.Module, trainable: frozenset[str]) -> Iterator[None]:
    """Eval mode, with gradients for the `trainable` parameters only.

    On exit, also after an exception or an interrupt, training modes, `requires_grad`, buffers and random states are
    restored. `.grad` is never written: passes use torch.autograd.grad, which accumulates nothing. Embeddings give dense
    gradients inside the context, because sparse ones have no second derivatives.

    Threads take turns: the passes of one would be hooked, differentiated and restored by the other.
    """
    with PASSES.lock:
        yield from _preserved(net, trainable)


def _preserved(net: nn.Module, trainable: frozenset[str]) -> Iterator[None]:
    modules = list(net.modules())
    modes = [(module, module.training) for module in modules]
    flags = [(name, p, p.requires_grad) for name, p in net.named_parameters()]
    sparse = [m for m in modules if isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.sparse]
    # A buffer that is restored has its old contents, so that its version counts no write.
    buffers = [(buffer, buffer.clone(), _unsafe_preserve_version_counter(buffer)) for buffer in net.buffers()]
    assigned = [(module, dict(module._buffers)) for module in modules if module._buffers]
    devices = {p.device.index for _, p, _ in flags if p.device.type == "cuda"}
    python_state, numpy_state = random.getstate(), np.random.get_state(legacy=False)
    try:
        with (
            torch.random.fork_rng(devices=sorted(d for d in devices if d is not None)),
            torch.inference_mode(False),
            torch.enable_grad(),
            _differentiable_recurrence(modules),
        ):
            for module in modules:
                module.training = False
            for table in sparse:
                table.sparse = False
            for name, p, flag in flags:
                if flag != (name in trainable):
                    p.requires_grad_(name in trainable)
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for table in sparse:
            table.sparse = True
        for _, p, flag in flags:
            if p.requires_grad != flag:
                p.requires_grad_(flag)
        for module, own in assigned:
            module._buffers.update(own)
        for buffer, before, same_version in buffers:
            if not torch.equal(buffer, before):
                with torch.no_grad(), same_version:
                    buffer.copy_(before)
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def without_graph(compute: Callable[[], T]) -> T:
    """What `compute` returns, computed without gradients; with gradients if the loss differentiates inside itself.

    Call it inside `preserve_model`.
    """
    try:
        with torch.no_grad():
            return compute()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return compute()


def _differentiable_recurrence(modules: Sequence[nn.Module]) -> AbstractContextManager[object]:
    """A context without cuDNN if there are recurrent layers on a GPU: cuDNN has no backward pass for eval mode."""
    recurrent = [module for module in modules if isinstance(module, nn.RNNBase)]
    on_gpu = any(p.device.type == "cuda" for module in recurrent for p in module.parameters())
    return torch.backends.cudnn.flags(enabled=False) if on_gpu else nullcontext()
