"""Second-order products of one training step, for many vectors at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from upweight.gradients.functional import LossModule, call_with, plain_attention
from upweight.gradients.preserve_model import without_graph
from upweight.training.batch_statistics import BatchStatistics, followed_norms, require_no_synchronised_norm
from upweight.training.initial_network import preserve_buffers, preserve_random_state
from upweight.training.module_modes import copy_modes
from upweight.training.plain_cross_entropy import GatheredLosses
from upweight.training.plain_dropout import PlainDropout
from upweight.training.run import Run

VECTOR_BYTES = 1 << 28  # bytes of the vectors of one pass, and of what the pass stores for them
SAME_LOSS = 1e-2  # difference of losses that rounding explains, in low precision too, relative to their mean
Losses = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


_MISSING = (
    "forward AD",
    "not yet support",
    "is not implemented",
    "NYI",
    "setup_context",  # of an autograd.Function
    "saved tensor hooks",  # of activation checkpointing
    "functorch transform",  # of losses that differentiate inside
    "doesn't have storage",  # of operators that read memory, such as packing of sequences
)  # what torch says of operators that lack a mode


class StepProducts(NamedTuple):
    """Products of a step with vectors u, cotangents c and tangents d of the running statistics, k of each.

    Attributes:
        parameters: H_t u + (∂statistics'/∂θ)ᵀ c, (k, p).
        examples: ⟨∇ℓᵢ, u⟩, (k, batch).
        cotangents: the cotangents of the statistics before the step, (k, b).
        tangents: the tangents of the statistics after the step, if those of θ are u, (k, b).
    """

    parameters: Tensor
    examples: Tensor
    cotangents: Tensor
    tangents: Tensor


class SecondOrderProducts:
    """H_t u and ⟨∇ℓᵢ, u⟩ of the batch of step t, by forward mode over reverse mode (Pearlmutter 1994).

    All vectors share the primal pass: their tangents are one more axis of the same matrix products. In training mode a
    batch norm uses the statistics of the batch, which depend on θ through all of its examples, and its running
    statistics are part of what training determines.

    Args:
        run: the steps.
        vector_bytes: memory for vectors in one pass; more vectors are split.

    Attributes:
        statistics: the running statistics that training changes; None if there are none.

    Raises:
        ValueError: a net whose training changes other buffers; SyncBatchNorm.
    """

    def __init__(self, run: Run, vector_bytes: int = VECTOR_BYTES) -> None:
        self._run, self._vector_bytes, network = run, vector_bytes, run.network
        self._names = [f"net.{name}" for name in network.names]
        norms = followed_norms(network, _changed_buffers(run))
        self.statistics = BatchStatistics(network, norms) if norms else None
        self._whole = LossModule(network if self.statistics is None else self.statistics.network, "loss")
        self._passes_before = [0, *accumulate(len(run.passes(t)) for t in range(run.steps))]
        if run.is_random:
            self._require_same_numbers()

    @property
    def size(self) -> int:
        """How many numbers the running statistics hold."""
        return 0 if self.statistics is None else self.statistics.size

    def __call__(
        self,
        theta: Tensor,
        t: int,
        shares: Tensor,
        vectors: Tensor,
        cotangents: Tensor | None = None,
        tangents: Tensor | None = None,
    ) -> StepProducts:
        """The products for vectors u (k, p) at θ; H_t is that of Σᵢ sharesᵢ ℓᵢ.

        With `cotangents` of the statistics (k, b) after the step it goes backward through the batches of a step, else
        forward with their `tangents`; None is 0.
        """
        none = theta.new_zeros(len(vectors), self.size)
        c, d = (none if given is None else given for given in (cotangents, tangents))
        passes = list(enumerate(self._run.passes(t)))
        parameters, examples = torch.zeros_like(vectors), theta.new_zeros(len(vectors), len(shares))
        for number, part in passes if cotangents is None else reversed(passes):
            products = self._pass_products(theta, (t, number), shares[part], (vectors, c, d))
            parameters = products.parameters if len(passes) == 1 else parameters.add_(products.parameters)
            examples[:, part] = products.examples
            c, d = products.cotangents, products.tangents
        return StepProducts(parameters, examples, c, d)

    def _pass_products(
        self, theta: Tensor, place: tuple[int, int], shares: Tensor, vectors: tuple[Tensor, Tensor, Tensor]
    ) -> StepProducts:
        """The products of one of the batches of a step."""
        count = max(1, self._vector_bytes // (8 * theta.element_size() * len(theta)))
        start, outputs = self._start(), []
        for parts in zip(*(torch.split(v, count) for v in vectors), strict=True):
            with preserve_random_state(theta.device), plain_attention():
                losses = self._losses(*place)

                def slopes(at: Tensor, statistics: Tensor, w: Tensor, c: Tensor, losses: Losses = losses) -> Any:
                    answer: tuple[Any, ...] = torch.func.vjp(losses, at, statistics)
                    (values, after), pull = answer
                    return pull((w.to(values.dtype), c.to(after.dtype))), (values, after)

                def products(u: Tensor, c: Tensor, d: Tensor, slopes: Callable[..., Any] = slopes) -> Any:
                    # The statistics have weights of 0 here; their tangents are the cotangents. An operation with a
                    # constant takes torch as long as a small layer, so the shares have tangents too.
                    at, tangents = (theta, start, shares, torch.zeros_like(start)), (u, d, torch.zeros_like(shares), c)
                    (of_theta, of_statistics), (values, after) = torch.func.jvp(slopes, at, tangents)[1]
                    return of_theta, values, of_statistics, after

                with _require_forward_mode():
                    outputs.append(torch.func.vmap(products, randomness="same")(*parts))
        return StepProducts(*(torch.cat(same) for same in zip(*outputs, strict=True)))

    def sum_gradients(self, theta: Tensor, t: int, coefficients: Tensor) -> Tensor:
        """Σᵢ cᵢ ∇ℓᵢ of step t for coefficients c (k, batch): (k, p)."""
        total, start = theta.new_zeros(len(coefficients), len(theta)), self._start()
        for number, part in enumerate(self._run.passes(t)):
            with preserve_random_state(theta.device), plain_attention(), _require_forward_mode():
                losses = self._losses(t, number)
                vjp: Callable[[Tensor], tuple[Tensor]] = torch.func.vjp(
                    lambda at, losses=losses: losses(at, start)[0], theta
                )[1]
                total += torch.func.vmap(lambda c, vjp=vjp: vjp(c)[0])(coefficients[:, part])
        return total

    def _require_same_numbers(self) -> None:
        """Raise ValueError if the first step draws other random numbers here than in training."""
        network = self._run.network
        theta = torch.cat([p.detach().reshape(-1) for p in network.parameters().values()])
        with preserve_random_state(network.device), plain_attention(), _require_forward_mode():
            with preserve_buffers(network.net):
                trained = self._run.losses(0).detach()
            with preserve_buffers(network.net):
                found: Tensor = torch.func.vjp(self._losses(0, 0), theta, self._start())[0][0]
        difference = float((found - trained).abs().max())
        if difference > SAME_LOSS * float(trained.abs().mean()):
            raise ValueError(
                "expected a net that draws the same random numbers in torch.func as in training, but its losses in the "
                f"first step are other ones (by up to {difference:.2g}): torch draws otherwise there for a layer with "
                "random numbers. Train without it, or use a method that does not go back through the training "
                "(Influence, TracIn) or that retrains (LeaveOneOut)"
            )

    def _start(self) -> Tensor:
        """The running statistics in the run's net, (b,); they matter for norms in eval mode alone."""
        if self.statistics is None:
            return next(iter(self._run.network.parameters().values())).new_zeros(0)
        return self.statistics.read(self._run.network.net)

    def _losses(self, t: int, number: int) -> Losses:
        """(θ, statistics) ↦ (losses (batch,), statistics) of a batch of step t, with the step's random numbers."""
        run, batch = self._run, self._run.batch(t, number)

        def losses(theta: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor]:
            named = dict(zip(self._names, run.split(theta), strict=True))
            if self.statistics is not None:
                self.statistics.start(statistics, self._passes_before[t] + number)
                copy_modes(run.network.net, self.statistics.network.net)
                named |= {f"net.{name}": buffer for name, buffer in run.network.net.named_buffers()}
            with GatheredLosses(), PlainDropout() if run.is_random else nullcontext():
                values: Tensor = call_with(self._whole, named, batch)
            return values, statistics if self.statistics is None else self.statistics.finish()

        return losses


def _changed_buffers(run: Run) -> dict[str, Tensor]:
    """The buffers of the net that a step changes, as they are before it."""
    require_no_synchronised_norm(run.network.net)
    buffers = dict(run.network.net.named_buffers())
    before = {name: b.clone() for name, b in buffers.items()}
    with preserve_random_state(run.network.device):
        without_graph(lambda: run.losses(0))
    changed = {name: b for name, b in before.items() if not torch.equal(buffers[name], b)}
    for name, buffer in changed.items():
        with torch.no_grad():
            buffers[name].copy_(buffer)
    return changed


@contextmanager
def _require_forward_mode() -> Iterator[None]:
    """A context in which an operator that torch cannot differentiate in forward mode is refused by a ValueError."""
    try:
        yield
    except RuntimeError as error:  # NotImplementedError is one of them
        text = str(error)
        if not any(words in text for words in _MISSING):
            raise
        raise ValueError(
            "expected a net and a loss that torch differentiates in forward mode, for many vectors at once, but an "
            f"operator lacks that ({text.splitlines()[0].rstrip('.')}). Write it with other operators, or use a method "
            "that does not go back through the training (Influence, TracIn) or that retrains (LeaveOneOut, Datamodels)"
        ) from error
