"""IsotonicRegression of scikit-learn: the nearest monotone function, by pooling adjacent violators."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import check_increasing, isotonic_regression

from upweight.linear.losses.squared import SquaredLoss
from upweight.models.sklearn.closed_form_spec import FormSpec
from upweight.models.sklearn.outputs_by_weights import Array, ClosedForm

END = "it alone holds an end of the range, and without it predictions there would be missing; fit with "
END += "out_of_bounds='clip'"


def isotonic(estimator: Any) -> FormSpec:
    """IsotonicRegression."""
    form = partial(
        IsotonicForm,
        increasing=estimator.increasing,
        limits=(estimator.y_min, estimator.y_max),
        is_clipped=estimator.out_of_bounds == "clip",
    )
    return FormSpec(SquaredLoss(1), form)


class _Steps(NamedTuple):
    """The places (b,) in ascending order, and the values there."""

    places: Array
    values: Array


@dataclass(frozen=True, eq=False)
class IsotonicForm(ClosedForm):
    """A monotone function through pooled means, linear between them.

    Attributes:
        increasing: True, False or "auto", as in scikit-learn.
        limits: the smallest and the largest value; None for none.
        is_clipped: whether inputs beyond the ends have the values there, and are not refused.
    """

    increasing: bool | str
    limits: tuple[float | None, float | None]
    is_clipped: bool

    def fitted(self, factors: Array) -> _Steps:
        """The monotone function."""
        present = factors > 0
        x, y = np.ravel(self.x)[present], self.targets[present]
        increasing = check_increasing(x, y) if self.increasing == "auto" else bool(self.increasing)
        weights = (factors * self.weights)[present]
        x, y, weights = (part[weights > 0] for part in (x, y, weights))
        places, group = np.unique(x, return_inverse=True)
        sums = np.bincount(group, weights)
        values = isotonic_regression(
            np.bincount(group, weights * y) / sums,
            sample_weight=sums,
            y_min=self.limits[0],
            y_max=self.limits[1],
            increasing=increasing,
        )
        return _Steps(places, np.asarray(values))

    def outputs(self, fitted: _Steps, x: Any) -> Array:
        """The values at x, (m, 1). Raises ValueError beyond the ends, unless they are clipped."""
        x, (first, last) = np.ravel(x), (fitted.places[0], fitted.places[-1])
        outside = (x < first) | (x > last)
        if outside.any() and not self.is_clipped:
            raise ValueError(
                f"expected inputs from {first:g} to {last:g}, the range of the training rows, got {x[outside][0]:g}, "
                "for which IsotonicRegression predicts nothing; fit it with out_of_bounds='clip'"
            )
        return np.asarray(np.interp(x, fitted.places, fitted.values))[:, None]

    def refusals(self) -> dict[int, str]:
        """Examples that alone hold an end of the range."""
        if self.is_clipped:
            return {}
        x = np.ravel(self.x)
        counted = self.weights > 0
        ends = (x[counted].min(), x[counted].max())
        alone = [np.flatnonzero(counted & (x == end)) for end in ends]
        return {int(rows[0]): END for rows in alone if len(rows) == 1}

    def refusal(self, factors: Array) -> str | None:
        """A reason if an end of the range would be lost; else None."""
        x, before, after = np.ravel(self.x), self.weights > 0, factors * self.weights > 0
        same = x[before].min() == x[after].min() and x[before].max() == x[after].max()
        return None if self.is_clipped or same else END

    def probes(self, positions: NDArray[np.intp]) -> Any:
        """The rows among these that have positive weight."""
        return self.x[positions[self.weights[positions] > 0]]
