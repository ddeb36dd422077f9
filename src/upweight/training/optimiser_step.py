"""The update rule of a step, as a pure function: replay, stacked copies and adjoints all take this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from upweight.training.recipe import Training

CLIP_EPSILON = 1e-6  # what torch.nn.utils.clip_grad_norm_ adds to the norm


class OptimiserState(NamedTuple):
    """What an optimiser remembers, each (…, p): `first` moment (momentum), `second` moment (adam); None if unused."""

    first: Tensor | None
    second: Tensor | None


def initial_state(training: Training, theta: Tensor) -> OptimiserState:
    """The state before the first step at parameters (…, p)."""
    first = training.optimiser != "sgd" or training.momentum > 0
    second = training.optimiser != "sgd"
    return OptimiserState(torch.zeros_like(theta) if first else None, torch.zeros_like(theta) if second else None)


def update(
    training: Training,
    theta: Tensor,
    state: OptimiserState,
    gradient: Tensor,
    t: int,
    rate: float,
    *,
    in_place: bool = False,
) -> tuple[Tensor, OptimiserState]:
    """θ and state after step t, by the equations of `Training`.

    Args:
        training: the recipe.
        theta: (…, p), the last axis is one model's parameters.
        state: of `begin` or of the step before.
        gradient: ∇J_t(θ), (…, p), before clipping and weight decay.
        t: the step, from 0.
        rate: η_t.
        over: write θ, state and gradient over, which saves memory and gives the same bits; else nothing is written to
            and the result can be differentiated.
    """
    do = _OVER if in_place else _NEW
    if training.clip is not None:
        norm = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
        gradient = do.mul(gradient, (training.clip / (norm + CLIP_EPSILON)).clamp(max=1.0))
    if training.l2:
        gradient = do.add(gradient, theta, alpha=training.l2)
    if training.optimiser == "sgd":
        return _sgd(do, training, theta, state, gradient, rate)
    if training.weight_decay and not training.l2:
        theta = do.mul(theta, 1.0 - rate * training.weight_decay)
    return _adam(do, training, theta, state, gradient, t, rate)


class _Arithmetic(NamedTuple):
    """Elementwise operations that give a new tensor, or write over their first."""

    add: Callable[..., Tensor]
    mul: Callable[..., Tensor]
    lerp: Callable[..., Tensor]
    addcmul: Callable[..., Tensor]
    addcdiv: Callable[..., Tensor]


_NEW = _Arithmetic(Tensor.add, Tensor.mul, Tensor.lerp, Tensor.addcmul, Tensor.addcdiv)
_OVER = _Arithmetic(Tensor.add_, Tensor.mul_, Tensor.lerp_, Tensor.addcmul_, Tensor.addcdiv_)


def _sgd(
    do: _Arithmetic, training: Training, theta: Tensor, state: OptimiserState, gradient: Tensor, rate: float
) -> tuple[Tensor, OptimiserState]:
    if state.first is None:
        return do.add(theta, gradient, alpha=-rate), state
    first = do.add(do.mul(state.first, training.momentum), gradient)
    ahead = do.add(gradient, first, alpha=training.momentum) if training.nesterov else first
    return do.add(theta, ahead, alpha=-rate), OptimiserState(first, None)


def _adam(
    do: _Arithmetic, training: Training, theta: Tensor, state: OptimiserState, gradient: Tensor, t: int, rate: float
) -> tuple[Tensor, OptimiserState]:
    assert state.first is not None and state.second is not None
    one, two = training.betas
    first = do.lerp(state.first, gradient, 1.0 - one)
    second = do.addcmul(do.mul(state.second, two), gradient, gradient, value=1.0 - two)
    spread = second / (1.0 - two ** (t + 1))
    spread = (spread + training.eps_root if training.eps_root else spread).sqrt() + training.eps
    return do.addcdiv(theta, first, spread, value=-rate / (1.0 - one ** (t + 1))), OptimiserState(first, second)
