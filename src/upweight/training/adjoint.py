"""The derivatives of one training step, in closed form: `pull_back` for cotangents, `push_forward` for tangents.

Both maps are linear, so many cotangents or tangents are mapped at once, along a leading axis. The step is
`optimiser_step.update`. Products with the Hessian of the losses are left to the caller.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from upweight.training.optimiser_step import CLIP_EPSILON, OptimiserState
from upweight.training.recipe import Training


class TrainingStep(NamedTuple):
    """The arguments of `update` in step t: parameters (p,), state, gradient ∇J_t(θ) (p,) and learning rate η_t.

    `decay`: the weight decay of every parameter (p,), if parameters differ; it then replaces that of the recipe.
    """

    training: Training
    theta: Tensor
    state: OptimiserState
    gradient: Tensor
    t: int
    rate: float
    decay: Tensor | None = None


def pull_back(
    step: TrainingStep, theta_cotangents: Tensor, state_cotangents: OptimiserState
) -> tuple[Tensor, OptimiserState, Tensor]:
    """Cotangents before the step from those after it: the adjoint of `update` (for Adam as in MAGIC, 2503.13751).

    Args:
        step: the step.
        theta_cotangents: cotangents (m, p) of the parameters after the step.
        state_cotangents: cotangents (m, p) of the state after the step.

    Returns: cotangents (m, p) of θ without the part that goes through the gradient, of the state, and of the gradient.
    The whole cotangent of θ is the first plus H_t times the last.
    """
    training = step.training
    gradient, factor = _clip(step)
    if training.optimiser == "sgd":
        before, state, gradient_cotangents = _pull_back_sgd(step, theta_cotangents, state_cotangents)
    else:
        before, state, gradient_cotangents = _pull_back_adam(
            step, _add_l2(step, gradient), theta_cotangents, state_cotangents
        )
    if step.decay is not None and training.optimiser != "adamw":
        before = before.addcmul(gradient_cotangents, step.decay)
    elif training.l2:
        before = before.add(gradient_cotangents, alpha=training.l2)
    return before, state, _differentiate_clip(step, factor, gradient_cotangents)


def limit_growth(
    after: Tensor, before: Tensor, state_cotangents: OptimiserState, clip: float
) -> tuple[Tensor, OptimiserState, Tensor]:
    """Scale down the cotangents before a step if their norm exceeds `clip` times the norm of those after it.

    Args:
        after: cotangents (m, p) of the parameters after the step.
        before: cotangents of the parameters before it, as `pull_back` and H_t give them; overwritten.
        state_cotangents: cotangents of the state before it; overwritten.
        clip: the largest factor by which the norm over the parameters may grow, for each query. Parameters and
            state are scaled by the same factor.

    Returns: cotangents of parameters and state, and which queries (m,) were scaled down.
    """
    precise = torch.promote_types(before.dtype, torch.float32)
    norm_after, norm = (torch.linalg.vector_norm(v, dim=1, keepdim=True, dtype=precise) for v in (after, before))
    too_large = norm > clip * norm_after
    factor = torch.where(too_large, clip * norm_after / norm, torch.ones_like(norm)).to(before.dtype)
    scaled_state = OptimiserState(*(None if v is None else v.mul_(factor) for v in state_cotangents))
    return before.mul_(factor), scaled_state, too_large[:, 0]


def push_forward(
    step: TrainingStep, theta_tangents: Tensor, state_tangents: OptimiserState, gradient_tangents: Tensor
) -> tuple[Tensor, OptimiserState]:
    """Tangents (r, p) of parameters and state after the step, from the tangents before it and that of the gradient."""
    training, rate = step.training, step.rate
    gradient, factor = _clip(step)
    gradient_tangents = _differentiate_clip(step, factor, gradient_tangents)
    if step.decay is not None and training.optimiser != "adamw":
        gradient_tangents = gradient_tangents.addcmul(theta_tangents, step.decay)
    elif training.l2:
        gradient_tangents = gradient_tangents.add(theta_tangents, alpha=training.l2)
    if training.optimiser != "sgd":
        return _push_forward_adam(step, _add_l2(step, gradient), theta_tangents, state_tangents, gradient_tangents)
    if state_tangents.first is None:
        return theta_tangents.add(gradient_tangents, alpha=-rate), state_tangents
    first = state_tangents.first.mul(training.momentum).add_(gradient_tangents)
    direction = gradient_tangents.add(first, alpha=training.momentum) if training.nesterov else first
    return theta_tangents.add(direction, alpha=-rate), OptimiserState(first, None)


def _pull_back_sgd(
    step: TrainingStep, theta_cotangents: Tensor, state_cotangents: OptimiserState
) -> tuple[Tensor, OptimiserState, Tensor]:
    momentum, direction = step.training.momentum, theta_cotangents * -step.rate
    if state_cotangents.first is None:
        return theta_cotangents, state_cotangents, direction
    if step.training.nesterov:
        first = state_cotangents.first.add(direction, alpha=momentum)
        return theta_cotangents, OptimiserState(first * momentum, None), first + direction
    first = state_cotangents.first + direction
    return theta_cotangents, OptimiserState(first * momentum, None), first


def _pull_back_adam(
    step: TrainingStep, g: Tensor, theta_cotangents: Tensor, state_cotangents: OptimiserState
) -> tuple[Tensor, OptimiserState, Tensor]:
    assert state_cotangents.first is not None and state_cotangents.second is not None
    beta1, beta2 = step.training.betas
    moment, scale, slope = _adam_moments(step, g)
    scaled = theta_cotangents * (-step.rate / (1.0 - beta1 ** (step.t + 1)))
    first = torch.addcdiv(state_cotangents.first, scaled, scale)
    second = torch.addcmul(state_cotangents.second, scaled, -moment / scale.square() * slope)
    gradient_cotangents = torch.addcmul(first * (1.0 - beta1), second, g, value=2.0 * (1.0 - beta2))
    state = OptimiserState(first * beta1, second * beta2)
    return theta_cotangents * _decay_factor(step), state, gradient_cotangents


def _push_forward_adam(
    step: TrainingStep, g: Tensor, theta_tangents: Tensor, state_tangents: OptimiserState, gradient_tangents: Tensor
) -> tuple[Tensor, OptimiserState]:
    assert state_tangents.first is not None and state_tangents.second is not None
    beta1, beta2 = step.training.betas
    moment, scale, slope = _adam_moments(step, g)
    first = state_tangents.first.lerp(gradient_tangents, 1.0 - beta1)
    second = torch.addcmul(state_tangents.second * beta2, gradient_tangents, g, value=2.0 * (1.0 - beta2))
    change = first / scale - second * (moment / scale.square() * slope)
    theta = (theta_tangents * _decay_factor(step)).add(change, alpha=-step.rate / (1.0 - beta1 ** (step.t + 1)))
    return theta, OptimiserState(first, second)


def _adam_moments(step: TrainingStep, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """m', D = √(ŝ' + eps_root) + eps and ∂D/∂s' after the step, all (p,).

    If the root is 0, every gradient so far was 0, and so is m'. There m'/D depends on m' alone, because m'·√s' is of
    second order in the gradients. The infinite slope is replaced by 0.
    """
    training, state = step.training, step.state
    assert state.first is not None and state.second is not None
    beta1, beta2 = training.betas
    unbiased = 1.0 - beta2 ** (step.t + 1)
    second = state.second.mul(beta2).addcmul(g, g, value=1.0 - beta2)
    root = (second / unbiased + training.eps_root).sqrt()
    slope = torch.where(root > 0, 0.5 / (root * unbiased), torch.zeros_like(root))
    return state.first.lerp(g, 1.0 - beta1), root + training.eps, slope


def _decay_factor(step: TrainingStep) -> float | Tensor:
    """The factor 1 − η_t λ of decoupled weight decay; 1 for other optimisers."""
    training = step.training
    if step.decay is not None and training.optimiser == "adamw":
        return 1.0 - step.rate * step.decay
    return 1.0 - step.rate * training.weight_decay if training.optimiser == "adamw" else 1.0


def _add_l2(step: TrainingStep, gradient: Tensor) -> Tensor:
    if step.decay is not None:
        return gradient if step.training.optimiser == "adamw" else gradient.addcmul(step.theta, step.decay)
    return gradient.add(step.theta, alpha=step.training.l2) if step.training.l2 else gradient


def _clip(step: TrainingStep) -> tuple[Tensor, Tensor | None]:
    """The gradient after clipping, and the factor that scaled it; None if the training does not clip."""
    if step.training.clip is None:
        return step.gradient, None
    factor = (step.training.clip / (torch.linalg.vector_norm(step.gradient) + CLIP_EPSILON)).clamp(max=1.0)
    return step.gradient * factor, factor


def _differentiate_clip(step: TrainingStep, factor: Tensor | None, rows: Tensor) -> Tensor:
    """Apply the derivative of clipping, a symmetric matrix, to rows (k, p)."""
    if factor is None:
        return rows
    norm = torch.linalg.vector_norm(step.gradient)
    share = torch.where(factor < 1.0, factor / (norm * (norm + CLIP_EPSILON)), torch.zeros_like(factor))
    return rows * factor - torch.outer(rows @ step.gradient, step.gradient * share)
