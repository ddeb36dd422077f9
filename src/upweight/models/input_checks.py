"""Checks that inputs fit an estimator: its pipeline takes them, and they have the columns that it was fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def transform(steps: Any, x: Any) -> Any:
    """The inputs after the steps of a fitted pipeline. Raises ValueError if a step cannot take them."""
    try:
        return steps.transform(x)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the pipeline cannot take these inputs ({error}); pass what goes into its first step, as to fit()"
        ) from error


def require_column_names(expected: Sequence[str], given: Sequence[str]) -> None:
    """Raise ValueError if a table has other columns than the one of the fit, or another order of them."""
    if tuple(given) != tuple(expected):
        raise ValueError(
            f"expected the columns {list(expected)[:8]} in this order, as in fit(), got {list(given)[:8]}; reorder them"
        )


def require_column_count(shape: Sequence[int], expected: int | None) -> None:
    """Raise ValueError if inputs are not a table with as many columns as in the fit; None allows any number."""
    if len(shape) != 2 or (expected is not None and shape[1] != expected):
        columns = "columns" if expected is None else f"{expected} columns"
        raise ValueError(
            f"expected inputs with {columns}, as the model was fitted on, got shape {tuple(shape)}; pass the inputs in "
            "the form in which they went into fit()"
        )
