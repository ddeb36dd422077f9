"""`TrajectoryDisplay`: a query over the training, and when its training examples helped and harmed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.follow import Course
from upweight.core.blocks import require_count
from upweight.core.examples import Id
from upweight.report.displays.drawing import HARMS, HELPS, NEUTRAL, Display, axes_or_new, shortened, uncluttered

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = ("-", "--", "-.", ":")


@dataclass(eq=False, kw_only=True)
class TrajectoryDisplay(Display):
    """The measurement of a query at every checkpoint, and the summed contributions of its strongest examples.

    Attributes:
        steps: (c,) optimiser steps taken before each checkpoint.
        measured: (c,) the measurement of the query.
        ids: the training examples that helped and those that harmed most, the strongest helper first, (k,).
        contributions: (c, k), summed up to each checkpoint.
        title: of the figure.
    """

    steps: NDArray[np.intp]
    measured: NDArray[np.float64]
    ids: NDArray[Any]
    contributions: NDArray[np.float64]
    title: str

    @classmethod
    def from_course(
        cls, course: Course, query: Id | None = None, *, k: int = 3, ax: Axes | None = None
    ) -> TrajectoryDisplay:
        """Draw a query of a course, by default the first, and the k examples that helped and harmed it most.

        Raises:
            KeyError: a query that was not followed.
            ValueError: k below 1.
        """
        require_count("k", k)
        followed = course.query_ids.tolist()
        query = followed[0] if query is None else query
        if query not in followed:
            raise KeyError(f"no query has the id {query!r}; the queries followed are {followed[:5]}")
        row = followed.index(query)
        sums = np.cumsum(course.contributions[:, row].astype(np.float64), axis=0)
        known = np.flatnonzero(np.isfinite(sums).all(axis=0))
        order = known[np.argsort(-sums[-1, known], kind="stable")]
        helped, harmed = order[sums[-1, order] > 0][:k], order[sums[-1, order] < 0][-k:]
        strongest = np.concatenate([helped, harmed])
        display = cls(
            steps=course.steps,
            measured=course.of_queries[:, row],
            ids=course.train_ids[strongest],
            contributions=sums[:, strongest],
            title=f"query {shortened(str(query))} over the training",
        )
        return display.plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> TrajectoryDisplay:
        """Draw on these axes, or on those of a new figure; the measurement has an axis of its own at the right."""
        ax = axes_or_new(ax)
        for number, (identifier, values) in enumerate(zip(self.ids.tolist(), self.contributions.T, strict=True)):
            colour, style = HELPS if values[-1] > 0 else HARMS, STYLES[number % len(STYLES)]
            ax.plot(self.steps, values, style, color=colour, label=shortened(str(identifier)))
        ax.axhline(0, color="black", linewidth=0.8, zorder=0)
        ax.set(xlabel="optimiser steps", ylabel="contributions, summed", title=self.title)
        measured = ax.twinx()
        measured.plot(self.steps, self.measured, color=NEUTRAL, linewidth=2.4, alpha=0.45, label="the query (right)")
        measured.set_ylabel("measurement of the query")
        uncluttered(ax)
        handles = [
            *zip(*ax.get_legend_handles_labels(), strict=True),
            *zip(*measured.get_legend_handles_labels(), strict=True),
        ]
        ax.legend(*zip(*handles, strict=True), frameon=False, fontsize="small")
        return self._drawn_on(ax)
