"""`InfluenceGapDisplay`: why influence and retraining differ, part by part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from upweight.evaluate.influence_gap import PARTS, InfluenceGap
from upweight.report.displays.drawing import FAINT, HARMS, HELPS, Display, axes_or_new, uncluttered

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(eq=False, kw_only=True)
class InfluenceGapDisplay(Display):
    """The five parts of the gap as bars, each with the correlation with retraining up to there.

    Attributes:
        gap: the parts.
    """

    gap: InfluenceGap

    @classmethod
    def from_gap(cls, gap: InfluenceGap, *, ax: Axes | None = None) -> InfluenceGapDisplay:
        """Draw a gap."""
        return cls(gap=gap).plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> InfluenceGapDisplay:
        """Draw on these axes, or on those of a new figure; the largest part has the other colour."""
        ax = uncluttered(axes_or_new(ax, height=3.0))
        distances = self.gap.distances
        colours = [HARMS if part == self.gap.largest else HELPS for part in PARTS]
        ax.barh(PARTS, [distances[part] for part in PARTS], color=colours, height=0.6)
        widest = max(distances.values()) or 1.0
        for place, part in enumerate(PARTS):
            text = f"r = {self.gap.correlations[part]:.2f}"
            ax.text(distances[part] + widest / 60, place, text, va="center", fontsize="small")
        ax.set_xlim(0, 1.15 * widest)
        ax.invert_yaxis()
        ax.grid(axis="x", color=FAINT, linewidth=0.5)
        ax.set_axisbelow(True)
        ax.set(xlabel="mean change of an effect", title="From retraining (top) to the scores, and correlation with it")
        return self._drawn_on(ax)
