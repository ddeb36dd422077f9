"""`StripDisplay`: queries, and beside each the examples that helped and harmed it, for a paper."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from upweight.core.blocks import require_count
from upweight.core.examples import Examples, Id
from upweight.core.preview import Preview
from upweight.core.scores import Attribution, Scores, Unit
from upweight.core.signals import Audio, Series
from upweight.report.displays.drawing import (
    HARMS,
    HELPS,
    NEUTRAL,
    Display,
    example_name,
    pyplot,
    shortened,
    signed,
)
from upweight.report.picture_marks import hex_colour
from upweight.report.pictures import sample_pictures, scale_of, shown_pixels
from upweight.report.wording import cell_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELL_WIDTH, LINE_CHARACTERS, MAX_LINES = 1.7, 24, 9
ROW_HEIGHT = 1.9
DRAWN_SIDE = 320  # pixels of a picture with a mask or boxes
HATCHES = ("", "//", "\\\\", "--", "||")  # as the patterns of masks


@dataclass(eq=False, kw_only=True)
class StripDisplay(Display):
    """One row per query: the query, its proponents, its opponents, as pictures, texts or rows of a table.

    Attributes:
        queries: the ids of the queries, one per row.
        strongest: of each query, its proponents and its opponents, the strongest first.
        previews: side ("query" or "train") and id → what is drawn.
        captions: the same keys → the name of the example.
        scale: pixel values drawn as black and as white, for all pictures; None if they are drawn unchanged.
        has_values: whether scores are effects, and their sizes are written.
    """

    queries: tuple[Id, ...]
    strongest: tuple[tuple[list[Attribution], list[Attribution]], ...]
    previews: dict[tuple[str, Id], Preview]
    captions: dict[tuple[str, Id], str]
    scale: tuple[float, float] | None
    has_values: bool

    @classmethod
    def from_scores(
        cls, scores: Scores, train: Examples, queries: Examples, query_ids: Sequence[Id] | None = None, *, k: int = 3
    ) -> StripDisplay:
        """Draw queries with their k strongest proponents and opponents, by default the first three.

        Raises:
            KeyError: an id that is not among the queries.
            ValueError: k below 1.
        """
        require_count("k", k)
        chosen = scores.query_ids[:3].tolist() if query_ids is None else list(query_ids)
        strongest = tuple((scores.proponents(query, k), scores.opponents(query, k)) for query in chosen)
        shown = [("query", query) for query in chosen]
        shown += [("train", a.id) for sides in strongest for side in sides for a in side]
        of_side = {"train": train, "query": queries}
        display = cls(
            queries=tuple(chosen),
            strongest=strongest,
            previews={(side, i): of_side[side].preview(i) for side, i in shown},
            captions={(side, i): example_name(i, of_side[side]) for side, i in shown},
            scale=scale_of([sample_pictures(train, 300), sample_pictures(queries, 100)]),
            has_values=scores.unit == Unit.EFFECT,
        )
        return display.plot()

    def plot(self) -> StripDisplay:
        """Draw a new figure. `ax_` is the axes of the first query."""
        k = max((len(side) for sides in self.strongest for side in sides), default=1) or 1
        height = ROW_HEIGHT * len(self.queries)
        _, grid = pyplot().subplots(
            len(self.queries),
            1 + 2 * k,
            figsize=(CELL_WIDTH * (1 + 2 * k), height + 0.3),
            squeeze=False,
            layout="constrained",
        )
        for axes, query, (proponents, opponents) in zip(grid, self.queries, self.strongest, strict=True):
            self._draw(axes[0], ("query", query), None, NEUTRAL)
            for place in range(k):
                for offset, side, colour in ((1, proponents, HELPS), (1 + k, opponents, HARMS)):
                    if place < len(side):
                        self._draw(axes[offset + place], ("train", side[place].id), side[place].score, colour)
                    else:
                        axes[offset + place].set_axis_off()
        for column, text in ((0, "query"), (1, "helped"), (1 + k, "harmed")):
            first = grid[0, column]
            first.set_title(f"{text}\n{first.get_title()}", fontsize="small")
        self._draw_legend(grid[0, 0])
        return self._drawn_on(grid[0, 0])

    def _draw(self, ax: Axes, key: tuple[str, Id], score: float | None, colour: str) -> None:
        preview = self.previews[key]
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(color=colour, linewidth=2 if score is not None else 1)
        value = "" if score is None or not self.has_values else f"\n{signed(score)}"
        ax.set_title(f"{shortened(self.captions[key], LINE_CHARACTERS)}{value}", fontsize="small")
        if preview.signal is not None:
            _draw_signal(ax, preview.signal)
            return
        pixels = shown_pixels(preview, self.scale, DRAWN_SIDE) if preview.kind == "image" else None
        if pixels is not None:
            shrunk = "nearest" if preview.marked is None else "antialiased"  # lines of a box stay
            ax.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation=shrunk)
            return
        ax.text(0.04, 0.96, _lines(preview), transform=ax.transAxes, va="top", fontsize="x-small")

    def _draw_legend(self, ax: Axes) -> None:
        """Name the classes that are marked on the pictures."""
        from matplotlib.patches import Patch

        marked = [preview.marked for preview in self.previews.values() if preview.marked is not None]
        names = {label: picture.name_of(label) for picture in marked for label in picture.classes()}
        patches = [
            Patch(facecolor=hex_colour(label), edgecolor="black", hatch=HATCHES[(label - 1) % len(HATCHES)], label=name)
            for label, name in sorted(names.items())
        ]
        if patches and ax.figure is not None:
            ax.figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize="small", frameon=False)


def _draw_signal(ax: Axes, signal: Audio | Series) -> None:
    """The lines of a series or the spectrogram of a recording, each with the ends of its own scale."""
    if isinstance(signal, Series):
        for channel, line in enumerate(signal.lines()):
            style = ("-", "--", ":", "-.")[channel % 4]
            ax.plot(*np.reshape(line, (-1, 2)).T, color=NEUTRAL, linestyle=style, linewidth=1.2)
        ax.set(xlim=(0, 1), ylim=(-0.05, 1.05))
        ax.set_yticks((0, 1), [f"{end:.3g}" for end in signal.scale], fontsize="xx-small")
        return
    ends = (signal.seconds, signal.rate / 2000)
    ax.imshow(signal.picture(), cmap="gray", vmin=0, vmax=255, aspect="auto", extent=(0, ends[0], 0, ends[1]))
    ax.set_xticks((0, ends[0]), ["0", f"{ends[0]:.3g} s"], fontsize="xx-small")
    ax.set_yticks((0, ends[1]), ["0", f"{ends[1]:.3g} kHz"], fontsize="xx-small")


def _lines(preview: Preview) -> str:
    """The text of an example, wrapped to the width of a cell and cut to its height."""
    if preview.kind == "text":
        lines = textwrap.wrap(str(preview.value), LINE_CHARACTERS)
    elif preview.kind == "row":
        lines = [shortened(f"{name} {cell_text(value)}", LINE_CHARACTERS) for name, value in preview.value]
    else:
        lines = [f"array {' × '.join(map(str, np.shape(preview.value)))}"]
    return "\n".join(lines if len(lines) <= MAX_LINES else [*lines[: MAX_LINES - 1], "…"])
