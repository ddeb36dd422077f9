"""The response of a trained network to a removal, found by minimising an objective from its own parameters.

Bae, Ng, Lo, Ghassemi & Grosse 2022, "If Influence Functions are the Answer, Then What is the Question?", §4: influence
functions of networks approximate the proximal Bregman response, not retraining.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from torch import Tensor

from upweight.core.blocks import blocks
from upweight.core.examples import Examples
from upweight.core.objective import Objective
from upweight.core.responsive import Response, ResponseTerms, UnboundedError
from upweight.gradients.double_precision import doubled_if_possible, in_double_precision
from upweight.gradients.matrices import flatten_each
from upweight.gradients.network import Network
from upweight.gradients.outputs import Outputs, outputs

Array = NDArray[np.float64]
BATCH_SIZE = 256  # examples of one forward pass
LBFGS_HISTORY = 30  # steps that L-BFGS remembers
RUNAWAY_GRADIENT = 1e6  # relative to the first: there is no minimum that the search approaches
STEPS_OF_A_METRIC = 25  # steps after which the metric is computed anew, at the point that was reached
SMALLEST_RIDGE = 1e-4  # on the diagonal of the metric at least, relative to its largest entry
# The gradient norm at the end of the search, relative to the first: with a metric, without one.
GRADIENT = {True: 1e-7, False: 1e-8}


@dataclass(frozen=True, eq=False)
class _Batch:
    """One batch, and what is known of it at the trained parameters θ₀."""

    batch: Any
    ids: Any
    where: slice
    outputs: Tensor
    losses: Tensor
    gradient: Tensor  # of the losses in the outputs


class NetworkResponses:
    """The training objective of a net near its trained parameters θ₀, on a copy of the net in float64.

    On the scale of the mean loss, W = Σ wᵢ, with l2 the objective's regulariser and r(θ) its share of an example:

        (1/W) Σ wᵢ Dᵢ(θ) + l2/2 ‖θ − θ₀‖² + λ/2 ‖θ − θ₀‖² − (1/W) Σ_removed wᵢ (ℓᵢ(θ) + r(θ))      bregman
        (1/W) Σ wᵢ ℓᵢ(θ) + l2/2 ‖θ‖² + λ/2 ‖θ − θ₀‖² − (1/W) Σ_removed wᵢ (ℓᵢ(θ) + r(θ))           otherwise

    Dᵢ is the Bregman divergence of the loss from the outputs at θ₀: ℓ(f) − ℓ(f₀) − ⟨∇ℓ(f₀), f − f₀⟩.

    Args:
        network, train, weights, objective: of the training.
        matrix: makes a matrix near the Hessian of the mean loss from a network. The search then takes steps in
            coordinates in which this matrix with the regularisers is the identity, so that few suffice; where it
            returns None, in the parameters.

    Raises:
        NoOutputsError: the loss is not a function of one output tensor of the net.
    """

    def __init__(
        self,
        network: Network,
        train: Examples,
        weights: Array,
        objective: Objective,
        matrix: Callable[[Network], Tensor | None] = lambda network: None,
    ) -> None:
        self.network = in_double_precision(network)
        self.weights = torch.as_tensor(weights, dtype=torch.float64, device=self.network.device)
        self.total = float(weights.sum())
        self.l2 = objective.ridge(weights) / self.total
        self.share = self.l2 if objective.reduction == "mean" else 0.0
        self.trained = self.network.vector()
        self._matrix = matrix
        self._latest: tuple[tuple[bytes, float], Array | None] | None = None
        self.start = {name: p.detach().clone() for name, p in self.network.parameters().items()}
        with self.network.preserved():
            self.batches = [self._at_trained(train, where) for where in blocks(len(train), BATCH_SIZE)]

    def _at_trained(self, train: Examples, where: slice) -> _Batch:
        examples = train.take(np.arange(where.start, where.stop))
        batch = self.network.batch(examples)
        outputs_of_batch = outputs(self.network, batch, examples.ids)
        z = outputs_of_batch.values.detach()
        losses = outputs_of_batch.losses(z).detach().double()
        return _Batch(batch, examples.ids, where, z, losses, outputs_of_batch.gradient())

    def minimise(
        self, removed: NDArray[np.intp], terms: ResponseTerms, steps: int, start: Array | None = None
    ) -> Response:
        """Follow L-BFGS from θ₀ + start, for at most this many steps, without these positions.

        Examples without a weight take nothing away: the search is at its end where it starts.

        Raises UnboundedError if the search leaves all bounds: a removed loss can outgrow a proximity that is small.
        """
        remaining = torch.ones_like(self.weights)
        remaining[torch.as_tensor(removed, device=remaining.device)] = 0.0
        shift = np.zeros_like(self.trained) if start is None else start
        if len(removed) and not bool(self.weights[remaining == 0].any()):
            return Response(shift, 0.0)

        def objective(shift: Array) -> tuple[float, Array]:
            return self._value_and_gradient(self.trained + shift, remaining, terms)

        with self.network.preserved(), torch.enable_grad():
            first = root = self._root_at_start(shift, self.l2 + terms.proximity)
            size = remainder = float(np.linalg.norm(_solve(first, objective(shift)[1])))
            end = GRADIENT[root is not None]
            while remainder > 0 and steps > 0:  # the gradient is 0 where an example has no weight
                most = steps if root is None else min(steps, STEPS_OF_A_METRIC)
                shift, slope, taken = _search(objective, shift, root, end * size / remainder, most)
                steps, remainder = steps - most, float(np.linalg.norm(_solve(first, slope)))
                if not remainder < RUNAWAY_GRADIENT * size:
                    raise UnboundedError(f"the gradient grew {remainder / size:.1g} times")
                if taken < most or steps <= 0:
                    break
                root = self._root(shift, self.l2 + terms.proximity)
        return Response(shift, remainder / size if size else 0.0)

    def _root_at_start(self, shift: Array, ridge: float) -> Array | None:
        """The root where a search starts; the last one is kept, as many removals start at one point."""
        key = (shift.tobytes(), ridge)
        if self._latest is None or self._latest[0] != key:
            self._latest = key, self._root(shift, ridge)
        return self._latest[1]

    def _root(self, shift: Array, ridge: float) -> Array | None:
        """L with L Lᵀ = the matrix at θ₀ + shift, and the ridge on its diagonal; None without a matrix."""
        self.network.write(self.trained + shift)
        matrix = self._matrix(self.network)
        if matrix is None:
            return None
        floor = SMALLEST_RIDGE * float(matrix.diagonal().max())
        matrix.diagonal().add_(max(ridge, floor))
        factor, failed = torch.linalg.cholesky_ex(matrix)
        return None if int(failed) else factor.cpu().numpy()

    def _value_and_gradient(self, parameters: Array, remaining: Tensor, terms: ResponseTerms) -> tuple[float, Array]:
        self.network.write(parameters)
        for p in self.network.parameters().values():
            p.grad = torch.zeros_like(p)
        value = self._backward(remaining, terms) + self._regularise(remaining, terms)
        gradient = {name: p.grad[None] for name, p in self.network.parameters().items() if p.grad is not None}
        return value, self.network.join(gradient)[0]

    def _backward(self, remaining: Tensor, terms: ResponseTerms) -> float:
        """Add the gradient of the losses to the parameters' `grad`, and return their value."""
        value = 0.0
        for cached in self.batches:
            current = outputs(self.network, cached.batch, cached.ids)
            losses = current.losses(current.values).double()  # some losses compute in a precision of their own
            weights, share = self.weights[cached.where], remaining[cached.where]
            if terms.bregman:
                total = weights @ _divergences(current, losses, cached) - (weights * (1 - share)) @ losses
            else:
                total = (weights * share) @ losses
            (total / self.total).backward()  # type: ignore[no-untyped-call]
            value += float(total.detach()) / self.total
        return value

    def _regularise(self, remaining: Tensor, terms: ResponseTerms) -> float:
        """Add the gradient of the regularisers to the parameters' `grad`, and return their value."""
        removed_share = self.share * float(self.weights @ (1 - remaining)) / self.total
        to_trained = terms.proximity + (self.l2 if terms.bregman else 0.0)
        to_zero = (0.0 if terms.bregman else self.l2) - removed_share
        value = 0.0
        for name, p in self.network.parameters().items():
            values, start = p.detach(), self.start[name]
            assert p.grad is not None
            p.grad.add_(values - start, alpha=to_trained).add_(values, alpha=to_zero)
            value += to_trained / 2 * float((values - start).square().sum()) + to_zero / 2 * float(
                values.square().sum()
            )
        return value


