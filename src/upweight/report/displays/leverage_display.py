"""`LeverageDisplay`: residuals against leverage, with Cook's distance, as R's `plot.lm` draws it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Fitted
from upweight.core.blocks import require_count
from upweight.core.examples import Examples
from upweight.methods.influence import Influence
from upweight.methods.parts.deletion_diagnostics import DeletionDiagnostics
from upweight.models.registry import explainable
from upweight.report.displays.drawing import FAINT, HARMS, HELPS, Display, axes_or_new, example_name, uncluttered

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
CONTOURS = (0.5, 1.0)  # of Cook's distance, those of R


@dataclass(eq=False, kw_only=True)
class LeverageDisplay(Display):
    """Leverage, standardised residual and Cook's distance of every training example of a regression.

    Attributes:
        ids: the training examples, (n,).
        leverage, residuals, cooks_distance: `hat_diag`, `standard_resid` and `cooks_d` of `summary_frame`, each (n,).
        parameters: the sum of the leverages, the p of Cook's distance.
        names: what the named points are called, (n,).

    Source: Cook (1977); Belsley, Kuh & Welsch (1980).
    """

    ids: NDArray[Any]
    leverage: Array
    residuals: Array
    cooks_distance: Array
    parameters: float
    names: tuple[str, ...]

    @classmethod
    def from_fitted(cls, fitted: Fitted[Any, Any], *, k: int = 3, ax: Axes | None = None) -> LeverageDisplay:
        """Draw the examples of a fitted `Influence` on a linear model with one output, and name k of them.

        These are the k of largest Cook's distance.

        Raises:
            TypeError: no linear model, a loss that is not a likelihood, or several outputs.
            ValueError: k below 0.
        """
        require_count("k", k, least=0)
        if not isinstance(fitted, DeletionDiagnostics):
            raise TypeError(f"expected Influence fitted on a linear model, got {type(fitted).__name__}")
        table = fitted.summary_frame()
        if "standard_resid" not in table:
            raise TypeError(
                "expected a model with one output, got one with several, which have no single residual; "
                "cooks_distance() and leverage() of the fitted method answer for it"
            )
        leverage = table["hat_diag"].to_numpy(np.float64)
        display = cls(
            ids=fitted.train.ids,
            leverage=leverage,
            residuals=table["standard_resid"].to_numpy(np.float64),
            cooks_distance=table["cooks_d"].to_numpy(np.float64),
            parameters=float(leverage.sum()),
            names=tuple(example_name(identifier, None) for identifier in fitted.train.ids.tolist()),
        )
        return display.plot(ax=ax, k=k)

    @classmethod
    def from_estimator(cls, estimator: Any, train: Examples, *, k: int = 3, ax: Axes | None = None) -> LeverageDisplay:
        """Draw the training examples of a fitted linear regression or a generalised linear model.

        Raises:
            TypeError, ValueError: as `explainable` and `from_fitted` do.
        """
        return cls.from_fitted(Influence().fit(explainable(estimator, train), train), k=k, ax=ax)

    def plot(self, ax: Axes | None = None, k: int = 3) -> LeverageDisplay:
        """Draw on these axes, or on those of a new figure, and name the k examples of largest Cook's distance."""
        ax = uncluttered(axes_or_new(ax))
        is_known = np.isfinite(self.residuals) & np.isfinite(self.cooks_distance)
        order = np.flatnonzero(is_known)[np.argsort(-self.cooks_distance[is_known], kind="stable")]
        strongest, others = order[:k], order[k:]
        ax.scatter(self.leverage[others], self.residuals[others], s=14, color=HELPS, alpha=0.6, linewidth=0)
        ax.scatter(self.leverage[strongest], self.residuals[strongest], s=34, color=HARMS, edgecolor="black", zorder=3)
        for position in strongest.tolist():
            at = (self.leverage[position], self.residuals[position])
            ax.annotate(self.names[position], at, xytext=(5, 4), textcoords="offset points", fontsize="small")
        ax.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
        self._draw_contours(ax)
        ax.set(xlabel="leverage", ylabel="standardised residual", title="Residuals, leverage and Cook's distance")
        missing = len(self.ids) - int(is_known.sum())
        if missing:
            note = f"{missing} of leverage 1 or weight 0 not shown"
            ax.text(0.99, 0.01, note, transform=ax.transAxes, ha="right", va="bottom", fontsize="small")
        return self._drawn_on(ax)

    def _draw_contours(self, ax: Axes) -> None:
        """Where Cook's distance r² h / (p (1 − h)) is .5 and 1, within the range of the points."""
        (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
        h = np.linspace(max(right, 1e-9) / 400, min(right, 1 - 1e-9), 400)
        for level in CONTOURS:
            r = np.sqrt(level * self.parameters * (1 - h) / h)
            for sign in (1, -1):
                ax.plot(h, sign * r, color="black", linewidth=0.8, linestyle="--")
            inside = np.flatnonzero((r < high) | (-r > low))
            if len(inside):
                sign = 1 if r[inside[-1]] < high else -1
                ax.annotate(f"{level:g}", (h[-1], sign * r[-1]), fontsize="small", ha="left", va="center")
        ax.set(xlim=(left, right), ylim=(low, high))
