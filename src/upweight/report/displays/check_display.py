"""`CheckDisplay`: predicted against actual effects, with intervals and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from upweight.core.scores import Unit
from upweight.evaluate.verification import Check
from upweight.report.displays.drawing import FAINT, HARMS, HELPS, Display, axes_or_new, uncluttered
from upweight.report.verification import headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]


@dataclass(eq=False, kw_only=True)
class CheckDisplay(Display):
    """Predicted and actual effects of the removals that a check retrained.

    Attributes:
        predicted, actual: the effects, both (queries, removals).
        low, high: intervals around the predicted effects, (queries, removals), each from the other half of the
            removals; None for RANK scores.
        is_single: whether a removal is that of one example, (removals,).
        verdict, numbers: the sentence and the numbers that stand over the figure.
        axis: the measurement.
    """

    predicted: Array
    actual: Array
    low: Array | None
    high: Array | None
    is_single: NDArray[np.bool_]
    verdict: str
    numbers: str
    axis: str

    @classmethod
    def from_check(cls, check: Check, *, level: float = 0.9, ax: Axes | None = None) -> CheckDisplay:
        """Draw a check.

        Args:
            level: of the intervals, between 0 and 1.

        Raises ValueError for a level outside (0, 1).
        """
        is_effect = check.scores.unit == Unit.EFFECT
        coverage = check.coverage(level=level) if is_effect else None
        display = cls(
            predicted=check.predicted,
            actual=check.actual,
            low=None if coverage is None else coverage.low,
            high=None if coverage is None else coverage.high,
            is_single=np.array([removal.kind == "one" for removal in check.removals], dtype=bool),
            verdict=headline(check, check.scores),
            numbers=str(check.of()),
            axis=check.scores.measurement if is_effect else f"{check.scores.measurement} (sign and order only)",
        )
        return display.plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> CheckDisplay:
        """Draw on these axes, or on those of a new figure."""
        ax = uncluttered(axes_or_new(ax, 5.4, 4.8))
        for is_single, marker, colour, name in ((True, "o", HELPS, "single examples"), (False, "D", HARMS, "groups")):
            columns = np.flatnonzero(self.is_single == is_single)
            if not len(columns):
                continue
            predicted, actual = self.predicted[:, columns].ravel(), self.actual[:, columns].ravel()
            if self.low is not None and self.high is not None:
                low, high = self.low[:, columns].ravel(), self.high[:, columns].ravel()
                ax.vlines(predicted, low, high, color=FAINT, linewidth=0.8, zorder=1)
            ax.scatter(
                predicted,
                actual,
                s=20,
                marker=marker,
                color=colour,
                edgecolor="white",
                linewidth=0.4,
                label=name,
                zorder=2,
            )
        if self.low is not None:
            ends = np.concatenate([self.predicted.ravel(), self.actual.ravel()])
            ends = ends[np.isfinite(ends)]
            if len(ends):
                ax.axline((0, 0), slope=1, color="black", linewidth=0.8, linestyle="--", zorder=0, label="as predicted")
        ax.set(xlabel=f"predicted effect on {self.axis}", ylabel="actual effect, by retraining")
        ax.set_title(f"{self.verdict}\n{self.numbers}", fontsize="medium", wrap=True)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(frameon=False, fontsize="small")
        return self._drawn_on(ax)
