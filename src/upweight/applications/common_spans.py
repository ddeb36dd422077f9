"""The longest spans of tokens that two texts have in common, word for word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEAST_CHARACTERS = 8  # letters and digits of a span
LEAST_TOKENS = 3
MAX_SPANS = 12  # spans of two texts


class CommonSpan(NamedTuple):
    """A span that stands in both texts: where it starts in each, and its length in tokens."""

    first: int
    second: int
    length: int


def common_spans(first: Sequence[str], second: Sequence[str]) -> list[CommonSpan]:
    """The longest common spans of two texts, at most 12, longest first; they do not overlap in the second text.

    Spans of one or two tokens, or of fewer than 8 letters and digits, are left out. Cost: len(first) · len(second).
    """
    numbers = {token: number for number, token in enumerate(dict.fromkeys([*first, *second]))}
    a, b = (np.array([numbers[token] for token in text], dtype=np.intp) for text in (first, second))
    runs = np.zeros((len(a) + 1, len(b) + 1), dtype=np.intp)  # length of the common span that ends there
    for i, token in enumerate(a):
        runs[i + 1, 1:] = np.where(b == token, runs[i, :-1] + 1, 0)
    ends = runs[1:, 1:] >= LEAST_TOKENS
    ends[:-1, :-1] &= runs[2:, 2:] == 0  # the longest only
    rows, columns = np.nonzero(ends)
    lengths = runs[rows + 1, columns + 1]
    free, spans = np.ones(len(b), dtype=bool), []
    for place in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[place])
        start = int(columns[place]) - length + 1
        inside = slice(start, start + length)
        if free[inside].all() and _characters(second[inside]) >= LEAST_CHARACTERS:
            free[inside] = False
            spans.append(CommonSpan(int(rows[place]) - length + 1, start, length))
        if len(spans) == MAX_SPANS:
            break
    return spans


def _characters(tokens: Sequence[str]) -> int:
    return sum(character.isalnum() for token in tokens for character in token)
