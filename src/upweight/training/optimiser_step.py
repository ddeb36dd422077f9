"""The update rule of one optimiser step, as a pure function that replay, stacked training and adjoints share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from upweight.training.recipe import Training
from upweight.training.update_rule import UpdateRule

CLIP_EPSILON = 1e-6  # what torch.nn.utils.clip_grad_norm_ adds to the norm
AVERAGE = "average"  # the name of the averaged parameters among the states

OptimiserState = dict[str, Tensor]
"""The optimiser's moments by name, each (…, p): "first" (momentum), "second" (squares), "mean" (centred RMSprop), those
of an update rule, and "average", the moving average of the parameters."""


class StepFactors(NamedTuple):
    """The inputs of a step other than gradient and state.

    Attributes:
        t: the number of the step, from 0.
        rate, decay: η_t and λ, numbers, or (p,) if parameters differ.
        split: a vector (p,) → tensors of the shapes of the parameters, for rules of the user.
    """

    t: int
    rate: float | Tensor
    decay: float | Tensor
    split: Callable[[Tensor], list[Tensor]] | None = None


def state_names(training: Training) -> tuple[str, ...]:
    """The names of the optimiser's states."""
    average = () if training.ema is None else (AVERAGE,)
    if isinstance(training.optimiser, UpdateRule):
        return (*training.optimiser.state, *average)
    first = ("first",) if training.momentum > 0 or training.optimiser in ("adam", "adamw") else ()
    second = ("second",) if training.optimiser != "sgd" else ()
    return (*first, *second, *(("mean",) if training.centred else ()), *average)


def initial_state(training: Training, theta: Tensor) -> OptimiserState:
    """The state before the first step, for parameters of shape (…, p)."""
    return {name: torch.zeros_like(theta) for name in state_names(training)}


def trained_parameters(training: Training, theta: Tensor, state: OptimiserState) -> Tensor:
    """The parameters of the trained net: those of the last step, or their average."""
    return theta if training.ema is None else state[AVERAGE]


def average_weight(training: Training, t: int) -> float:
    """The weight of the new parameters in their average after step t; the average begins with those after step 0."""
    assert training.ema is not None
    return 1.0 if t == 0 else 1.0 - training.ema


def update(
    training: Training,
    theta: Tensor,
    state: OptimiserState,
    gradient: Tensor,
    factors: StepFactors,
    *,
    in_place: bool = False,
) -> tuple[Tensor, OptimiserState]:
    """θ and the state after a step, by the equations of `Training`.

    Args:
        training: the recipe.
        theta: parameters (…, p); the last axis holds the parameters of one model.
        state: the state before the step, from `initial_state` or from the previous step.
        gradient: ∇J_t(θ), (…, p), before clipping and weight decay.
        factors: number, learning rate and weight decay of the step.
        in_place: overwrite θ, state and gradient. This saves memory and gives the same bits. Otherwise nothing is
            overwritten, and the result can be differentiated.
    """
    ops, rate = _IN_PLACE if in_place else _OUT_OF_PLACE, factors.rate
    if training.clip is not None:
        gradient = ops.mul(gradient, clip_factor(gradient, training.clip))
    if not training.is_decoupled:
        gradient = _add(ops, gradient, theta, factors.decay)
    elif isinstance(factors.decay, Tensor) or factors.decay:
        theta = ops.mul(theta, 1.0 - rate * factors.decay)
    match training.optimiser:
        case "sgd":
            theta, moments = _sgd_step(ops, training, theta, state, gradient, rate)
        case "adam" | "adamw":
            theta, moments = _adam_step(ops, training, theta, state, gradient, factors)
        case "rmsprop":
            theta, moments = _rmsprop_step(ops, training, theta, state, gradient, rate)
        case rule:
            theta, moments = _own_step(rule, theta, state, gradient, factors)
    if training.ema is not None:
        moments[AVERAGE] = ops.lerp(state[AVERAGE], theta, average_weight(training, factors.t))
    return theta, moments


def clip_factor(gradient: Tensor, clip: float) -> Tensor:
    """The factor (…, 1) that brings gradients (…, p) to a norm of at most `clip`, as torch.nn.utils.clip_grad_norm_."""
    norm = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
    factor: Tensor = (clip / (norm + CLIP_EPSILON)).clamp(max=1.0)
    return factor


class _Operations(NamedTuple):
    """Elementwise operations that either return a new tensor or overwrite their first argument."""

    add: Callable[..., Tensor]
    mul: Callable[..., Tensor]
    lerp: Callable[..., Tensor]
    addcmul: Callable[..., Tensor]
    addcdiv: Callable[..., Tensor]


