"""The update that an optimiser would make of each of many gradients, by its recorded moments."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from upweight.gradients.network import Network
from upweight.training.optimiser_settings import OptimiserSettings

Array = NDArray[np.float64]


def optimiser_updates(
    settings: OptimiserSettings, state: Mapping[str, Tensor], network: Network, gradients: Array, momentum: bool
) -> Array:
    """Updates (k, p) without learning rate and weight decay, if the next step had one of the gradients (k, p) alone.

    `momentum`: whether the mean of earlier gradients is part of them. Parameters without moments have had no step yet.

    Raises ValueError for gradients of some rows of a parameter only.
    """
    sizes = [parameter.numel() for parameter in network.parameters().values()]
    ends = np.cumsum(sizes)
    updates = np.empty_like(gradients)
    for name, end, size in zip(network.names, ends, sizes, strict=True):
        part = slice(int(end) - size, int(end))
        updates[:, part] = _update(settings, state, name, gradients[:, part], momentum)
    return updates


def _update(settings: OptimiserSettings, state: Mapping[str, Tensor], name: str, g: Array, momentum: bool) -> Array:
    def moment(kind: str) -> Array | float:
        stored = state.get(f"{kind}.{name}")
        if stored is not None and stored.numel() != g.shape[1]:
            raise ValueError(
                f"expected gradients of all {stored.numel():,} numbers of {name!r}, which the optimiser trained, got "
                f"{g.shape[1]:,}: choose whole modules, not rows of embeddings"
            )
        return 0.0 if stored is None else stored.double().cpu().numpy().reshape(1, -1)

    share = settings.momentum if momentum else 0.0
    if settings.kind == "SGD":
        first = moment("momentum_buffer")
        following = share * first + g
        return np.asarray(g + share * following if settings.nesterov and momentum else following)
    if settings.kind == "RMSprop":
        second = settings.beta * moment("square_avg") + (1.0 - settings.beta) * g**2
        if settings.centred:
            second = second - (settings.beta * moment("grad_avg") + (1.0 - settings.beta) * g) ** 2
        return np.asarray(share * moment("momentum_buffer") + g / (np.sqrt(second) + settings.eps))
    t = float(state.get(f"step.{name}", 0.0)) + 1.0
    first = share * moment("exp_avg") + (1.0 - settings.momentum) * g
    second = (settings.beta * moment("exp_avg_sq") + (1.0 - settings.beta) * g**2) / (1.0 - settings.beta**t)
    return np.asarray(first / (1.0 - settings.momentum**t) / (np.sqrt(second) + settings.eps))
