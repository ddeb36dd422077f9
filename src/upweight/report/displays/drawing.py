"""What all displays share: axes, colours that print and that the colour-blind distinguish, and texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from upweight.core.examples import Examples, Id
from upweight.core.scores import Scores, Unit
from upweight.report.wording import MINUS, label_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Blue and orange of Okabe & Ito (2008). They differ in lightness, so that greyscale keeps them apart.
HELPS, HARMS, NEUTRAL, FAINT = "#0072B2", "#E69F00", "#4D4D4D", "#BDBDBD"
LABEL_CHARACTERS = 34
T = TypeVar("T")


@dataclass(eq=False, kw_only=True)
class Display:
    """A figure that keeps what it shows, in the convention of scikit-learn's displays.

    Attributes:
        ax_, figure_: what `plot` drew on last, of matplotlib's `Axes` and `Figure`.
    """

    ax_: Any = field(init=False, repr=False)
    figure_: Any = field(init=False, repr=False)

    def _drawn_on(self, ax: Axes) -> Self:
        self.ax_, self.figure_ = ax, ax.figure
        return self


def axes_or_new(ax: Axes | None, width: float = 6.4, height: float = 4.0) -> Axes:
    """The axes themselves, or those of a new figure of this size in inches.

    Raises ModuleNotFoundError, with what to install, where matplotlib is missing.
    """
    if ax is not None:
        return ax
    drawn = pyplot().subplots(figsize=(width, height), layout="constrained")[1]
    return cast("Axes", drawn)


def pyplot() -> Any:
    """matplotlib.pyplot, imported when the first figure is drawn."""
    try:
        from matplotlib import pyplot as plt
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "figures need matplotlib, which is not installed; run pip install 'upweight[plots]'"
        ) from error
    return plt


def by_name(drawn: Any, kind: type[T], noun: str) -> dict[str, T]:
    """What is drawn, by name; one alone has an empty name. Raises ValueError for none."""
    named = {"": drawn} if isinstance(drawn, kind) else dict(drawn)
    if not named:
        raise ValueError(f"expected at least one {noun}, got none")
    return named


def uncluttered(ax: Axes) -> Axes:
    """Axes without a box, so that the data have the ink."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def example_name(identifier: Id, examples: Examples | None) -> str:
    """The id of an example, and its label where it has one."""
    label = None if examples is None or examples.y is None else label_text(examples.label(identifier))
    return shortened(f"{identifier}" if label is None else f"{identifier} ({label})")


def shortened(text: str, characters: int = LABEL_CHARACTERS) -> str:
    """The text on one line, cut at this length."""
    line = " ".join(text.split())
    return line if len(line) <= characters else f"{line[: characters - 1]}…"


def effect_axis(scores: Scores) -> str:
    """The title of an axis of scores: what they measure, or that they only order."""
    if scores.unit == Unit.EFFECT:
        return f"effect on {scores.measurement}"
    return f"score for {scores.measurement} (sign and order only)"


def signed(value: float) -> str:
    """A number with its sign, three significant digits."""
    return f"{value:+.3g}".replace("-", MINUS)
