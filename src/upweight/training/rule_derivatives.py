"""The derivatives of SGD, Adam and RMSprop in closed form, for many cotangents or tangents at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from upweight.training.optimiser_step import OptimiserState
from upweight.training.recipe import Training

PulledBack = tuple[Tensor, OptimiserState, Tensor]
PushedForward = tuple[Tensor, OptimiserState]


class RuleStep(NamedTuple):
    """The inputs of an update rule in step t: the state before it, gradient (p,) with weight decay, learning rate."""

    training: Training
    state: OptimiserState
    gradient: Tensor
    t: int
    rate: float | Tensor


def _pull_back_sgd(step: RuleStep, theta_cotangents: Tensor, state_cotangents: OptimiserState) -> PulledBack:
    momentum, direction = step.training.momentum, theta_cotangents * -step.rate
    if "first" not in state_cotangents:
        return theta_cotangents, {}, direction
    if step.training.nesterov:
        first = state_cotangents["first"].add(direction, alpha=momentum)
        return theta_cotangents, {"first": first * momentum}, first + direction
    first = state_cotangents["first"] + direction
    return theta_cotangents, {"first": first * momentum}, first


def _push_forward_sgd(
    step: RuleStep, theta_tangents: Tensor, state_tangents: OptimiserState, gradient_tangents: Tensor
) -> PushedForward:
    if "first" not in state_tangents:
        return theta_tangents - gradient_tangents * step.rate, {}
    first = state_tangents["first"].mul(step.training.momentum).add_(gradient_tangents)
    direction = gradient_tangents.add(first, alpha=step.training.momentum) if step.training.nesterov else first
    return theta_tangents - direction * step.rate, {"first": first}


def _pull_back_adam(step: RuleStep, theta_cotangents: Tensor, state_cotangents: OptimiserState) -> PulledBack:
    beta1, beta2 = step.training.betas
    moment, scale, slope = _adam_moments(step)
    scaled = theta_cotangents * (-step.rate / (1.0 - beta1 ** (step.t + 1)))
    first = torch.addcdiv(state_cotangents["first"], scaled, scale)
    second = torch.addcmul(state_cotangents["second"], scaled, -moment / scale.square() * slope)
    gradient_cotangents = torch.addcmul(first * (1.0 - beta1), second, step.gradient, value=2.0 * (1.0 - beta2))
    return theta_cotangents, {"first": first * beta1, "second": second * beta2}, gradient_cotangents


def _push_forward_adam(
    step: RuleStep, theta_tangents: Tensor, state_tangents: OptimiserState, gradient_tangents: Tensor
) -> PushedForward:
    beta1, beta2 = step.training.betas
    moment, scale, slope = _adam_moments(step)
    first = state_tangents["first"].lerp(gradient_tangents, 1.0 - beta1)
    second = torch.addcmul(
        state_tangents["second"] * beta2, gradient_tangents, step.gradient, value=2.0 * (1.0 - beta2)
    )
    change = first / scale - second * (moment / scale.square() * slope)
    theta = theta_tangents - change * (step.rate / (1.0 - beta1 ** (step.t + 1)))
    return theta, {"first": first, "second": second}


def _adam_moments(step: RuleStep) -> tuple[Tensor, Tensor, Tensor]:
    """m', D = √(ŝ' + eps_root) + eps and ∂D/∂s' after the step, all (p,).

    If the root is 0, every gradient so far was 0, and so is m'. There m'/D depends on m' alone, because m'·√s' is of
    second order in the gradients. The infinite slope is replaced by 0.
    """
    training, state, g = step.training, step.state, step.gradient
    beta1, beta2 = training.betas
    unbiased = 1.0 - beta2 ** (step.t + 1)
    second = state["second"].mul(beta2).addcmul(g, g, value=1.0 - beta2)
    root = (second / unbiased + training.eps_root).sqrt()
    slope = torch.where(root > 0, 0.5 / (root * unbiased), torch.zeros_like(root))
    return state["first"].lerp(g, 1.0 - beta1), root + training.eps, slope


def _pull_back_rmsprop(step: RuleStep, theta_cotangents: Tensor, state_cotangents: OptimiserState) -> PulledBack:
    training, g, keep = step.training, step.gradient, 1.0 - step.training.alpha
    scale, slope, mean = _rmsprop_scale(step)
    direction, state = theta_cotangents * -step.rate, {}
    if "first" in state_cotangents:
        direction = direction + state_cotangents["first"]
        state["first"] = direction * training.momentum
    of_scale = direction * (-g / scale.square())
    gradient_cotangents = direction / scale
    second = torch.addcmul(state_cotangents["second"], of_scale, slope)
    state["second"] = second * training.alpha
    gradient_cotangents = gradient_cotangents.addcmul(second, g, value=2.0 * keep)
    if mean is not None:
        of_mean = torch.addcmul(state_cotangents["mean"], of_scale, mean * slope, value=-2.0)
        state["mean"] = of_mean * training.alpha
        gradient_cotangents = gradient_cotangents.add(of_mean, alpha=keep)
    return theta_cotangents, state, gradient_cotangents


def _push_forward_rmsprop(
    step: RuleStep, theta_tangents: Tensor, state_tangents: OptimiserState, gradient_tangents: Tensor
) -> PushedForward:
    training, g, keep = step.training, step.gradient, 1.0 - step.training.alpha
    scale, slope, mean = _rmsprop_scale(step)
    second = torch.addcmul(state_tangents["second"] * training.alpha, gradient_tangents, g, value=2.0 * keep)
    state, of_scale = {"second": second}, second * slope
    if mean is not None:
        state["mean"] = state_tangents["mean"].lerp(gradient_tangents, keep)
        of_scale = of_scale.addcmul(state["mean"], mean * slope, value=-2.0)
    direction = gradient_tangents / scale - of_scale * (g / scale.square())
    if "first" in state_tangents:
        direction = state["first"] = direction.add(state_tangents["first"], alpha=training.momentum)
    return theta_tangents - direction * step.rate, state


def _rmsprop_scale(step: RuleStep) -> tuple[Tensor, Tensor, Tensor | None]:
    """D = √(s' − a'² + eps_root) + eps after the step, ∂D/∂s', and a' if the rule is centred, all (p,).

    The infinite slope at a root of 0 is replaced by 0, as for Adam.
    """
    training, state, g = step.training, step.state, step.gradient
    inside = state["second"].mul(training.alpha).addcmul(g, g, value=1.0 - training.alpha)
    mean = state["mean"].lerp(g, 1.0 - training.alpha) if training.centred else None
    root = ((inside if mean is None else inside.addcmul(mean, mean, value=-1.0)) + training.eps_root).sqrt()
    return root + training.eps, torch.where(root > 0, 0.5 / root, torch.zeros_like(root)), mean


PULL_BACK: dict[Any, Callable[[RuleStep, Tensor, OptimiserState], PulledBack]] = {
    "sgd": _pull_back_sgd,
    "adam": _pull_back_adam,
    "adamw": _pull_back_adam,
    "rmsprop": _pull_back_rmsprop,
}
PUSH_FORWARD: dict[Any, Callable[[RuleStep, Tensor, OptimiserState, Tensor], PushedForward]] = {
    "sgd": _push_forward_sgd,
    "adam": _push_forward_adam,
    "adamw": _push_forward_adam,
    "rmsprop": _push_forward_rmsprop,
}
