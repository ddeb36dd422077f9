"""Segments: a training as stretches of constant curvature, each with its exponential (SOURCE, Bae et al. 2024)."""

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
from upweight.curvature.gauss_newton import MAX_DENSE_PARAMETERS
from upweight.curvature.mean_gauss_newton import MeanEKFAC, MeanGaussNewton, Spectrum, diagonalise
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.network import Network
from upweight.gradients.tensor_rows import TensorRows

Array = NDArray[np.float64]
Blocks = Mapping[str, Tensor]


class TrajectoryPoint(Protocol):
    """A checkpoint of a network with the optimiser's metric."""

    @property
    def travelled(self) -> float:
        """As of every checkpoint."""

    @property
    def model(self) -> Callable[[], Any]:
        """Makes the model, which has a `network`."""

    @property
    def optimiser(self) -> Any:
        """The optimiser: `weight_decay` and whether it is `decoupled`."""

    def metric(self, names: tuple[str, ...]) -> dict[str, Tensor] | None:
        """P by parameter; None for the identity."""


def segments(
    moments: Sequence[Any],
    weights: Array,
    train: Examples,
    recipe: CurvatureRecipe | None,
    count: int,
    over: float | None = None,
) -> tuple[FittedSegment, ...]:
    """Consecutive checkpoints in `count` groups as even as possible; recipe None is `GaussNewton()`.

    `over` is the number of examples that the mean loss was taken over; None for those of weight above 0.

    Raises:
        ValueError: fewer checkpoints than segments.
        TypeError: a curvature without an exponential.
    """
    recipe = GaussNewton() if recipe is None else recipe
    if not isinstance(recipe, EKFAC) and recipe != GaussNewton():
        raise TypeError(f"expected curvature GaussNewton() or EKFAC(), which have an exponential here, got {recipe!r}")
    if not 1 <= count <= len(moments):
        raise ValueError(
            f"expected 1 to {len(moments)} segments for a trajectory of {len(moments)} checkpoints, got {count}; "
            "take fewer, or record with a smaller `every`"
        )
    groups = [[moments[place] for place in part] for part in np.array_split(np.arange(len(moments)), count)]
    metrics = _metrics(groups)
    over, counted = float(example_counts(weights).sum()) if over is None else over, np.flatnonzero(weights)
    if len(counted) < len(train):
        train, weights = train.take(counted), weights[counted]
    return tuple(
        FittedSegment(group, metric, weights, train, recipe, over)
        for group, metric in zip(groups, metrics, strict=True)
    )


@final
class FittedSegment(Segment):
    """e^{−τA} and F(A) = (1 − e^{−τA})/A of A = P^½ (G + λ) P^½, G the mean Gauss–Newton matrix of its checkpoints.

    P is the identity for SGD and 1/(√v̂ + ε) for Adam; λ is the weight decay, outside P where it is decoupled.
    """

    def __init__(
        self,
        group: Sequence[Any],
        metric: Blocks | None,
        weights: Array,
        train: Examples,
        recipe: CurvatureRecipe,
        over: float,
    ) -> None:
        self.checkpoints: Sequence[Checkpoint] = list(group)
        networks: list[Network] = [moment.model().network for moment in group]
        self.network = networks[0]
        like = self.network.parameters()[self.network.names[0]].detach().to(self.network.precision)
        self.root = None if metric is None else {name: block.to(like).sqrt() for name, block in metric.items()}
        each = weights / over
        parts = [
            SummedObjective(network, train, each * share, 0.0, 0.0)
            for network, share in zip(networks, segment_shares(self.checkpoints), strict=True)
        ]
        decay = group[0].optimiser.weight_decay
        outside, inside = (decay, 0.0) if group[0].optimiser.decoupled else (0.0, decay)
        self.spectrum: Spectrum
        if isinstance(recipe, EKFAC):
            self.spectrum = MeanEKFAC(parts, self.root, inside, outside, weights)
        else:
            mean_matrix = MeanGaussNewton(parts, self.root, inside, outside)
            self.spectrum = (
                diagonalise(mean_matrix) if mean_matrix.size <= MAX_DENSE_PARAMETERS else ChebyshevSeries(mean_matrix)
            )

    def passed(self, rows: Rows) -> tuple[Rows, Rows]:
        """(response, before)."""
        blocks, tau = TensorRows.of(self.network, rows).blocks, self.travelled
        response, before = self.spectrum.functions(self._times(blocks, 1), [response_to_gradients(tau), decay(tau)])
        return (
            TensorRows(self.network, self._times(response, 1)),
            TensorRows(self.network, self._times(before, -1)),
        )

    @property
    def diagnostics(self) -> dict[str, Any]:
        """What was built."""
        steps = [checkpoint.step for checkpoint in self.checkpoints]
        return {"checkpoints": steps, "travelled": self.travelled, **self.spectrum.diagnostics}

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
    """What each checkpoint weighs in the averages of its segment, summing to 1."""
    travelled = np.array([checkpoint.travelled for checkpoint in checkpoints])
    total = travelled.sum()
    return travelled / total if total > 0 else np.full(len(travelled), 1.0 / len(travelled))


def _metrics(groups: Sequence[Sequence[Any]]) -> list[dict[str, Tensor] | None]:
    """The mean metric of every segment; of the next segment where one has none yet (it ends before the first step)."""
    found: list[dict[str, Tensor] | None] = []
    for group in reversed(groups):
        names = group[0].model().network.names
        known = [(m.metric(names), s) for m, s in zip(group, segment_shares(group), strict=True)]
        if any(metric is None for metric, _ in known):
            return [None] * len(groups)
        mine = [(metric, s) for metric, s in known if metric]
        if not mine:
            found.append(found[-1])
            continue
        missing = [name for name in names if any(name not in metric for metric, _ in mine)]
        if missing:
            raise ValueError(
                f"parameter {missing[0]!r} has no second moments: the optimiser did not train it; freeze what is not "
                "trained with requires_grad_(False)"
            )
        total = sum(s for _, s in mine) or 1.0
        found.append({name: sum(metric[name] * (s / total) for metric, s in mine) for name in names})
    return found[::-1]
