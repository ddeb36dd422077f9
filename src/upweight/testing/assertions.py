"""Assertions that the laws use: each raises AssertionError with the values that were measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SOLVER_TOLERANCE = 1e-6  # relative to the largest value: two solvers of one convex problem may differ by this much
DIFFERENCE_STEP = 1e-4  # step of central differences, relative to the quantity that is moved
DIFFERENCE_TOLERANCE = 1e-4  # share of the largest derivative by which central differences may be off


def assert_true(condition: bool, message: str) -> None:
    """Raise AssertionError with this message if the condition does not hold."""
    if not condition:
        raise AssertionError(message)


def assert_close(values: Any, expected: Any, relative: float, what: str) -> None:
    """Raise AssertionError if values differ from the expected ones by more than this share of the largest."""
    values, expected = np.asarray(values, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert_true(values.shape == expected.shape, f"{what}: expected the shape {expected.shape}, got {values.shape}")
    off, scale = float(np.abs(values - expected).max(initial=0.0)), float(np.abs(expected).max(initial=0.0))
    assert_true(
        off <= relative * scale,
        f"{what}: they differ by {off:.3g}, where the largest value is {scale:.3g}; allowed is {relative:.1g} of that",
    )


def assert_identical(values: Any, expected: Any, what: str) -> None:
    """Raise AssertionError if two arrays are not equal bit for bit."""
    values, expected = np.asarray(values), np.asarray(expected)
    if not np.array_equal(values, expected):
        alike = values.shape == expected.shape
        off = f"by up to {np.abs(values - expected).max():.3g}" if alike else f"({values.shape}, not {expected.shape})"
        raise AssertionError(f"{what}: they differ {off}")


def assert_refused(
    what: str,
    errors: type[Exception] | tuple[type[Exception], ...],
    pattern: str,
    call: Callable[..., Any],
    *arguments: Any,
) -> None:
    """Raise AssertionError unless call(*arguments) raises one of these errors with a message that has this pattern."""
    try:
        call(*arguments)
    except errors as error:
        assert_true(
            re.search(pattern, str(error)) is not None, f"{what}: expected an error that says {pattern!r}, got: {error}"
        )
        return
    expected = errors.__name__ if isinstance(errors, type) else " or ".join(error.__name__ for error in errors)
    raise AssertionError(f"{what}: expected {expected}, got an answer")
