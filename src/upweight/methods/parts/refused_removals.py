"""Warnings about training examples without which a model cannot be trained."""

from __future__ import annotations

from collections.abc import Mapping

from upweight.core.examples import Examples

MAX_NAMED = 5  # examples that have a warning of their own


def refusal_warnings(train: Examples, refused: Mapping[int, str]) -> list[str]:
    """A warning for each of the first examples without which the model cannot be trained: position → why."""
    named = [
        f"Example {train.ids[position].item()!r} has no score (NaN), since the model cannot be trained "
        f"without it: {why}"
        for position, why in list(refused.items())[:MAX_NAMED]
    ]
    more = len(refused) - len(named)
    return [*named, f"So do {more:,} more examples; see diagnostics['undefined']."] if more else named
