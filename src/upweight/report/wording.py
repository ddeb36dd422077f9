"""Measurements, units, labels, numbers and settings as the text of a page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from upweight.core.example_columns import is_missing
from upweight.core.scores import Scores, Unit
from upweight.evaluate.verdict import Verdict

MINUS = "−"
UNCONFIRMED = "retraining confirms neither order nor size"
MAX_EXACT_INTEGER = 2**53  # floats, and the numbers of a browser, hold all whole numbers up to it


@dataclass(frozen=True)
class Wording:
    """The parts of a measurement's name, for sentences about it.

    For `−loss (nats)`, `quantity` is `loss`, `sign` is −1 because a higher measurement is a lower loss, and `unit` is
    `nats`. `calibrated`: scores are EFFECT, so that the unit follows their number; RANK scores have no unit.
    `refuted`: retraining says that the scores predict neither sizes nor order.
    """

    measurement: str
    quantity: str
    sign: int
    unit: str
    calibrated: bool
    refuted: bool = False

    @property
    def is_loss(self) -> bool:
        """Whether a positive score means that the loss is lower with the training example."""
        return self.sign < 0


def wording(scores: Scores) -> Wording:
    """The words for these scores."""
    match = re.fullmatch(r"(.*?)\s*\(([^()]*)\)\s*", scores.measurement, flags=re.DOTALL)
    quantity, unit = (match[1], match[2]) if match else (scores.measurement.strip(), "")
    is_loss = quantity.startswith((f"{MINUS}loss", "-loss"))
    calibrated, refuted = scores.unit == Unit.EFFECT, scores.diagnostics.get("verdict") == Verdict.FAILS
    name, sign = (quantity[1:], -1) if is_loss else (quantity, 1)
    return Wording(scores.measurement, name, sign, unit, calibrated, refuted)


def label_text(value: Any) -> str | None:
    """A label as text; 1, 1.0 and np.int64(1) give the same text. None if there is no label."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(str(label_text(part)) for part in value)
    if isinstance(value, float):
        return str(rounded(value)).replace("-", MINUS)
    return str(value)


def regression_text(value: Any) -> str | None:
    """A predicted regression target: four significant digits, and the whole part in full."""
    parts = np.atleast_1d(np.asarray(value))
    if parts.dtype.kind not in "iuf":
        return label_text(value)
    return ", ".join(significant(part, 4) for part in parts.astype(float).ravel().tolist())


def cell_text(value: Any) -> str:
    """A table cell as text: a number as in `rounded`, `missing` for a missing value."""
    if isinstance(value, str):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if is_missing(value):
        return "missing"
    return str(rounded(value)).replace("-", MINUS) if isinstance(value, float) else str(value)


def rounded(value: float) -> float:
    """A value as it is shown: the whole part in full (it may be an id), and six significant digits at least."""
    if not math.isfinite(value):
        return value
    if value.is_integer() and abs(value) <= MAX_EXACT_INTEGER:
        return int(value)
    return round(value, 1) if abs(value) >= 1e5 else float(f"{value:.6g}")


def significant(value: float, digits: int, sign: str = "") -> str:
    """A number to this many significant digits, its whole part in full, with a true minus; `sign` may be `+`."""
    is_long = 10**digits - 0.5 <= abs(value) <= MAX_EXACT_INTEGER
    return f"{value:{sign}{'.0f' if is_long else f'.{digits}g'}}".replace("-", MINUS)


def number(value: Any) -> float | None:
    """A float with six significant digits for JSON; None if it is not finite."""
    value = float(value)
    return float(f"{value:.6g}") if math.isfinite(value) else None


def short(value: Any) -> str:
    """A number with three decimals and a true minus; a dash if there is none."""
    if value is None or not math.isfinite(float(value)):
        return "–"
    return f"{float(value):.3f}".replace("-", MINUS)


def count(amount: int, noun: str) -> str:
    """`1 query`, `1,500 queries`."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{amount:,} {noun if amount == 1 else plural}"


def settings(mapping: Mapping[str, Any], skip: tuple[str, ...] = (), prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings or diagnostics as flat (name, text) lines."""
    for key, value in mapping.items():
        if not prefix and key in skip:
            continue
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from settings(value, prefix=f"{name}.") if value else [(name, "none")]
        elif isinstance(value, np.ndarray) and value.size > 8:
            yield name, f"array of shape {value.shape}"
        elif isinstance(value, list | tuple | np.ndarray):
            yield name, ", ".join(cell_text(part) for part in list(value)) or "none"
        else:
            yield name, "none" if value is None else cell_text(value)
