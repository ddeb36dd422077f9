"""The expectation over labels, exactly: gradients along the square root of every output Hessian.

The Gauss–Newton matrix of one example is Jᵀ Λ J with Λ the Hessian of its loss in the outputs. With Λ = Σ_c u_c u_cᵀ
it is Σ_c (Jᵀu_c)(Jᵀu_c)ᵀ: as many gradients as Λ has rank. For cross-entropy Λ = E_y[(p − e_y)(p − e_y)ᵀ], so this is
the true Fisher without sampling a label.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from upweight.core.examples import Examples
from upweight.curvature.objective import Summed
from upweight.gradients.capture import Tape
from upweight.gradients.captured import Captured
from upweight.gradients.inspection import inspected
from upweight.gradients.outputs import outputs

BATCH = 256  # examples at a time
NEGLIGIBLE = 1e-6  # share of the batch's trace below which a direction is left out


def expected_gradients(summed: Summed, train: Examples | None = None) -> Iterator[tuple[int, Captured]]:
    """(c, √wᵢ Jᵢᵀu_c) for every batch of training examples and every direction u_c of their output Hessians.

    Parameters that hooks cannot see are absent from what is yielded. Raises NoOutputsError where the loss is no
    function of one output of the net.
    """
    network = summed.network
    examples, weights = summed.train, summed.weights
    if train is not None:
        examples, weights = train, np.ones(len(train))
    found = inspected(network, "loss", examples)
    for start in range(0, len(examples), BATCH):
        where = np.arange(start, min(start + BATCH, len(examples)))
        part = examples.take(where)
        pulled: list[Captured] = []
        with network.untouched(), Tape(network, len(part), found.layouts, frozenset(found.fallback)) as tape:
            out = outputs(network, network.batch(part), part.ids)
            scale = torch.as_tensor(weights[where]).to(out.values).sqrt()
            directions = [u for u in square_roots(out.hessians()) if float(u.abs().max()) > 0]
            for c, direction in enumerate(directions):
                cotangent = (direction * scale[:, None]).reshape(out.values.shape)
                pulled.append(tape.pull(out.values, cotangent, keep=c < len(directions) - 1))
        yield from enumerate(pulled)


def square_roots(hessians: Tensor) -> Iterator[Tensor]:
    """Vectors u (B, C), strongest first, with Σ u uᵀ = Λ up to a negligible share of the trace.

    Negative eigenvalues (a loss that is not convex in its outputs) are left out: the Gauss–Newton matrix takes Λ
    positive semidefinite.
    """
    values, vectors = torch.linalg.eigh(hessians.double())
    values = values.clamp_min(0.0)
    total = float(values.sum())
    for c in range(values.shape[1] - 1, -1, -1):
        if float(values[:, c].sum()) > NEGLIGIBLE * total:
            yield (vectors[:, :, c] * values[:, c, None].sqrt()).to(hessians.dtype)
