"""The derivatives of one step of training, by hand: backward for cotangents, forward for tangents.

Both are linear in what they carry, so many at once are a leading axis. The step is the one in `rule.py`; what depends
on the losses themselves (the Hessian's part) is the caller's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from upweight.training.optimiser_step import CLIP_EPSILON, OptimiserState
from upweight.training.recipe import Training


class TrainingStep(NamedTuple):
    """What `update` got: parameters (p,), state and gradient ∇J_t(θ) (p,) of step t with rate η_t."""

    training: Training
    theta: Tensor
    state: OptimiserState
    gradient: Tensor
    t: int
    rate: float


def pull_back(step: TrainingStep, after: Tensor, held: OptimiserState) -> tuple[Tensor, OptimiserState, Tensor]:
    """Cotangents before the step from those after it, the adjoint of `update` (for Adam as in MAGIC, 2503.13751).

    Args:
        step: where.
        after: cotangents (m, p) of the parameters after the step.
        held: cotangents (m, p) of the state after the step.

    Returns: cotangents (m, p) of θ without the part that goes through the gradient, of the state, and of the gradient.
    The whole cotangent of θ is the first plus H_t times the last.
    """
    training = step.training
    gradient, factor = _clipped(step)
    if training.optimiser == "sgd":
        before, state, u = _pull_sgd(step, after, held)
    else:
        before, state, u = _pull_adam(step, _decayed(step, gradient), after, held)
    if training.l2:
        before = before.add(u, alpha=training.l2)
    return before, state, _through_clip(step, factor, u)


def limit_growth(
    after: Tensor, before: Tensor, held: OptimiserState, clip: float
) -> tuple[Tensor, OptimiserState, Tensor]:
    """Cotangents before a step that are nowhere larger than `clip` times those after it.

    Args:
        after: cotangents (m, p) of the parameters after the step.
        before: of the parameters before it, as `pull_back` and H_t give them; written over.
        held: of the state before it; written over.
        clip: the largest growth of a query's norm over the parameters. Parameters and state are scaled down alike.

    Returns: both, and which queries (m,) were too large.
    """
    precise = torch.promote_types(before.dtype, torch.float32)
    reached, norm = (torch.linalg.vector_norm(v, dim=1, keepdim=True, dtype=precise) for v in (after, before))
    grown = norm > clip * reached
    factor = torch.where(grown, clip * reached / norm, torch.ones_like(norm)).to(before.dtype)
    return before.mul_(factor), OptimiserState(*(None if v is None else v.mul_(factor) for v in held)), grown[:, 0]


def push_forward(
    step: TrainingStep, before: Tensor, held: OptimiserState, turned: Tensor
) -> tuple[Tensor, OptimiserState]:
    """Tangents (r, p) of parameters and state after the step from those before it; `turned` is the gradient's own."""
    training, rate = step.training, step.rate
    gradient, factor = _clipped(step)
    turned = _through_clip(step, factor, turned)
    if training.l2:
        turned = turned.add(before, alpha=training.l2)
    if training.optimiser != "sgd":
        return _push_adam(step, _decayed(step, gradient), before, held, turned)
    if held.first is None:
        return before.add(turned, alpha=-rate), held
    first = held.first.mul(training.momentum).add_(turned)
    ahead = turned.add(first, alpha=training.momentum) if training.nesterov else first
    return before.add(ahead, alpha=-rate), OptimiserState(first, None)


def _pull_sgd(step: TrainingStep, after: Tensor, held: OptimiserState) -> tuple[Tensor, OptimiserState, Tensor]:
    momentum, ahead = step.training.momentum, after * -step.rate
    if held.first is None:
        return after, held, ahead
    if step.training.nesterov:
        first = held.first.add(ahead, alpha=momentum)
        return after, OptimiserState(first * momentum, None), first + ahead
    first = held.first + ahead
    return after, OptimiserState(first * momentum, None), first


def _pull_adam(
    step: TrainingStep, g: Tensor, after: Tensor, held: OptimiserState
) -> tuple[Tensor, OptimiserState, Tensor]:
    assert held.first is not None and held.second is not None
    one, two = step.training.betas
    moment, spread, slope = _adam(step, g)
    scaled = after * (-step.rate / (1.0 - one ** (step.t + 1)))
    first = torch.addcdiv(held.first, scaled, spread)
    second = torch.addcmul(held.second, scaled, -moment / spread.square() * slope)
    u = torch.addcmul(first * (1.0 - one), second, g, value=2.0 * (1.0 - two))
    return after * _kept(step), OptimiserState(first * one, second * two), u


def _push_adam(
    step: TrainingStep, g: Tensor, before: Tensor, held: OptimiserState, turned: Tensor
) -> tuple[Tensor, OptimiserState]:
    assert held.first is not None and held.second is not None
    one, two = step.training.betas
    moment, spread, slope = _adam(step, g)
    first = held.first.lerp(turned, 1.0 - one)
    second = torch.addcmul(held.second * two, turned, g, value=2.0 * (1.0 - two))
    change = first / spread - second * (moment / spread.square() * slope)
    return (before * _kept(step)).add(change, alpha=-step.rate / (1.0 - one ** (step.t + 1))), OptimiserState(
        first, second
    )


def _adam(step: TrainingStep, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """m', D = √(ŝ' + eps_root) + eps and ∂D/∂s', all (p,).

    Where the root is 0 every gradient so far was 0, and m' with it: m'/D moves with m' alone, as m'·√s' is of second
    order in the gradients. The infinite slope counts 0 there.
    """
    training, state = step.training, step.state
    assert state.first is not None and state.second is not None
    one, two = training.betas
    unbiased = 1.0 - two ** (step.t + 1)
    second = state.second.mul(two).addcmul(g, g, value=1.0 - two)
    root = (second / unbiased + training.eps_root).sqrt()
    slope = torch.where(root > 0, 0.5 / (root * unbiased), torch.zeros_like(root))
    return state.first.lerp(g, 1.0 - one), root + training.eps, slope


def _kept(step: TrainingStep) -> float:
    """The factor of decoupled weight decay."""
    training = step.training
    return 1.0 - step.rate * training.weight_decay if training.optimiser == "adamw" else 1.0


def _decayed(step: TrainingStep, gradient: Tensor) -> Tensor:
    return gradient.add(step.theta, alpha=step.training.l2) if step.training.l2 else gradient


def _clipped(step: TrainingStep) -> tuple[Tensor, Tensor | None]:
    """The gradient after clipping, and the factor it was shrunk by."""
    if step.training.clip is None:
        return step.gradient, None
    factor = (step.training.clip / (torch.linalg.vector_norm(step.gradient) + CLIP_EPSILON)).clamp(max=1.0)
    return step.gradient * factor, factor


def _through_clip(step: TrainingStep, factor: Tensor | None, rows: Tensor) -> Tensor:
    """The derivative of clipping, which is symmetric, applied to rows (k, p)."""
    if factor is None:
        return rows
    norm = torch.linalg.vector_norm(step.gradient)
    share = torch.where(factor < 1.0, factor / (norm * (norm + CLIP_EPSILON)), torch.zeros_like(factor))
    return rows * factor - torch.outer(rows @ step.gradient, step.gradient * share)
