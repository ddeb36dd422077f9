"""Assertions of the laws: each raises AssertionError with what was measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
CLOSE = 1e-6  # relative to the largest: what two solvers of one convex problem may differ by


def hold(condition: bool, message: str) -> None:
    """Raise AssertionError with this message where the condition does not hold."""
    if not condition:
        raise AssertionError(message)


def close(values: Any, expected: Any, relative: float, what: str) -> None:
    """Raise AssertionError where values differ from what is expected by more than this share of the largest."""
    values, expected = np.asarray(values, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    hold(values.shape == expected.shape, f"{what}: expected the shape {expected.shape}, got {values.shape}")
    off, scale = float(np.abs(values - expected).max(initial=0.0)), float(np.abs(expected).max(initial=0.0))
    hold(off <= relative * scale, f"{what}: they differ by {off:.3g}, of {scale:.3g} at most; allowed {relative:.1g}")


def same(values: Any, expected: Any, what: str) -> None:
    """Raise AssertionError where two arrays are not equal bit for bit."""
    values, expected = np.asarray(values), np.asarray(expected)
    if not np.array_equal(values, expected):
        alike = values.shape == expected.shape
        off = f"by up to {np.abs(values - expected).max():.3g}" if alike else f"({values.shape}, not {expected.shape})"
        raise AssertionError(f"{what}: they differ {off}")


def refused(
    what: str, kinds: type[Exception] | tuple[type[Exception], ...], words: str, call: Callable[..., Any], *given: Any
) -> None:
    """Raise AssertionError where call(*given) is not refused by an error of this kind with these words (a pattern)."""
    try:
        call(*given)
    except kinds as error:
        hold(re.search(words, str(error)) is not None, f"{what}: expected an error that says {words!r}, got: {error}")
        return
    expected = kinds.__name__ if isinstance(kinds, type) else " or ".join(kind.__name__ for kind in kinds)
    raise AssertionError(f"{what}: expected {expected}, got an answer")
