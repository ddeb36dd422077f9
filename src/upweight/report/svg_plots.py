"""Plots as SVG, drawn when the page is written, so that they need no script and can be printed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from upweight.report.wording import MINUS

Array = NDArray[np.float64]
# Narrow, so that letters keep their size on a phone, whose screen is about this wide.
WIDTH, HEIGHT = 380, 320
MAX_INTERVAL_SHARE = 0.5  # of the span of the points, that intervals may add to a plot on either side
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 46
LETTER_WIDTH = 6.4  # mean over letters, to keep labels inside the drawing


@dataclass(frozen=True)
class Dot:
    """One method on the plot of accuracy against cost."""

    name: str
    cost: float
    value: float
    low: float
    high: float
    kind: str


@dataclass(frozen=True)
class Line:
    """One line of a plot; `spread` is half the length of the bar at each point, if known."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    spread: Sequence[float] | None = None


@dataclass(frozen=True)
class Axis:
    """Maps numbers to coordinates of the drawing."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The coordinate of this number."""
        low, high, value = (math.log10(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """About `most` round numbers between the ends."""
        if self.logarithmic:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [10.0**p for p in powers][:: max(1, len(powers) // most)]
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s for s in (power, 2 * power, 5 * power, 10 * power) if s >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def scatter(points: Sequence[dict[str, Any]], labels: tuple[str, str], same_scale: bool, name: str) -> Markup:
    """Predicted (x) against actual (y).

    A point has a `kind` and a `description`. It may have an interval from `low` to `high` on y, and lie `outside` it.
    """
    xs, ys = _span([p["x"] for p in points]), _span([p["y"] for p in points])
    ends = _span([v for p in points for v in (p["y"], p.get("low"), p.get("high"))])
    margin = max(MAX_INTERVAL_SHARE * (span[1] - span[0]) for span in ((xs, ys) if same_scale else (ys,)))
    ys = max(ends[0], ys[0] - margin), min(ends[1], ys[1] + margin)  # longer intervals are cut, to show the points
    if same_scale:
        xs = ys = (min(xs[0], ys[0]), max(xs[1], ys[1]))
    x, y = Axis(*xs, LEFT, WIDTH - RIGHT), Axis(*ys, HEIGHT - BOTTOM, TOP)
    parts = [_axes(x, y, labels)]
    if same_scale:
        parts.append(_line("ideal", x(xs[0]), y(xs[0]), x(xs[1]), y(xs[1])))
    for p in points:
        if p.get("low") is not None:
            low, high = max(p["low"], ys[0]), min(p["high"], ys[1])
            parts.append(_line("likely", x(p["x"]), y(low), x(p["x"]), y(high)))
    for p in points:
        parts.append(_mark(p, x(p["x"]), y(p["y"])))
    return _svg(parts, name)


def against_cost(dots: Sequence[Dot], ceiling: float | None, name: str) -> Markup:
    """LDS with its interval against CPU-seconds on a logarithmic axis, and the noise ceiling."""
    least = max(min(d.cost for d in dots), 1e-3)
    costs = [max(d.cost, least) for d in dots]
    x = Axis(
        10 ** math.floor(math.log10(least)), 10 ** math.ceil(math.log10(max(costs) * 1.01)), LEFT, WIDTH - RIGHT, True
    )
    ends = [v for d in dots for v in (d.low, d.high, d.value) if math.isfinite(v)]
    low, high = min([*ends, 0.0]), max([*ends, 0.0 if ceiling is None else ceiling])
    room = 0.07 * (high - low or 1.0)
    y = Axis(low - room, high + room, HEIGHT - BOTTOM, TOP)
    parts = [_axes(x, y, ("CPU-seconds to fit and to score", "LDS"))]
    if ceiling is not None:
        parts.append(_line("ideal", x.start, y(ceiling), x.end, y(ceiling)))
        parts.append(_text("tick", x.end, y(ceiling) - 5, "end", "noise ceiling"))
    taken: list[tuple[float, float, float]] = []
    for d, cost in sorted(zip(dots, costs, strict=True), key=lambda pair: -pair[0].value):
        at, up = x(cost), y(d.value)
        if math.isfinite(d.low):
            parts.append(_line("likely wide", at, y(d.low), at, y(d.high)))
        description = (
            f"{d.name}: LDS {_number(d.value)} ({_number(d.low)} to {_number(d.high)}), {_number(d.cost)} CPU-seconds"
        )
        parts.append(_mark({"kind": d.kind, "description": description, "big": True}, at, up))
        parts.append(_label(d.name, at, up, taken))
    return _svg(parts, name)


def lines(curves: Sequence[Line], labels: tuple[str, str], name: str) -> Markup:
    """Lines with their names at their ends; points that are not finite are left out."""
    spans = [y + sign * bar for line in curves for y, bar in zip(line.ys, _bars(line), strict=True) for sign in (-1, 1)]
    x = Axis(0.0, 1.04 * max(v for line in curves for v in line.xs), LEFT, WIDTH - RIGHT)
    y = Axis(*_span(spans), HEIGHT - BOTTOM, TOP)
    parts, taken = [_axes(x, y, labels)], list[tuple[float, float, float]]()
    for line in curves:
        points = [
            (x(a), y(b), bar, b) for a, b, bar in zip(line.xs, line.ys, _bars(line), strict=True) if math.isfinite(b)
        ]
        parts += [_line("likely wide", a, y(b - bar), a, y(b + bar)) for a, _, bar, b in points if bar]
        joined = " ".join(f"{a:.1f},{up:.1f}" for a, up, _, _ in [(x(0.0), y(0.0), 0.0, 0.0), *points])
        parts.append(Markup('<polyline class="curve {}" points="{}"/>').format(line.name, joined))
        for (a, up, _, b), removed in zip(points, line.xs, strict=False):
            parts.append(_mark({"kind": line.name, "description": f"{line.name}, {removed:g}: {_number(b)}"}, a, up))
        if points:
            offset = -9 if line.ys[-1] >= 0 else 8  # above a line that rises, below one that falls
            parts.append(_label(line.name, points[-1][0] - 4, points[-1][1] + offset, taken))
    return _svg(parts, name)


def _bars(line: Line) -> list[float]:
    return [0.0] * len(line.ys) if line.spread is None else [v if math.isfinite(v) else 0.0 for v in line.spread]


def _label(name: str, at: float, up: float, taken: list[tuple[float, float, float]]) -> Markup:
    """The name beside its mark, moved down until it overlaps no other name."""
    width = LETTER_WIDTH * len(name) + 4
    right = at + 9 + width <= WIDTH - RIGHT
    start = at + 9 if right else at - 9 - width
    height = up + 4
    while any(abs(height - other) < 14 and start < stop and begin < start + width for begin, stop, other in taken):
        height += 14
    taken.append((start, start + width, height))
    return _text("name", start if right else start + width, height, "start" if right else "end", name)


def _axes(x: Axis, y: Axis, labels: tuple[str, str]) -> Markup:
    parts = []
    for t in x.ticks(4):
        parts.append(_line("zero" if t == 0 else "grid", x(t), y.start, x(t), y.end))
        parts.append(_text("tick", x(t), y.start + 16, "middle", _number(t)))
    for t in y.ticks(5):
        parts.append(_line("zero" if t == 0 else "grid", x.start, y(t), x.end, y(t)))
        parts.append(_text("tick", x.start - 6, y(t) + 4, "end", _number(t)))
    parts.append(_text("axis", (x.start + x.end) / 2, HEIGHT - 8, "middle", labels[0]))
    middle = (y.start + y.end) / 2
    rotated = '<text class="axis" x="13" y="{0:.1f}" text-anchor="middle" transform="rotate(-90 13 {0:.1f})">{1}</text>'
    return Markup("").join([*parts, Markup(rotated).format(middle, labels[1])])


def _mark(point: dict[str, Any], x: float, y: float) -> Markup:
    """A diamond for groups and baselines, a disc for the others; its `description` is shown as a tooltip."""
    style = f"point {point['kind']}" + (" outside" if point.get("outside") else "")
    r = 5.5 if point.get("big") else 3.0
    if point["kind"] in ("group", "baseline"):
        shape = Markup('<path class="{}" d="M{:.1f} {:.1f}l{r} -{r}l{r} {r}l-{r} {r}Z"><title>{}</title></path>')
        return shape.format(style, x - r * 1.2, y, point["description"], r=f"{r * 1.2:.1f}")
    shape = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>')
    return shape.format(style, x, y, r, point["description"])


def _line(style: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(style, x1, y1, x2, y2)


def _text(style: str, x: float, y: float, anchor: str, text: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(style, x, y, anchor, text)


def _svg(parts: Sequence[Markup], name: str) -> Markup:
    body = Markup("").join(parts)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(WIDTH, HEIGHT, name, body)


def _span(values: Sequence[float | None]) -> tuple[float, float]:
    finite = [v for v in values if v is not None and math.isfinite(v)]
    low, high = min([*finite, 0.0]), max([*finite, 0.0])
    room = 0.05 * (high - low or 1.0)
    return low - room, high + room


def _number(value: float) -> str:
    """A tick or a value, to three digits and without trailing zeros."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.3g}".replace("-", MINUS).replace("e+0", "e").replace(f"e{MINUS}0", f"e{MINUS}")
