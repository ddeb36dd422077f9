"""`RemovalCurveDisplay`: how the measurement changes as more examples are removed, by side and method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from upweight.evaluate.removal_curve import RemovalCurve, Side
from upweight.report.displays.drawing import FAINT, HARMS, HELPS, NEUTRAL, Display, axes_or_new, by_name, uncluttered

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: dict[Side, str] = {"proponents": HELPS, "opponents": HARMS, "random": NEUTRAL}
STYLES = ("-", "--", "-.", ":")


@dataclass(eq=False, kw_only=True)
class RemovalCurveDisplay(Display):
    """Curves of removals, one or several methods.

    Attributes:
        curves: method → its curve; the name is empty if there is only one without a name.
    """

    curves: dict[str, RemovalCurve]

    @classmethod
    def from_curves(
        cls, curves: RemovalCurve | Mapping[str, RemovalCurve], *, ax: Axes | None = None
    ) -> RemovalCurveDisplay:
        """Draw a curve, or those of several methods by name. Raises ValueError for no curve."""
        return cls(curves=by_name(curves, RemovalCurve, "curve")).plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> RemovalCurveDisplay:
        """Draw on these axes, or on those of a new figure: means over queries, ± one deviation of random removals."""
        ax = uncluttered(axes_or_new(ax))
        for number, (name, curve) in enumerate(self.curves.items()):
            for side, colour in COLOURS.items():
                if side == "random" and number:
                    continue  # random removals are those of every method
                mean = curve.mean(side)
                label = side if not name or side == "random" else f"{name}, {side}"
                style = STYLES[number % len(STYLES)]
                ax.plot(curve.sizes, mean, style, color=colour, marker="o", markersize=3, label=label)
                if side == "random":
                    spread = curve.spread.mean(axis=0)
                    ax.fill_between(curve.sizes, mean - spread, mean + spread, color=FAINT, alpha=0.4, linewidth=0)
        ax.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
        ax.set(xlabel="training examples removed", ylabel="effect of the removed examples", title="Removal curves")
        ax.legend(frameon=False, fontsize="small")
        return self._drawn_on(ax)
