"""A context that restores the user's network on exit, no matter what passes do to it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def preserve_model(net: nn.Module, trainable: frozenset[str]) -> Iterator[None]:
    """Eval mode, with gradients for the `trainable` parameters only.

    On exit, also after an exception or an interrupt, training modes, `requires_grad`, buffers and random states are
    restored. `.grad` is never written: passes use torch.autograd.grad, which accumulates nothing.
    """
    modes = [(module, module.training) for module in net.modules()]
    flags = [(name, p, p.requires_grad) for name, p in net.named_parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in net.buffers()]
    devices = {p.device.index for _, p, _ in flags if p.device.type == "cuda"}
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with (
            torch.random.fork_rng(devices=sorted(d for d in devices if d is not None)),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            for module, _ in modes:
                module.training = False
            for name, p, flag in flags:
                if flag != (name in trainable):
                    p.requires_grad_(name in trainable)
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for _, p, flag in flags:
            if p.requires_grad != flag:
                p.requires_grad_(flag)
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
