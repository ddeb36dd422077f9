"""The derivatives of one training step: `pull_back` for cotangents, `push_forward` for tangents.

Both maps are linear, so many cotangents or tangents are mapped at once, along a leading axis. The step is
`optimiser_step.update`; its rules are differentiated in closed form, those of the user by torch. Products with the
Hessian of the losses are left to the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from upweight.training.optimiser_step import (
    AVERAGE,
    CLIP_EPSILON,
    OptimiserState,
    StepFactors,
    average_weight,
    update,
)
from upweight.training.recipe import Training
from upweight.training.rule_derivatives import PULL_BACK, PUSH_FORWARD, RuleStep
from upweight.training.update_rule import UpdateRule


class TrainingStep(NamedTuple):
    """The arguments of `update`: recipe, parameters (p,), state, gradient ∇J_t(θ) (p,), and the step's factors."""

    training: Training
    theta: Tensor
    state: OptimiserState
    gradient: Tensor
    factors: StepFactors

    @property
    def t(self) -> int:
        """The number of the step."""
        return self.factors.t


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
    training, average = step.training, {}
    if training.ema is not None:
        weight, of_average = average_weight(training, step.t), state_cotangents[AVERAGE]
        theta_cotangents = theta_cotangents.add(of_average, alpha=weight)
        average = {AVERAGE: of_average * (1.0 - weight)}
    gradient, factor = _clip(step)
    if isinstance(training.optimiser, UpdateRule):
        before, state, gradient_cotangents = _pull_back_own(step, gradient, theta_cotangents, state_cotangents)
    else:
        rule = PULL_BACK[training.optimiser]
        before, state, gradient_cotangents = rule(_rule_step(step, gradient), theta_cotangents, state_cotangents)
    if training.is_decoupled:
        before = before * _shrinkage(step) if _has_decay(step) else before
    else:
        before = _add_scaled(before, gradient_cotangents, step.factors.decay)
    return before, {**state, **average}, _differentiate_clip(step, factor, gradient_cotangents)


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
    scaled_state = {name: cotangents.mul_(factor) for name, cotangents in state_cotangents.items()}
    return before.mul_(factor), scaled_state, too_large[:, 0]


def push_forward(
    step: TrainingStep, theta_tangents: Tensor, state_tangents: OptimiserState, gradient_tangents: Tensor
) -> tuple[Tensor, OptimiserState]:
    """Tangents (r, p) of parameters and state after the step, from the tangents before it and that of the gradient."""
    training = step.training
    gradient, factor = _clip(step)
    gradient_tangents = _differentiate_clip(step, factor, gradient_tangents)
    if training.is_decoupled:
        theta_tangents = theta_tangents * _shrinkage(step) if _has_decay(step) else theta_tangents
    else:
        gradient_tangents = _add_scaled(gradient_tangents, theta_tangents, step.factors.decay)
    if isinstance(training.optimiser, UpdateRule):
        theta, state = _push_forward_own(step, gradient, theta_tangents, state_tangents, gradient_tangents)
    else:
        rule = PUSH_FORWARD[training.optimiser]
        theta, state = rule(_rule_step(step, gradient), theta_tangents, state_tangents, gradient_tangents)
    if training.ema is not None:
        state[AVERAGE] = state_tangents[AVERAGE].lerp(theta, average_weight(training, step.t))
    return theta, state


def _rule_step(step: TrainingStep, gradient: Tensor) -> RuleStep:
    return RuleStep(step.training, step.state, _add_decay(step, gradient), step.t, step.factors.rate)


def _pull_back_own(
    step: TrainingStep, gradient: Tensor, theta_cotangents: Tensor, state_cotangents: OptimiserState
) -> tuple[Tensor, OptimiserState, Tensor]:
    """The adjoint of a rule of the user, by reverse mode."""
    names, rule = _own_rule(step)
    arguments = (step.theta, _add_decay(step, gradient), *(step.state[name] for name in names))
    backward: Callable[..., tuple[Tensor, ...]] = torch.func.vjp(rule, *arguments)[1]
    cotangents = (theta_cotangents, *(state_cotangents[name] for name in names))
    before, of_gradient, *states = torch.func.vmap(backward)(cotangents)
    return before, dict(zip(names, states, strict=True)), of_gradient


def _push_forward_own(
    step: TrainingStep,
    gradient: Tensor,
    theta_tangents: Tensor,
    state_tangents: OptimiserState,
    gradient_tangents: Tensor,
) -> tuple[Tensor, OptimiserState]:
    names, rule = _own_rule(step)
    arguments = (step.theta, _add_decay(step, gradient), *(step.state[name] for name in names))

    def forward(*tangents: Tensor) -> tuple[Tensor, ...]:
        pushed: tuple[Tensor, ...] = torch.func.jvp(rule, arguments, tangents)[1]
        return pushed

    theta, *states = torch.func.vmap(forward)(
        theta_tangents, gradient_tangents, *(state_tangents[name] for name in names)
    )
    return theta, dict(zip(names, states, strict=True))


def _own_rule(step: TrainingStep) -> tuple[tuple[str, ...], Callable[..., tuple[Tensor, ...]]]:
    """The names of the states of the user's rule, and (θ, gradient with decay, *states) ↦ (θ, *states)."""
    assert isinstance(step.training.optimiser, UpdateRule)
    plain = Training(optimiser=step.training.optimiser, lr=0.0, epochs=1)
    names = step.training.optimiser.state

    def rule(theta: Tensor, gradient: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        state = dict(zip(names, states, strict=True))
        after, moments = update(plain, theta, state, gradient, step.factors._replace(decay=0.0))
        return (after, *(moments[name] for name in names))

    return names, rule


def _has_decay(step: TrainingStep) -> bool:
    return isinstance(step.factors.decay, Tensor) or bool(step.factors.decay)


def _shrinkage(step: TrainingStep) -> float | Tensor:
    """The factor 1 − η_t λ of decoupled weight decay."""
    return 1.0 - step.factors.rate * step.factors.decay


def _add_decay(step: TrainingStep, gradient: Tensor) -> Tensor:
    return gradient if step.training.is_decoupled else _add_scaled(gradient, step.theta, step.factors.decay)


def _add_scaled(tensor: Tensor, other: Tensor, factor: float | Tensor) -> Tensor:
    if isinstance(factor, Tensor):
        return tensor.addcmul(other, factor)
    return tensor.add(other, alpha=factor) if factor else tensor


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