def _search(
    objective: Callable[[Array], tuple[float, Array]], start: Array, root: Array | None, tolerance: float, steps: int
) -> tuple[Array, Array, int]:
    """Where L-BFGS arrives in the coordinates u, θ = start + L⁻ᵀ u; the gradient in the parameters there; its steps.

    Raises UnboundedError if the values there are not finite.
    """
    value, gradient = objective(start)
    size = float(np.linalg.norm(_solve(root, gradient)))

    def moved(u: Array) -> Array:
        return start + size * _solve(root, u, transposed=True)

    # In units of the first gradient, so that tolerances mean the same for one example and for half of them.
    def scaled(u: Array) -> tuple[float, Array]:
        moved_value, slope = objective(moved(u))
        return (moved_value - value) / size**2, _solve(root, slope) / size

    options = {"maxiter": steps, "maxfun": 3 * steps, "maxcor": LBFGS_HISTORY, "gtol": tolerance, "ftol": 1e-16}
    try:
        minimum = minimize(scaled, np.zeros_like(start), jac=True, method="L-BFGS-B", options=options)
    except ValueError as error:  # the losses at the trained parameters were finite
        raise UnboundedError(str(error)) from error
    gradient = size * minimum.jac
    return moved(minimum.x), gradient if root is None else root @ gradient, int(minimum.nit)


