"""A training as segments of constant curvature, each with its matrix exponential (SOURCE, Bae et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.checkpoints import Checkpoint, Segment
from upweight.core.curvature_recipes import EKFAC, CurvatureRecipe, GaussNewton
from upweight.core.examples import Examples
from upweight.core.rows import Rows
from upweight.core.weights import example_counts
from upweight.curvature.chebyshev import ChebyshevSeries
from upweight.curvature.limits import DEFAULT_LIMITS, Limits
from upweight.curvature.mean_gauss_newton import MeanEKFAC, MeanGaussNewton, Spectrum, diagonalise
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.network import Network
from upweight.gradients.tensor_rows import TensorRows

Array = NDArray[np.float64]
Blocks = Mapping[str, Tensor]


class TrajectoryPoint(Protocol):
    """A checkpoint of a network together with the optimiser's metric."""

    @property
    def learning_rate_sum(self) -> float:
        """Effective learning rate, as of every `Checkpoint`."""

    @property
    def model(self) -> Callable[[], Any]:
        """Makes the model; the model has a `network`."""

    @property
    def optimiser(self) -> Any:
        """The optimiser's step: the weight decay of each parameter, `decay_of(name)`, and whether it is `decoupled`."""

    def metric(self, names: tuple[str, ...]) -> dict[str, Tensor] | None:
        """The metric P by parameter; None for the identity."""


