"""The check of a setting that is one of a few words, or a number."""

from __future__ import annotations

from typing import Any

import numpy as np


def require_choice(name: str, value: Any, *choices: str) -> None:
    """Raise ValueError if the value is none of these."""
    if value not in choices:
        *others, last = (f'"{choice}"' for choice in choices)
        raise ValueError(f"expected {name}={', '.join(others)} or {last}, got {value!r}")


def require_auto_or_number(name: str, value: Any) -> None:
    """Raise ValueError if the value is neither "auto" nor a finite number ≥ 0."""
    if value != "auto" and not (isinstance(value, int | float) and 0 <= value < np.inf):
        raise ValueError(f'expected {name}="auto" or a number ≥ 0, got {value!r}')
