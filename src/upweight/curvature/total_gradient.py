"""The gradient of a network's summed training objective, by ordinary backward passes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from upweight.core.blocks import blocks
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.inspection import inspect
from upweight.gradients.network import Network

MAX_BATCH_EXAMPLES = 4096


def total_gradient(summed: SummedObjective, original: Network | None = None) -> NDArray[np.float64]:
    """Σ wᵢ∇ℓᵢ + ridge θ, (parameters,).

    `original`: the network of which that of the objective is a copy with other parameters, and which was inspected.
    """
    network, train = summed.network, summed.train
    total = summed.ridge * network.vector()
    size = min(MAX_BATCH_EXAMPLES, 8 * inspect(original or network, "loss", train).batch_size)
    parameters = list(network.parameters().values())
    for where in blocks(len(train), size):
        part = train.take(np.arange(where.start, where.stop))
        with network.preserved():
            values = network.values("loss", network.batch(part), part.ids)
            weights = torch.as_tensor(summed.weights[where]).to(values)
            gradients = torch.autograd.grad((values * weights).sum(), parameters, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g.to_dense() for p, g in zip(parameters, gradients, strict=True)]
        total = total + torch.cat([g.detach().flatten().cpu().double() for g in flat]).numpy()
    return total
