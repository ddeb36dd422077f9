"""The training objective of a generalised linear model on its training set, with derivatives and norms."""

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
    """J(θ; κ) = Σᵢ κᵢ wᵢ ℓ(Xᵢθ, tᵢ) + ½ λ(κ) Σ_ck M_ck θ_c·θ_k with λ(κ) = fixed + each · Σᵢ κᵢ shareᵢ.

    With an l1 there is also the term μ(κ) Σ|θ_j| over the penalised parameters, with μ in the same form as λ.

    κ are weight factors: 1 for every example of the training set, 0 for a removed one. `fixed` is the l2 of an
    objective that sums losses: it stays when an example is removed. `each` is the l2 of an objective that takes their
    mean: every example carries its share of it, so that the minimiser is that of the renormalised mean.

    Attributes:
        features: n × d.
        targets: labels as `family.encode` encodes them.
        weights: (n,) sample weight times class weight, before any removal.
        family: the loss.
        fixed, each: see above.
        theta: (K, d) trained parameters.
        shares: (n,) each example's share of the mean's regulariser; None for its weight.
        l1_fixed, l1_each: the parts of μ, as `fixed` and `each` are those of λ.
        counts: (n,) how many examples each row counts for, 0 if it is absent; None for one each.
    """

    features: Features
    targets: NDArray[Any]
    weights: Array
    family: LinearLoss
    fixed: float
    each: float
    theta: Array
    shares: Array | None = None
    counts: Array | None = None
    l1_fixed: float = 0.0
    l1_each: float = 0.0

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
        """(n,) each example's share of the mean's regulariser."""
        return self.weights if self.shares is None else self.shares

    @property
    def ridge(self) -> float:
        """λ with all examples."""
        return self.fixed + self.each * float(self.carried.sum())

    def ridge_of(self, factors: Array) -> Array:
        """λ under weight factors κ (g, n): (g,)."""
        return np.asarray(self.fixed + self.each * (factors @ self.carried))

    def scaled_weights(self, factors: Array) -> Array:
        """Weights under factors (n,), with λ as it is: a smaller λ is the same as more weight on all examples."""
        ridge = self.ridge
        return np.asarray(factors * self.weights * (ridge / self.ridge_of(factors) if ridge > 0 else 1.0))

    @property
    def has_l1(self) -> bool:
        """Whether there is an l1, so that parameters may be exactly 0."""
        return self.l1_fixed > 0 or self.l1_each > 0

    @property
    def l1(self) -> float:
        """μ with all examples."""
        return self.l1_fixed + self.l1_each * float(self.carried.sum())

    def l1_of(self, factors: Array) -> Array:
        """μ under weight factors κ (g, n): (g,)."""
        return np.asarray(self.l1_fixed + self.l1_each * (factors @ self.carried))

    @property
    def share_gradient(self) -> Array:
        """The gradient of the regulariser that each unit of an example's share carries, (K, d)."""
        gradient = self.each * self.penalty_gradient(self.theta)
        return gradient + self.l1_each * np.sign(self.theta) * self.features.penalised if self.l1_each else gradient

    @cached_property
    def outputs(self) -> Array:
        """X θ at the trained parameters, (n, K)."""
        return self.features.times(self.theta.T)

    @cached_property
    def derivatives(self) -> Derivatives:
        """Derivatives of every training example's loss at the trained parameters."""
        return self.family.at(self.outputs, self.targets)

    def second_derivatives(self, where: slice | NDArray[np.intp]) -> Array:
        """wᵢ Aᵢ, the weighted second derivatives in the outputs of these examples, (b, K, K)."""
        d = self.derivatives
        a = d.diagonal[where][:, :, None] * np.eye(d.diagonal.shape[1])
        if d.outer is not None:
            a -= d.outer[where][:, :, None] * d.outer[where][:, None, :]
        return np.asarray(a * self.weights[where][:, None, None])

    def penalty_gradient(self, theta: Array) -> Array:
        """M θ on the penalised columns: the gradient of the penalty for λ = 1; theta (…, K, d)."""
        if self.fixed == 0 and self.each == 0:
            return np.zeros_like(theta)
        return np.asarray(np.einsum("ck,...kd->...cd", self.family.metric(), theta) * self.features.penalised)

    def gradient(self) -> Array:
        """∇J at the trained parameters, (K, d): zero at the optimum; with an l1, the shortest subgradient."""
        slopes = self.weights[:, None] * self.derivatives.gradient
        data = self.features.transposed_times(slopes).T
        smooth = data + self.ridge * self.penalty_gradient(self.theta)
        return shortest_subgradient(smooth, self.theta, self.l1 * self.features.penalised) if self.has_l1 else smooth

    @cached_property
    def noise(self) -> float:
        """√Σ‖gᵢ‖²: the root mean square of ‖Σ ±gᵢ‖ if the gradients gᵢ had random signs."""
        slopes = (self.derivatives.gradient**2).sum(axis=1) * self.weights**2
        return max(float(np.sqrt((slopes * self.features.squares()).sum())), 1e-300)

    @cached_property
    def noise_of_copies(self) -> float:
        """`noise` if a row that counts for k examples is k gradients, each with a random sign."""
        if self.counts is None:
            return self.noise
        slopes = (self.derivatives.gradient**2).sum(axis=1) * self.weights**2 / np.maximum(self.counts, 1.0)
        return max(float(np.sqrt((slopes * self.features.squares()).sum())), 1e-300)

    def mean_of(self, numbers: Array) -> Array:
        """Mean of numbers (…, n) over the examples; each row counts as often as `counts` says."""
        return np.asarray(numbers.mean(axis=-1) if self.counts is None else numbers @ self.counts / self.counts.sum())

    @cached_property
    def scale(self) -> float:
        """`noise` if the residuals were as large as the targets (1 for labels): the scale to compare `noise` with."""
        targets = np.asarray(self.targets, dtype=np.float64)[self.weights > 0]
        size = max(float(np.sqrt(np.mean(targets**2))), 1e-300) if self.family.classes is None else 1.0
        return size * float(np.sqrt((self.weights**2 * self.features.squares()).sum()))

    @cached_property
    def off_optimum(self) -> float:
        """‖∇J‖ relative to `noise`: 0 at the optimum, about 1 for a model that was fitted on other data.

        A row is one gradient here, however large its weight, so that the unit of the weights does not matter.
        """
        return float(np.linalg.norm(self.gradient())) / self.noise

    @property
    def gradient_norm(self) -> float:
        """‖∇J‖ relative to `noise_of_copies`, as reported to users."""
        return self.off_optimum * self.noise / self.noise_of_copies

    def dispersion(self, effective: float) -> float:
        """Pearson's estimate Σ wᵢ(yᵢ − μᵢ)²/V(μᵢ) / (n − p) with p = `effective` parameters.

        For a squared loss it is the residual sum of squares over n − p. n is the number of examples that the rows count
        for. If weights are not all whole they are precisions, and every row of positive weight counts once (weighted
        least squares).
        """
        n = float(len(self.weights) if self.counts is None else self.counts.sum())
        if self.family.is_quadratic:
            squares = 2.0 * float(self.weights @ self.derivatives.loss)
        else:
            expected = self.family.expected().at(self.outputs, self.targets)
            squares = float(self.weights @ (expected.gradient**2 / expected.diagonal).sum(axis=1))
        return max(squares / max(n - effective, 1.0), 1e-300)


def shortest_subgradient(smooth: Array, theta: Array, l1: Array) -> Array:
    """The shortest subgradient of f + Σ l1ⱼ|θⱼ| from ∇f, in the shape of θ: 0 if θ is the minimum.

    Args:
        smooth: ∇f.
        theta: θ.
        l1: the l1 of every parameter, broadcast to their shape.
    """
    at_zero = np.sign(smooth) * np.maximum(np.abs(smooth) - l1, 0.0)
    return np.where(theta != 0, smooth + np.sign(theta) * l1, at_zero)
