"""Second-order products of one step of training, for many vectors at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.gradients.functional import Whole, plain_attention
from upweight.training.run import Run, preserve_random_state

Array = NDArray[np.float64]
ROOM = 1 << 28  # bytes of vectors and of what a pass keeps for them


class SecondOrderProducts:
    """H_t u and ⟨∇ℓᵢ, u⟩ of the batch of step t, by forward mode over reverse mode (Pearlmutter 1994).

    Vectors share the primal pass: their tangents are one more axis of the same matrix products.

    Raises:
        ValueError: a net whose training changes its buffers (batch statistics).
    """

    def __init__(self, run: Run) -> None:
        self._run, network = run, run.network
        self._whole = Whole(network, "loss")
        self._names = [f"net.{name}" for name in network.names]
        self._shapes = [network.shapes[name] for name in network.names]
        self._sizes = [p.numel() for p in network.parameters().values()]
        self._refuse_statistics()

    def __call__(self, theta: Tensor, t: int, weights: Array, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(H_t u (k, p), ⟨∇ℓᵢ, u⟩ (k, batch)) for vectors u (k, p) at θ."""
        shares = self._run.shares(t, weights)
        bent, along = [], []
        for part in torch.split(vectors, max(1, ROOM // (8 * theta.element_size() * len(theta)))):
            with preserve_random_state(theta.device), plain_attention():
                losses = self._losses(t)

                def value(at: Tensor, losses: Callable[[Tensor], Tensor] = losses) -> tuple[Tensor, Tensor]:
                    found = losses(at)
                    return (shares * found).sum(), found

                def one(u: Tensor, value: Callable[[Tensor], Any] = value) -> tuple[Tensor, Tensor]:
                    turned: tuple[Tensor, Tensor] = torch.func.jvp(
                        torch.func.grad(value, has_aux=True), (theta,), (u,)
                    )[1]
                    return turned

                h, a = torch.func.vmap(one, randomness="same")(part)
            bent.append(h)
            along.append(a)
        return torch.cat(bent), torch.cat(along)

    def weighted(self, theta: Tensor, t: int, coefficients: Tensor) -> Tensor:
        """Σᵢ cᵢ ∇ℓᵢ of the batch for coefficients c (k, batch): (k, p)."""
        with preserve_random_state(theta.device), plain_attention():
            pulled: Callable[[Tensor], tuple[Tensor]] = torch.func.vjp(self._losses(t), theta)[1]
            found: Tensor = torch.func.vmap(lambda c: pulled(c)[0])(coefficients)
        return found

    def _losses(self, t: int) -> Callable[[Tensor], Tensor]:
        """θ ↦ losses (batch,) of step t, with the random numbers of the step."""
        batch = self._run.batch(t)

        def losses(theta: Tensor) -> Tensor:
            parts = zip(self._names, torch.split(theta, self._sizes), self._shapes, strict=True)
            found: Tensor = torch.func.functional_call(self._whole, {n: v.view(s) for n, v, s in parts}, (batch,))
            return found

        return losses

    def _refuse_statistics(self) -> None:
        run = self._run
        buffers = dict(run.network.net.named_buffers())
        before = {name: b.clone() for name, b in buffers.items()}
        with preserve_random_state(run.network.device), torch.no_grad():
            run.losses(0)
        changed = [name for name, b in buffers.items() if not torch.equal(b, before[name])]
        for name in changed:
            buffers[name].copy_(before[name])
        if changed:
            raise ValueError(
                f"training changes {changed[0]!r}: the statistics of a batch norm tie its examples together, and its "
                "derivative is not followed; use another norm (GroupNorm, LayerNorm), or SOURCE, which needs no replay"
            )