def segments(
    moments: Sequence[Any],
    weights: Array,
    train: Examples,
    recipe: CurvatureRecipe | None,
    count: int,
    over: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[FittedSegment, ...]:
    """Consecutive checkpoints in `count` groups as even as possible.

    Args:
        moments: the checkpoints, each a `TrajectoryPoint`.
        weights: (n,) sample weights.
        train: the training examples.
        recipe: `EKFAC()` or `GaussNewton()`, which None stands for.
        count: the number of segments.
        over: the number of examples in the mean loss; None for those of weight above 0.
        limits: sizes up to which exact forms are used.

    Raises:
        ValueError: there are fewer checkpoints than segments.
        TypeError: the curvature has no matrix exponential.
    """
    recipe = GaussNewton() if recipe is None else recipe
    if recipe not in (EKFAC(), GaussNewton()):
        raise TypeError(f"expected curvature GaussNewton() or EKFAC(), which have a matrix exponential, got {recipe!r}")
    if not 1 <= count <= len(moments):
        raise ValueError(
            f"expected 1 to {len(moments)} segments for a trajectory of {len(moments)} checkpoints, got {count}; "
            "use fewer segments, or record with a smaller `every`"
        )
    groups = [[moments[i] for i in group] for group in np.array_split(np.arange(len(moments)), count)]
    metrics = _metrics(groups)
    over, counted = float(example_counts(weights).sum()) if over is None else over, np.flatnonzero(weights)
    if len(counted) < len(train):
        train, weights = train.take(counted), weights[counted]
    return tuple(
        FittedSegment(group, metric, weights, train, recipe, over, limits)
        for group, metric in zip(groups, metrics, strict=True)
    )


@final
class FittedSegment(Segment):
    """e^{−τA} and F(A) = (1 − e^{−τA})/A of A = P^½ (G + λ) P^½, G the mean Gauss–Newton matrix of its checkpoints.

    P is the identity for SGD and 1/(√v̂ + ε) for Adam. λ is the weight decay; it lies outside P if it is decoupled.
    """

    def __init__(
        self,
        group: Sequence[Any],
        metric: Blocks | None,
        weights: Array,
        train: Examples,
        recipe: CurvatureRecipe,
        over: float,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.checkpoints: Sequence[Checkpoint] = list(group)
        networks: list[Network] = [moment.model().network for moment in group]
        self.network = networks[0]
        like = self.network.parameters()[self.network.names[0]].detach().to(self.network.precision)
        self.root = None if metric is None else {name: block.to(like).sqrt() for name, block in metric.items()}
        mean_weights = weights / over
        parts = [
            SummedObjective(network, train, mean_weights * share, 0.0, 0.0, limits=limits)
            for network, share in zip(networks, segment_shares(self.checkpoints), strict=True)
        ]
        optimiser = group[0].optimiser
        decays = {name: float(optimiser.decay_of(name)) for name in self.network.names}
        none = dict.fromkeys(decays, 0.0)
        outside, inside = (decays, none) if optimiser.decoupled else (none, decays)
        self.spectrum: Spectrum
        if isinstance(recipe, EKFAC):
            self.spectrum = MeanEKFAC(parts, self.root, inside, outside, weights)
        else:
            mean_matrix = MeanGaussNewton(parts, self.root, inside, outside)
            dense = mean_matrix.size <= limits.dense_parameters
            self.spectrum = diagonalise(mean_matrix) if dense else ChebyshevSeries(mean_matrix)

    def passed(self, rows: Rows) -> tuple[Rows, Rows]:
        """(response, before) of covectors at the end of the segment, as `Segment.passed` defines them."""
        blocks, tau = TensorRows.of(self.network, rows).blocks, self.learning_rate_sum
        response, before = self.spectrum.functions(self._times(blocks, 1), [response_to_gradients(tau), decay(tau)])
        return (
            TensorRows(self.network, self._times(response, 1)),
            TensorRows(self.network, self._times(before, -1)),
        )

    @property
    def diagnostics(self) -> dict[str, Any]:
        """The checkpoints, their effective learning rate, and how the exponential was computed."""
        steps = [checkpoint.step for checkpoint in self.checkpoints]
        return {"checkpoints": steps, "learning_rate_sum": self.learning_rate_sum, **self.spectrum.diagnostics}

    def _times(self, blocks: Blocks, power: int) -> Blocks:
        """P^½ or P^−½ times blocks."""
        if self.root is None:
            return blocks
        return {name: block * self.root[name] ** power for name, block in blocks.items()}


def decay(tau: float) -> Callable[[Array], Array]:
    """σ ↦ e^{−τσ}."""
    return lambda sigma: np.exp(-tau * np.maximum(sigma, 0.0))


def response_to_gradients(tau: float) -> Callable[[Array], Array]:
    """σ ↦ (1 − e^{−τσ})/σ, τ at zero."""

    def function(sigma: Array) -> Array:
        x = tau * np.maximum(sigma, 0.0)
        small = x < 1e-8
        return np.asarray(tau * np.where(small, 1.0 - x / 2, -np.expm1(-x) / np.where(small, 1.0, x)))

    return function


def segment_shares(checkpoints: Sequence[Checkpoint]) -> Array:
    """The weight of each checkpoint in its segment's averages; the weights sum to 1."""
    sums = np.array([checkpoint.learning_rate_sum for checkpoint in checkpoints])
    total = sums.sum()
    return sums / total if total > 0 else np.full(len(sums), 1.0 / len(sums))


def _metrics(groups: Sequence[Sequence[Any]]) -> list[dict[str, Tensor] | None]:
    """The mean metric of every segment; a segment that ends before the first step uses that of the next segment."""
    means: list[dict[str, Tensor] | None] = []
    for group in reversed(groups):
        names = group[0].model().network.names
        shared = [(point.metric(names), share) for point, share in zip(group, segment_shares(group), strict=True)]
        if any(metric is None for metric, _ in shared):
            return [None] * len(groups)
        recorded = [(metric, share) for metric, share in shared if metric]
        if not recorded:
            means.append(means[-1])
            continue
        missing = [name for name in names if any(name not in metric for metric, _ in recorded)]
        if missing:
            raise ValueError(
                f"parameter {missing[0]!r} has no second moments, as the optimiser did not train it; freeze parameters "
                "that are not trained with requires_grad_(False)"
            )
        total = sum(share for _, share in recorded) or 1.0
        means.append({name: sum(metric[name] * (share / total) for metric, share in recorded) for name in names})
    return means[::-1]
