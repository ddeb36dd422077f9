"""One signed step of the inputs along the gradient of the loss, by captum (the fast gradient sign method)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.examples import Examples
from upweight.gradients.functional import plain_attention
from upweight.gradients.input_gradients import replace_x, with_differentiable_x
from upweight.gradients.network import Network

BATCH_EXAMPLES = 64  # of one pass


def signed_step(
    network: Network, examples: Examples, radius: float, bounds: tuple[float, float], towards: bool
) -> NDArray[np.float64]:
    """x + radius · sign(∂loss/∂x), or minus if `towards` the labels, cut to the bounds: (n, …).

    Raises:
        ImportError: captum is not installed.
        TypeError: the batch has no real-valued tensor `x` with one entry per example.
    """
    try:
        from captum.robust import FGSM
    except ImportError as error:
        raise ImportError(
            f"fgsm needs captum, which is not installed ({error}); run pip install 'upweight[captum]'"
        ) from error
    parts = []
    for part in examples.batches(BATCH_EXAMPLES):
        with network.preserved(), plain_attention():
            batch, x = with_differentiable_x(network.batch(part), len(part))

            def losses(moved: Tensor, batch: object = batch, part: Examples = part) -> Tensor:
                return network.values("loss", replace_x(batch, moved), part.ids)

            step = FGSM(losses, lambda values, target: values, *bounds)
            step.zero_thresh = 0.0  # captum holds numbers still whose gradient is below 1e-6, as after confident fits
            moved = step.perturb(x, radius, None, targeted=towards)
        parts.append(moved.detach().double().cpu())
    return np.asarray(torch.cat(parts).numpy())
