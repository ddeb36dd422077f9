"""Cost plot: accuracy against processor seconds, one point per method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

OURS, THEIRS = "#0b6e4f", "#8a8f98"


def draw(points: Sequence[tuple[str, tuple[float, float, float], float]], title: str, path: Path) -> Path:
    """Points (name, (LDS, low, high), seconds); names beside them, moved apart where they would meet."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5.5), dpi=110)
    for name, (lds, low, high), seconds in points:
        ours = name.startswith("upweight ")
        colour = OURS if ours else THEIRS
        axes.errorbar(seconds, lds, [[max(0, lds - low)], [max(0, high - lds)]], color=colour, alpha=0.35, lw=1)
        axes.plot(seconds, lds, "o" if ours else "s", color=colour, ms=7 if ours else 5)
    axes.set_xscale("log")
    left, right = axes.get_xlim()
    axes.set_xlim(left / 1.3, right * 8)  # room for the names
    axes.grid(True, which="major", alpha=0.25)
    axes.set_xlabel("processor seconds, one thread (log)")
    axes.set_ylabel("LDS (mean Spearman per query)")
    axes.set_title(title, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _label(figure, axes, points)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return path


def _label(figure: object, axes: object, points: Sequence[tuple[str, tuple[float, float, float], float]]) -> None:
    """From the top down, each name at its point's height or just below the last name that is near it."""
    at_points = [axes.transData.transform((seconds, lds[0])) for _, lds, seconds in points]  # type: ignore[attr-defined]
    placed = [(x - 6, x + 6, y) for x, y in at_points]  # left, right, height in pixels
    for name, (lds, _, _), seconds in sorted(points, key=lambda p: -p[1][0]):
        x, y = axes.transData.transform((seconds, lds))  # type: ignore[attr-defined]
        text = name.removeprefix("upweight ")
        left, right, height = x + 9, x + 9 + 7.0 * len(text), y
        while any(left < r and right > l and abs(height - h) < 14 for l, r, h in placed):  # noqa: E741
            height -= 2
        placed.append((left, right, height))
        at = axes.transData.inverted().transform((left, height))  # type: ignore[attr-defined]
        ours = name.startswith("upweight ")
        axes.annotate(  # type: ignore[attr-defined]
            text, at, fontsize=8.5, va="center", color=OURS if ours else THEIRS, weight="bold" if ours else "normal"
        )
