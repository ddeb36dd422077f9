"""A text as HTML: its tokens shaded blue and orange, common spans underlined, parts without strong tokens folded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from upweight.report.effect_tables import signed

if TYPE_CHECKING:
    from markupsafe import Markup

Array = NDArray[np.float64]
LEVELS = 6  # of colour on either side
FAINT = 0.01  # share of the largest score below which a token has no colour
FOLDED_ABOVE = 160  # tokens of a text, above which parts without strong tokens are folded
SHORTEST_FOLD = 40  # tokens
AROUND = 14  # tokens that stay around a strong one, and at both ends
STRONG = 0.25  # share of the text's largest score


@dataclass(frozen=True, eq=False)
class MarkedText:
    """What is shown of a text.

    Attributes:
        tokens: its tokens.
        values: their scores, (L,).
        targets: (L,), which of them the loss is about.
        underlined: (L,), number of the common span that a token belongs to, from 1; 0 for none.
        measured: (L,), tokens of a query that are measured, if these are some only.
    """

    tokens: Sequence[str]
    values: Array
    targets: NDArray[np.bool_]
    underlined: NDArray[np.intp]
    measured: NDArray[np.bool_]

    def html(self, largest: float) -> Markup:
        """The text, with full colour for scores of this size."""
        from markupsafe import Markup

        folded, completion = self._folded(), self._completion()
        parts: list[str] = []
        position = 0
        while position < len(self.tokens):
            end = position
            while end < len(self.tokens) and folded[end] == folded[position]:
                end += 1
            text = self._run(position, end, largest, completion)
            if folded[position]:
                score = float(self.values[position:end].sum())
                total = f", {signed(score)}" if score else ""
                text = (
                    f'<details class="fold"><summary>{end - position} tokens{total}</summary>'
                    f"<span>{text}</span></details>"
                )
            parts.append(text)
            position = end
        return Markup("".join(parts))

    def _run(self, start: int, stop: int, largest: float, completion: int) -> str:
        """The tokens start … stop − 1; neighbours of the same kind share their elements."""
        parts: list[str] = []
        position = start
        while position < stop:
            if position == completion:
                parts.append('<b class="begins" title="the completion begins here">▸</b>')
            end = position + 1
            while end < stop and end != completion and self._outer(end) == self._outer(position):
                end += 1
            inner = "".join(self._token(t, largest) for t in range(position, end))
            span, is_target, is_measured = self._outer(position)
            inner = f'<u data-span="{span}">{inner}</u>' if span else inner
            inner = f"<em>{inner}</em>" if is_measured else inner
            parts.append(inner if is_target else f'<span class="prompt">{inner}</span>')
            position = end
        return "".join(parts)

    def _outer(self, position: int) -> tuple[int, bool, bool]:
        is_target = bool(self.targets[position]) or position < self._completion_start
        return int(self.underlined[position]), is_target, bool(self.measured[position])

    @property
    def _completion_start(self) -> int:
        """1 if only the first token is not a target: that is no prompt, and is not shown as one."""
        return 1 if self._completion() < 0 else 0

    def _completion(self) -> int:
        """Where the completion begins after a prompt; −1 without a prompt."""
        start = int(np.argmax(self.targets)) if self.targets.any() else 0
        return start if start > 1 else -1

    def _token(self, position: int, largest: float) -> str:
        from markupsafe import escape

        value = float(self.values[position])
        text = str(escape(self.tokens[position].replace("\n", "↵\n")))
        level = colour_level(value, largest)
        return (
            text if not level else f'<i class="{"p" if value > 0 else "n"}{level}" title="{signed(value)}">{text}</i>'
        )

    def _folded(self) -> NDArray[np.bool_]:
        """Which tokens are folded: long runs far from what is strong, measured or in common."""
        length = len(self.tokens)
        if length <= FOLDED_ABOVE:
            return np.zeros(length, dtype=bool)
        size = np.abs(self.values)
        marked = self.measured | (self.underlined > 0)
        if size.any():
            marked = marked | (size >= STRONG * size.max())
        marked[0] = marked[-1] = True
        if self._completion() >= 0:
            marked[self._completion()] = True
        near = np.convolve(marked, np.ones(2 * AROUND + 1), mode="same") > 0
        folded, start = ~near, 0
        for end in [*np.flatnonzero(np.diff(folded.astype(int))) + 1, length]:
            if end - start < SHORTEST_FOLD:
                folded[start:end] = False
            start = end
        return folded


def colour_level(value: float, largest: float) -> int:
    """The colour of a score, 0 (none) to 6 (full); by its square root, so that middle ones can be distinguished."""
    if abs(value) < FAINT * largest or not largest:
        return 0
    return min(LEVELS, math.ceil(LEVELS * math.sqrt(abs(value) / largest)))


def level_edge(level: int, largest: float) -> float:
    """The largest score of this colour."""
    return float(largest * (level / LEVELS) ** 2)
