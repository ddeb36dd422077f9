"""`LabelErrorDisplay`: how many label errors a ranking finds as more examples are inspected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples, Id
from upweight.evaluate.label_errors import Detection, detection_rates
from upweight.report.displays.drawing import FAINT, HARMS, HELPS, NEUTRAL, Display, axes_or_new, by_name, uncluttered

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = ((HELPS, "-"), (HARMS, "--"), (NEUTRAL, "-."), (HELPS, ":"), (HARMS, ":"))
SHARES = tuple(np.linspace(0.01, 1, 100).tolist())


@dataclass(eq=False, kw_only=True)
class LabelErrorDisplay(Display):
    """Recall of planted label errors against the share of the examples that is inspected.

    Attributes:
        detections: name of a ranking → how well it finds the errors.

    Source: Koh & Liang (2017), Fig. 6.
    """

    detections: dict[str, Detection]

    @classmethod
    def from_detections(
        cls, detections: Detection | Mapping[str, Detection], *, ax: Axes | None = None
    ) -> LabelErrorDisplay:
        """Draw a detection, or those of several rankings by name. Raises ValueError for none."""
        return cls(detections=by_name(detections, Detection, "detection")).plot(ax=ax)

    @classmethod
    def from_rankings(
        cls,
        suspicions: Mapping[str, NDArray[np.float64]],
        train: Examples,
        planted: Sequence[Id],
        *,
        ax: Axes | None = None,
    ) -> LabelErrorDisplay:
        """Draw the whole curves of several rankings.

        Args:
            suspicions: name → one number per training example, (n,); the highest are inspected first.
            planted: ids of the examples that are known to be wrong.

        Raises:
            ValueError, KeyError: as `detection_rates` does.
        """
        named = {name: detection_rates(values, train, planted, SHARES) for name, values in suspicions.items()}
        return cls.from_detections(named, ax=ax)

    def plot(self, ax: Axes | None = None) -> LabelErrorDisplay:
        """Draw on these axes, or on those of a new figure, with random order and the best order for comparison."""
        ax = uncluttered(axes_or_new(ax, 5.4, 4.0))
        for number, (name, detection) in enumerate(self.detections.items()):
            colour, style = LINES[number % len(LINES)]
            label = f"{name + ', ' if name else ''}AUC {detection.auc:.3f}"
            ax.plot((0, *detection.shares), (0, *detection.recall), style, color=colour, label=label)
        widest = max(detection.shares[-1] for detection in self.detections.values())
        first = next(iter(self.detections.values()))
        share = first.planted / first.examples
        ax.plot(
            (0, min(share, widest), widest),
            (0, min(1, widest / share), min(1, widest / share)),
            color=FAINT,
            linewidth=0.8,
            label="best order",
        )
        ax.plot((0, widest), (0, widest), ":", color=FAINT, label="random order")
        ax.set(
            xlabel="share of the training examples inspected",
            ylabel="share of the label errors found",
            title=f"{first.planted} label errors in {first.examples:,} examples",
            xlim=(0, widest),
            ylim=(0, 1.03),
        )
        ax.legend(frameon=False, fontsize="small", loc="lower right")
        return self._drawn_on(ax)
