"""The update rule of a step, as a pure function: replay, stacked copies and adjoints all take this one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from upweight.training.recipe import Training

TINY = 1e-6  # what torch.nn.utils.clip_grad_norm_ adds to the norm


class State(NamedTuple):
    """What an optimiser remembers, each (…, p): `first` moment (momentum), `second` moment (adam); None if unused."""

    first: Tensor | None
    second: Tensor | None


def begin(training: Training, theta: Tensor) -> State:
    """The state before the first step at parameters (…, p)."""
    first = training.optimiser != "sgd" or training.momentum > 0
    second = training.optimiser != "sgd"
    return State(torch.zeros_like(theta) if first else None, torch.zeros_like(theta) if second else None)


def update(
    training: Training, theta: Tensor, state: State, gradient: Tensor, t: int, rate: float
) -> tuple[Tensor, State]:
    """θ and state after step t, by the equations of `Training`; nothing is written to.

    Args:
        training: the recipe.
        theta: (…, p), the last axis is one model's parameters.
        state: of `begin` or of the step before.
        gradient: ∇J_t(θ), (…, p), before clipping and weight decay.
        t: the step, from 0.
        rate: η_t.
    """
    if training.clip is not None:
        norm = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
        gradient = gradient * (training.clip / (norm + TINY)).clamp(max=1.0)
    if training.l2:
        gradient = gradient.add(theta, alpha=training.l2)
    if training.optimiser == "sgd":
        return _sgd(training, theta, state, gradient, rate)
    if training.optimiser == "adamw" and training.weight_decay:
        theta = theta * (1.0 - rate * training.weight_decay)
    return _adam(training, theta, state, gradient, t, rate)


def _sgd(training: Training, theta: Tensor, state: State, gradient: Tensor, rate: float) -> tuple[Tensor, State]:
    if state.first is None:
        return theta.add(gradient, alpha=-rate), state
    first = state.first.mul(training.momentum).add_(gradient)
    ahead = gradient.add(first, alpha=training.momentum) if training.nesterov else first
    return theta.add(ahead, alpha=-rate), State(first, None)


def _adam(
    training: Training, theta: Tensor, state: State, gradient: Tensor, t: int, rate: float
) -> tuple[Tensor, State]:
    assert state.first is not None and state.second is not None
    one, two = training.betas
    first = state.first.lerp(gradient, 1.0 - one)
    second = state.second.mul(two).addcmul(gradient, gradient, value=1.0 - two)
    spread = second / (1.0 - two ** (t + 1))
    spread = (spread + training.eps_root if training.eps_root else spread).sqrt() + training.eps
    return theta.addcdiv(first, spread, value=-rate / (1.0 - one ** (t + 1))), State(first, second)