_OUT_OF_PLACE = _Operations(Tensor.add, Tensor.mul, Tensor.lerp, Tensor.addcmul, Tensor.addcdiv)
_IN_PLACE = _Operations(Tensor.add_, Tensor.mul_, Tensor.lerp_, Tensor.addcmul_, Tensor.addcdiv_)


def _add(ops: _Operations, tensor: Tensor, other: Tensor, factor: float | Tensor, sign: float = 1.0) -> Tensor:
    """tensor + sign · factor · other."""
    if isinstance(factor, Tensor):
        return ops.addcmul(tensor, other, factor, value=sign)
    return ops.add(tensor, other, alpha=sign * factor) if factor else tensor


def _sgd_step(
    ops: _Operations, training: Training, theta: Tensor, state: OptimiserState, gradient: Tensor, rate: float | Tensor
) -> tuple[Tensor, OptimiserState]:
    if "first" not in state:
        return _add(ops, theta, gradient, rate, -1.0), {}
    first = ops.add(ops.mul(state["first"], training.momentum), gradient)
    direction = ops.add(gradient, first, alpha=training.momentum) if training.nesterov else first
    return _add(ops, theta, direction, rate, -1.0), {"first": first}


def _adam_step(
    ops: _Operations, training: Training, theta: Tensor, state: OptimiserState, gradient: Tensor, factors: StepFactors
) -> tuple[Tensor, OptimiserState]:
    t, rate = factors.t, factors.rate
    beta1, beta2 = training.betas
    first = ops.lerp(state["first"], gradient, 1.0 - beta1)
    second = ops.addcmul(ops.mul(state["second"], beta2), gradient, gradient, value=1.0 - beta2)
    scale = second / (1.0 - beta2 ** (t + 1))
    scale = (scale + training.eps_root if training.eps_root else scale).sqrt() + training.eps
    unbiased = 1.0 - beta1 ** (t + 1)
    if isinstance(rate, Tensor):
        theta = ops.addcdiv(theta, first * rate, scale, value=-1.0 / unbiased)
    else:
        theta = ops.addcdiv(theta, first, scale, value=-rate / unbiased)
    return theta, {"first": first, "second": second}


def _rmsprop_step(
    ops: _Operations, training: Training, theta: Tensor, state: OptimiserState, gradient: Tensor, rate: float | Tensor
) -> tuple[Tensor, OptimiserState]:
    second = ops.addcmul(ops.mul(state["second"], training.alpha), gradient, gradient, value=1.0 - training.alpha)
    moments, scale = {"second": second}, second
    if training.centred:
        moments["mean"] = ops.lerp(state["mean"], gradient, 1.0 - training.alpha)
        scale = scale.addcmul(moments["mean"], moments["mean"], value=-1.0)
    scale = (scale + training.eps_root if training.eps_root else scale).sqrt() + training.eps
    if "first" in state:
        moments["first"] = ops.addcdiv(ops.mul(state["first"], training.momentum), gradient, scale)
        return _add(ops, theta, moments["first"], rate, -1.0), moments
    if isinstance(rate, Tensor):
        return ops.addcdiv(theta, gradient * rate, scale, value=-1.0), moments
    return ops.addcdiv(theta, gradient, scale, value=-rate), moments


def _own_step(
    rule: UpdateRule, theta: Tensor, state: OptimiserState, gradient: Tensor, factors: StepFactors
) -> tuple[Tensor, OptimiserState]:
    """The user's rule, parameter by parameter."""
    split, rate = factors.split, factors.rate
    assert split is not None
    states = {name: split(state[name]) for name in rule.state}
    parts: list[Tensor] = []
    new_states: dict[str, list[Tensor]] = {name: [] for name in rule.state}
    rates = [float(part.flatten()[0]) for part in split(rate)] if isinstance(rate, Tensor) else None
    for position, (parameter, slope) in enumerate(zip(split(theta), split(gradient), strict=True)):
        lr = rates[position] if rates is not None else float(rate)
        of_parameter = {name: states[name][position] for name in rule.state}
        part, moments = rule(parameter, slope, of_parameter, lr, factors.t)
        parts.append(part.reshape(-1))
        for name, moment in moments.items():
            new_states[name].append(moment.reshape(-1))
    return torch.cat(parts), {name: torch.cat(moments) for name, moments in new_states.items()}
