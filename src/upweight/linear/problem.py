"""Problem: the training objective of a generalised linear model, ready to be differentiated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.linear.features import Features
from upweight.linear.losses.loss import Derivatives, LinearLoss

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Problem:
    """J(θ; κ) = Σᵢ κᵢ wᵢ ℓ(Xᵢθ, tᵢ) + ½ λ(κ) Σ_ck M_ck θ_c·θ_k, λ(κ) = fixed + each · Σᵢ κᵢ shareᵢ; κ = 1 at first.

    `fixed` is the l2 of an objective that sums losses: it stays when an example goes. `each` is the l2 of one that
    takes their mean: every example carries its share, so that the minimiser is that of the renormalised mean.

    Attributes:
        features: n × d.
        targets: what `family.encode` made of the labels.
        weights: (n,) sample weight times class weight, before any removal.
        theta: (K, d) trained parameters.
        shares: (n,) how much of the mean's regulariser each example carries; None for its weight.
        copies: (n,) how many examples each row counts for, 0 where it is absent; None for one each.
    """

    features: Features
    targets: NDArray[Any]
    weights: Array
    family: LinearLoss
    fixed: float
    each: float
    theta: Array
    shares: Array | None = None
    copies: Array | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(K, d)."""
        return self.family.outputs, self.features.width

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.family.outputs * self.features.width

    @property
    def carried(self) -> Array:
        """(n,) share of the mean's regulariser that goes with each example."""
        return self.weights if self.shares is None else self.shares

    @property
    def ridge(self) -> float:
        """λ with all examples there."""
        return self.fixed + self.each * float(self.carried.sum())

    def ridge_of(self, kept: Array) -> Array:
        """λ when these multiples of the examples are there, kept (g, n): (g,)."""
        return np.asarray(self.fixed + self.each * (kept @ self.carried))

    @cached_property
    def outputs(self) -> Array:
        """X θ at the trained parameters, (n, K)."""
        return self.features.times(self.theta.T)

    @cached_property
    def derivatives(self) -> Derivatives:
        """Of every training example's loss at the trained parameters."""
        return self.family.at(self.outputs, self.targets)

    def penalty_gradient(self, theta: Array) -> Array:
        """M θ on the penalised columns, for one λ = 1; theta (…, K, d)."""
        if self.fixed == 0 and self.each == 0:
            return np.zeros_like(theta)
        return np.asarray(np.einsum("ck,...kd->...cd", self.family.metric(), theta) * self.features.penalised)

    def gradient(self) -> Array:
        """∇J at the trained parameters, (K, d): zero where the model is at its optimum."""
        slopes = self.weights[:, None] * self.derivatives.gradient
        data = self.features.transposed_times(slopes).T
        return data + self.ridge * self.penalty_gradient(self.theta)

    @cached_property
    def noise(self) -> float:
        """√Σ‖gᵢ‖²: the gradient that the examples would leave if their signs were random."""
        slopes = (self.derivatives.gradient**2).sum(axis=1) * self.weights**2
        return max(float(np.sqrt((slopes * self.features.squares()).sum())), 1e-300)

    @cached_property
    def noise_of_copies(self) -> float:
        """`noise` where a row that counts for several examples is several gradients with signs of their own."""
        if self.copies is None:
            return self.noise
        slopes = (self.derivatives.gradient**2).sum(axis=1) * self.weights**2 / np.maximum(self.copies, 1.0)
        return max(float(np.sqrt((slopes * self.features.squares()).sum())), 1e-300)

    def mean_of(self, numbers: Array) -> Array:
        """Mean over the examples, rows counted as often as they stand for one, of numbers (…, n)."""
        return np.asarray(numbers.mean(axis=-1) if self.copies is None else numbers @ self.copies / self.copies.sum())

    @cached_property
    def scale(self) -> float:
        """`noise` of residuals as large as the targets (1 for labels): what residuals are small or large against."""
        targets = np.asarray(self.targets, dtype=np.float64)[self.weights > 0]
        size = max(float(np.sqrt(np.mean(targets**2))), 1e-300) if self.family.classes is None else 1.0
        return size * float(np.sqrt((self.weights**2 * self.features.squares()).sum()))

    @cached_property
    def off_optimum(self) -> float:
        """‖∇J‖ relative to `noise`: 0 at the optimum, about 1 for a model that was fitted on other data.

        However large its weight, a row is one gradient here: what is refused as other data does not depend on the
        unit of the weights.
        """
        return float(np.linalg.norm(self.gradient())) / self.noise

    @property
    def gradient_norm(self) -> float:
        """The same relative to `noise_of_copies`, as it is reported."""
        return self.off_optimum * self.noise / self.noise_of_copies
