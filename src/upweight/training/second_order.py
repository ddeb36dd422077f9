"""Second-order products of one training step, for many vectors at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from upweight.gradients.functional import LossModule, plain_attention
from upweight.training.initial_network import preserve_random_state
from upweight.training.run import Run

VECTOR_BYTES = 1 << 28  # bytes of the vectors of one pass, and of what the pass stores for them


class SecondOrderProducts:
    """H_t u and ⟨∇ℓᵢ, u⟩ of the batch of step t, by forward mode over reverse mode (Pearlmutter 1994).

    All vectors share the primal pass: their tangents are one more axis of the same matrix products.

    Args:
        run: the steps.
        vector_bytes: memory for vectors in one pass; more vectors are split.

    Raises:
        ValueError: a net whose training changes its buffers (batch statistics).
    """

    def __init__(self, run: Run, vector_bytes: int = VECTOR_BYTES) -> None:
        self._run, self._vector_bytes, network = run, vector_bytes, run.network
        self._whole = LossModule(network, "loss")
        self._names = [f"net.{name}" for name in network.names]
        self._shapes = [network.shapes[name] for name in network.names]
        self._sizes = [p.numel() for p in network.parameters().values()]
        self._refuse_changing_buffers()

    def __call__(self, theta: Tensor, t: int, shares: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(H_t u (k, p), ⟨∇ℓᵢ, u⟩ (k, batch)) for vectors u (k, p) at θ; H_t is that of Σᵢ sharesᵢ ℓᵢ."""
        passes = self._run.passes(t)
        hessian_products, gradient_products = torch.zeros_like(vectors), []
        for number, part in enumerate(passes):
            of_hessian, of_gradients = self._pass_products(theta, t, number, shares[part], vectors)
            hessian_products = of_hessian if len(passes) == 1 else hessian_products.add_(of_hessian)
            gradient_products.append(of_gradients)
        return hessian_products, torch.cat(gradient_products, dim=1)

    def _pass_products(
        self, theta: Tensor, t: int, number: int, shares: Tensor, vectors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The products of one of the batches of a step."""
        hessian_products, gradient_products = [], []
        for part in torch.split(vectors, max(1, self._vector_bytes // (8 * theta.element_size() * len(theta)))):
            with preserve_random_state(theta.device), plain_attention():
                losses = self._losses(t, number)

                def objective(at: Tensor, losses: Callable[[Tensor], Tensor] = losses) -> tuple[Tensor, Tensor]:
                    values = losses(at)
                    return (shares * values).sum(), values

                def products(u: Tensor, objective: Callable[[Tensor], Any] = objective) -> tuple[Tensor, Tensor]:
                    tangents: tuple[Tensor, Tensor] = torch.func.jvp(
                        torch.func.grad(objective, has_aux=True), (theta,), (u,)
                    )[1]
                    return tangents

                of_hessian, of_gradients = torch.func.vmap(products, randomness="same")(part)
            hessian_products.append(of_hessian)
            gradient_products.append(of_gradients)
        return torch.cat(hessian_products), torch.cat(gradient_products)

    def sum_gradients(self, theta: Tensor, t: int, coefficients: Tensor) -> Tensor:
        """Σᵢ cᵢ ∇ℓᵢ of step t for coefficients c (k, batch): (k, p)."""
        total = theta.new_zeros(len(coefficients), len(theta))
        for number, part in enumerate(self._run.passes(t)):
            with preserve_random_state(theta.device), plain_attention():
                vjp: Callable[[Tensor], tuple[Tensor]] = torch.func.vjp(self._losses(t, number), theta)[1]
                total += torch.func.vmap(lambda c, vjp=vjp: vjp(c)[0])(coefficients[:, part])
        return total

    def _losses(self, t: int, number: int) -> Callable[[Tensor], Tensor]:
        """θ ↦ losses (batch,) of a batch of step t, with the random numbers of the step."""
        batch = self._run.batch(t, number)

        def losses(theta: Tensor) -> Tensor:
            parts = zip(self._names, torch.split(theta, self._sizes), self._shapes, strict=True)
            values: Tensor = torch.func.functional_call(self._whole, {n: v.view(s) for n, v, s in parts}, (batch,))
            return values

        return losses

    def _refuse_changing_buffers(self) -> None:
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
                f"training changes {changed[0]!r}: through the statistics of a batch norm the examples of a batch "
                "depend on each other, and replay does not differentiate these statistics; use another norm "
                "(GroupNorm, LayerNorm), or Influence, which takes the trained net with its statistics as constants"
            )
