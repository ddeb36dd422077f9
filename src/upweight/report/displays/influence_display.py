"""`InfluenceDisplay`: the training examples that helped and harmed a query most, as bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor
from upweight.core.blocks import require_count
from upweight.core.examples import Examples, Id
from upweight.core.model import Measurable
from upweight.core.scores import Scores, Unit
from upweight.methods.registry import first_choice
from upweight.models.registry import explainable
from upweight.report.displays.drawing import (
    HARMS,
    HELPS,
    Display,
    axes_or_new,
    effect_axis,
    example_name,
    shortened,
    signed,
    uncluttered,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(eq=False, kw_only=True)
class InfluenceDisplay(Display):
    """The strongest training examples of a query, in the convention of scikit-learn's displays.

    Attributes:
        ids: the training examples, the strongest proponent first and the strongest opponent last, (k,).
        effects: their scores, (k,).
        names: what stands beside the bars: ids, with labels where they are known.
        title, axis: the texts of the figure.
    """

    ids: NDArray[Any]
    effects: NDArray[np.float64]
    names: tuple[str, ...]
    title: str
    axis: str

    @classmethod
    def from_scores(
        cls,
        scores: Scores,
        query: Id | None = None,
        *,
        train: Examples | None = None,
        queries: Examples | None = None,
        k: int = 5,
        ax: Axes | None = None,
    ) -> InfluenceDisplay:
        """Draw the k strongest proponents and opponents of a query; by default of the first one.

        Args:
            train, queries: the examples, for their labels.

        Raises:
            KeyError: no query of this id.
            ValueError: k below 1.
        """
        require_count("k", k)
        query = scores.query_ids[0].item() if query is None else query
        strongest = [*scores.proponents(query, k), *reversed(scores.opponents(query, k))]
        predicted = ""
        if scores.predictions is not None:
            place = scores.query_ids.tolist().index(query)
            predicted = f", predicted {shortened(str(scores.predictions.predicted[place]))}"
        display = cls(
            ids=np.array([attribution.id for attribution in strongest]),
            effects=np.array([attribution.score for attribution in strongest]),
            names=tuple(example_name(attribution.id, train) for attribution in strongest),
            title=f"query {example_name(query, queries)}{predicted}",
            axis=effect_axis(scores),
        )
        return display.plot(ax=ax, values=scores.unit == Unit.EFFECT)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        train: Examples,
        queries: Examples,
        query: Id | None = None,
        *,
        recipe: Attributor | None = None,
        k: int = 5,
        ax: Axes | None = None,
    ) -> InfluenceDisplay:
        """Draw the strongest training examples of a query of a fitted estimator.

        Args:
            estimator: a fitted estimator, or a model that is explainable already.
            train: what it was fitted on.
            recipe: the method; None for the one that suits the model.

        Raises:
            TypeError, ValueError: as `explainable` and the method do.
        """
        model = estimator if isinstance(estimator, Measurable) else explainable(estimator, train)
        chosen = queries.select([queries.ids[0].item() if query is None else query])
        scores = (recipe or first_choice(model, train)).fit(model, train).attribute(chosen)
        return cls.from_scores(scores, train=train, queries=queries, k=k, ax=ax)

    def plot(self, ax: Axes | None = None, values: bool = True) -> InfluenceDisplay:
        """Draw on these axes, or on those of a new figure.

        Args:
            values: whether the effects are written at the bars.
        """
        height = 1.1 + 0.3 * max(2, len(self.ids))
        ax = uncluttered(axes_or_new(ax, height=height))
        colours = [HELPS if effect > 0 else HARMS for effect in self.effects]
        hatches = ["" if effect > 0 else "//" for effect in self.effects]
        rows = np.arange(len(self.ids))
        ax.barh(rows, self.effects, color=colours, hatch=hatches, edgecolor="white", linewidth=0, height=0.7)
        ax.axvline(0, color="black", linewidth=0.8)
        if values:
            for row, effect in zip(rows.tolist(), self.effects.tolist(), strict=True):
                ax.annotate(
                    signed(effect),
                    (effect, row),
                    xytext=(3 if effect > 0 else -3, 0),
                    textcoords="offset points",
                    ha="left" if effect > 0 else "right",
                    va="center",
                    fontsize="small",
                )
        ax.margins(x=0.18)
        ax.set_yticks(rows, self.names)
        ax.invert_yaxis()
        ax.set(title=self.title, xlabel=self.axis)
        if not len(self.ids):
            ax.text(0.5, 0.5, "all scores are 0", transform=ax.transAxes, ha="center")
        return self._drawn_on(ax)
