"""The update rule of one optimiser step, as a pure function that replay, stacked training and adjoints share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from upweight.training.recipe import Training

CLIP_EPSILON = 1e-6  # what torch.nn.utils.clip_grad_norm_ adds to the norm


class OptimiserState(NamedTuple):
    """The optimiser's moments, each (…, p): `first` (momentum) and `second` (Adam); None if the optimiser has none."""

    first: Tensor | None
    second: Tensor | None


def initial_state(training: Training, theta: Tensor) -> OptimiserState:
    """The state before the first step, for parameters of shape (…, p)."""
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
    """θ and the state after step t, by the equations of `Training`.

    Args:
        training: the recipe.
        theta: parameters (…, p); the last axis holds the parameters of one model.
        state: the state before the step, from `initial_state` or from the previous step.
        gradient: ∇J_t(θ), (…, p), before clipping and weight decay.
        t: the number of the step, from 0.
        rate: η_t.
        in_place: overwrite θ, state and gradient. This saves memory and gives the same bits. Otherwise nothing is
            overwritten, and the result can be differentiated.
    """
    ops = _IN_PLACE if in_place else _OUT_OF_PLACE
    if training.clip is not None:
        norm = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
        gradient = ops.mul(gradient, (training.clip / (norm + CLIP_EPSILON)).clamp(max=1.0))
    if training.l2:
        gradient = ops.add(gradient, theta, alpha=training.l2)
    if training.optimiser == "sgd":
        return _sgd_step(ops, training, theta, state, gradient, rate)
    if training.weight_decay and not training.l2:
        theta = ops.mul(theta, 1.0 - rate * training.weight_decay)
    return _adam_step(ops, training, theta, state, gradient, t, rate)


class _Operations(NamedTuple):
    """Elementwise operations that either return a new tensor or overwrite their first argument."""

    add: Callable[..., Tensor]
    mul: Callable[..., Tensor]
    lerp: Callable[..., Tensor]
    addcmul: Callable[..., Tensor]
    addcdiv: Callable[..., Tensor]


_OUT_OF_PLACE = _Operations(Tensor.add, Tensor.mul, Tensor.lerp, Tensor.addcmul, Tensor.addcdiv)
_IN_PLACE = _Operations(Tensor.add_, Tensor.mul_, Tensor.lerp_, Tensor.addcmul_, Tensor.addcdiv_)


def _sgd_step(
    ops: _Operations, training: Training, theta: Tensor, state: OptimiserState, gradient: Tensor, rate: float
) -> tuple[Tensor, OptimiserState]:
    if state.first is None:
        return ops.add(theta, gradient, alpha=-rate), state
    first = ops.add(ops.mul(state.first, training.momentum), gradient)
    direction = ops.add(gradient, first, alpha=training.momentum) if training.nesterov else first
    return ops.add(theta, direction, alpha=-rate), OptimiserState(first, None)


def _adam_step(
    ops: _Operations, training: Training, theta: Tensor, state: OptimiserState, gradient: Tensor, t: int, rate: float
) -> tuple[Tensor, OptimiserState]:
    assert state.first is not None and state.second is not None
    beta1, beta2 = training.betas
    first = ops.lerp(state.first, gradient, 1.0 - beta1)
    second = ops.addcmul(ops.mul(state.second, beta2), gradient, gradient, value=1.0 - beta2)
    scale = second / (1.0 - beta2 ** (t + 1))
    scale = (scale + training.eps_root if training.eps_root else scale).sqrt() + training.eps
    return ops.addcdiv(theta, first, scale, value=-rate / (1.0 - beta1 ** (t + 1))), OptimiserState(first, second)
