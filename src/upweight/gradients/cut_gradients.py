"""Whether the gradients that autograd returns are the derivatives of the values, tried along random directions.

`.detach()`, `torch.no_grad()` and backward passes of the user's own cut parts of a derivative out of the gradient.
A training follows the gradient all the same, and the measurement of a query moves with the derivative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from upweight.core.examples import Examples
from upweight.gradients.functional import LossModule, call_with, gradient
from upweight.gradients.interaction import random_factors
from upweight.gradients.network import Network, Quantity

DIRECTIONS = 3
TOLERANCE = 0.1  # difference of the slopes, relative to those of the values
SHORTER = 0.1  # factor of the step that is tried if the first one gives other slopes: a kink may lie within the first
ROUNDING = 50.0  # errors of a value in units of its precision


def cut_share(network: Network, quantity: Quantity, sample: Examples) -> float:
    """Difference of gradients and derivatives of a random sum of values, relative to these; 0 within rounding.

    Parameters without a gradient are held fixed, as training holds them. Call it inside `network.preserved()`. A net
    in half precision, or one whose parameters cannot be replaced, is not tried: 0.
    """
    eps, parameters = torch.finfo(network.dtype).eps, network.parameters()
    if eps > torch.finfo(torch.float32).eps or any(p.dtype != network.dtype for p in parameters.values()):
        return 0.0
    values = network.values(quantity, network.batch(sample), sample.ids)
    factors = random_factors(len(sample), values.detach())
    slopes = gradient(values @ factors, list(parameters.values()), network.names)
    moving = {name: p for name, p in parameters.items() if bool(slopes[name].any())}
    if not moving:
        return 0.0
    generator = torch.Generator().manual_seed(0)
    directions = [{name: _direction(p, generator) for name, p in moving.items()} for _ in range(DIRECTIONS)]
    predicted = torch.stack([sum((slopes[n] * d).sum() for n, d in z.items()) for z in directions])  # type: ignore[misc]
    share = 0.0
    for step in (eps ** (1 / 3), SHORTER * eps ** (1 / 3)):
        try:
            actual = torch.stack([_slope(network, quantity, sample, factors, z, step) for z in directions])
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            return 0.0
        noise = ROUNDING * eps * float((values.detach() * factors).abs().sum()) / step
        difference, length = float((actual - predicted).norm()), float(actual.norm())
        if not difference > TOLERANCE * max(length, float(predicted.norm())) + noise:
            return 0.0
        share = difference / (length or difference)
    return share


def _direction(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """A random direction of the length of the parameter, or of numbers of size 1 if it is 0."""
    scale = float(parameter.detach().square().mean().sqrt()) or 1.0
    return scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype).to(parameter.device)


def _slope(
    network: Network, quantity: Quantity, sample: Examples, factors: Tensor, direction: dict[str, Tensor], step: float
) -> Tensor:
    """The central difference of Σ factorᵢ · valueᵢ along a direction."""
    module, parameters = LossModule(network, quantity), network.parameters()
    ends: list[Tensor] = []
    for sign in (step, -step):
        moved = {f"net.{name}": (parameters[name] + sign * d).detach() for name, d in direction.items()}
        values = call_with(module, moved, network.batch(sample))
        ends.append(values.detach().double() @ factors.double())
    return (ends[0] - ends[1]) / (2 * step)