def _solve(root: Array | None, vector: Array, transposed: bool = False) -> Array:
    """L⁻¹ v, or L⁻ᵀ v; v without a root."""
    return vector if root is None else solve_triangular(root, vector, trans=int(transposed), lower=True)


def _divergences(current: Outputs, losses: Tensor, cached: _Batch) -> Tensor:
    change = current.values - cached.outputs
    return losses - cached.losses - _per_example(cached.gradient * change)


def _per_example(values: Tensor) -> Tensor:
    """The sum over all axes but that of the examples, (B,)."""
    return flatten_each(values).sum(1)


def divergences(network: Network, other: Network, examples: Examples) -> tuple[Array, Array]:
    """Per example, the squared distance of the outputs of two nets, and the Bregman divergence of the second's loss.

    The divergence of a cross-entropy is Kullback and Leibler's of the first net's probabilities from the second's. Both
    nets compute in float64 if they can: between near nets, rounding of the losses would be longer than the divergence.
    """
    squares, bregman = [], []
    network, other = (doubled_if_possible(each, "loss", examples) for each in (network, other))
    for where in blocks(len(examples), BATCH_SIZE):
        part = examples.take(np.arange(where.start, where.stop))
        with network.preserved(), other.preserved(), torch.no_grad():
            values = outputs(network, network.batch(part), part.ids).values
            with torch.enable_grad():
                reference = outputs(other, other.batch(part), part.ids)
                gradient = reference.gradient().double()
            start = reference.values.detach()
            z = values.to(start.device, torch.float64)
            if z.shape != start.shape:
                raise ValueError(
                    f"expected nets with outputs of one shape, got {tuple(z.shape)} and {tuple(start.shape)}"
                )
            change = z - start.double()
            losses = reference.losses(z.to(start.dtype)).double() - reference.losses(start).double()
        squares.append(_per_example(change.square()).cpu().numpy())
        bregman.append((losses - _per_example(gradient * change)).cpu().numpy())
    return np.concatenate(squares), np.concatenate(bregman)
