"""The curvature of ν-support vector machines, which choose their margin or their tube together with the parameters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from upweight.linear.kink_curvature import KinkCurvature
from upweight.linear.kink_intercepts import Intercepts
from upweight.linear.kink_path import KinkPath, PathError
from upweight.linear.losses.loss import Kinks
from upweight.linear.losses.nu import NuEpsilonLoss, NuHingeLoss

Array = NDArray[np.float64]
SMALLEST_MARGIN = 1e-9  # margin below which the classes are not separated


class NuCurvature(KinkCurvature):
    """H + λ of the smoothed loss at the margin, or the tube, of the fit; removals also follow it to its new width.

    The examples on either side (the two classes, or those above and below the tube) have an intercept each, which is
    the common one plus or minus the width, and forces that sum to half of ν times all weights.
    """

    @property
    def fixed_without_steps(self) -> str:
        """The width, and the kinks."""
        return f"the width that ν chooses is held fixed, and {super().fixed_without_steps}"


class NuHingeCurvature(NuCurvature):
    """ν-classification: forces of ±α and intercepts b ∓ ρ, where ρ is the margin."""

    def _path(self, c: int, gram: Array) -> KinkPath:
        problem, family = self.problem, self.problem.family
        assert isinstance(family, NuHingeLoss)
        margin, targets = problem.ridge * float(family.metric()[c, c]), problem.targets[:, c]
        sides = np.stack([targets > 0, targets < 0]).astype(np.float64)
        kinks = Kinks(np.zeros((len(targets), 1)), family.kinks(targets).forces)
        outputs = margin * (problem.outputs[:, c] - targets)
        intercepts = Intercepts(sides, family.nu / 2.0 * np.array([1.0, -1.0]))
        return KinkPath(problem.ridge * gram, kinks, intercepts, outputs, self._used(c) * problem.weights)

    def _parameters(self, forces: Array, intercepts: Array) -> Array:
        features, margin = self.problem.features, float(intercepts[1] - intercepts[0]) / 2.0
        if margin <= SMALLEST_MARGIN:
            raise PathError("there is no margin between the classes")
        theta = self._penalised_features.T @ forces / margin
        theta[-1] = intercepts.mean() / margin / features.intercept
        return np.asarray(theta)


class NuTubeCurvature(NuCurvature):
    """ν-regression: every example has a force from above and one from below, and intercepts are b ± ε."""

    rows_per_example = 2

    def _path(self, c: int, gram: Array) -> KinkPath:
        problem, family = self.problem, self.problem.family
        assert isinstance(family, NuEpsilonLoss)
        targets, n = problem.targets[:, c], len(problem.weights)
        forces = np.repeat([[1.0, 0.0], [0.0, -1.0]], n, axis=0)
        intercepts = Intercepts(np.repeat(np.eye(2), n, axis=1), family.nu / 4.0 * np.array([1.0, -1.0]))
        width = np.repeat([family.epsilon, -family.epsilon], n)
        outputs, weights = np.tile(problem.outputs[:, c], 2) + width, np.tile(problem.weights, 2)
        return KinkPath(
            np.tile(gram, (2, 2)), Kinks(np.tile(targets, 2)[:, None], forces), intercepts, outputs, weights
        )

    def _end(self, c: int, path: KinkPath, weights: Array) -> Array:
        return self._parameters(*path.to(np.tile(weights, 2)))

    def _parameters(self, forces: Array, intercepts: Array) -> Array:
        return super()._parameters(forces.reshape(2, -1).sum(axis=0), intercepts.mean(keepdims=True))
