"""Adversarial queries: predictions that flip when every number of a query moves by the same small amount."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from upweight.core.capability_checks import require
from upweight.core.examples import Examples, Id
from upweight.core.input_attributions import InputAttributable
from upweight.core.model import Measurable
from upweight.core.tabular import Tabular

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AdversarialQueries(Tabular):
    """Queries before and after one signed step against their labels.

    Attributes:
        queries, moved: before and after; `moved` keeps ids and labels.
        predicted: (before, after), one entry per query each.
        measured: the measurement before and after, (2, queries).
        radius: how far every number moved.
        measurement: in words.
        diagnostics: `warnings`.
    """

    _table: ClassVar = "queries"
    _examples: ClassVar = {"id": "queries"}
    queries: Examples
    moved: Examples
    predicted: tuple[tuple[Any, ...], tuple[Any, ...]]
    measured: Array
    radius: float
    measurement: str
    diagnostics: Mapping[str, Any]

    @property
    def flipped(self) -> list[Id]:
        """The ids of the queries whose prediction changed."""
        pairs = zip(self.queries.ids.tolist(), *self.predicted, strict=True)
        return [identifier for identifier, before, after in pairs if before != after]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = zip(self.queries.ids.tolist(), *self.predicted, *self.measured.tolist(), strict=True)
        return {
            "radius": self.radius,
            "measurement": self.measurement,
            "flipped": self.flipped,
            "queries": [
                {"id": i, "before": {"predicted": p, "measured": m}, "after": {"predicted": q, "measured": n}}
                for i, p, q, m, n in rows
            ],
            "warnings": list(self.diagnostics["warnings"]),
        }

    def __repr__(self) -> str:
        return (
            f"AdversarialQueries({len(self.flipped)} of {len(self.queries)} predictions flipped, every number moved by "
            f"{self.radius:g})"
        )


def fgsm(
    model: Measurable,
    queries: Examples,
    radius: float,
    *,
    low: float | None = None,
    high: float | None = None,
    towards: Any = None,
) -> AdversarialQueries:
    """Move every number of the queries by `radius` in the direction that raises their loss (Goodfellow et al. 2015).

    x′ = x + radius · sign(∂loss/∂x), by captum (extra `captum`). `uw.attack` moves training examples instead.

    Args:
        model: a `TorchModel` whose batches have real numbers as `x`.
        queries: with labels.
        radius: the size of the move, in the unit of the inputs: .007 in the paper, for pixels from 0 to 1.
        low, high: the inputs are cut to these after the move; None for no bound.
        towards: a label; moves go down the loss of this label instead, for all queries.

    Raises:
        TypeError: another model, or inputs that are not real numbers.
        ValueError: a radius that is not above 0, low above high, queries without labels, or inputs that are made by
            `collate`, into which a move cannot be put back.
        ImportError: captum is not installed.
    """
    require(model, [InputAttributable], "fgsm", queries)
    assert isinstance(model, InputAttributable)
    if not (math.isfinite(radius) and radius > 0):
        raise ValueError(f"expected a radius above 0, got {radius}")
    bounds = (-math.inf if low is None else low, math.inf if high is None else high)
    if not bounds[0] <= bounds[1]:
        raise ValueError(f"expected low ≤ high, got {low} and {high}")
    if queries.y is None:
        raise ValueError("expected queries with labels, which the moves go against; pass Examples(x, y)")
    aimed = queries if towards is None else queries.replaced(y=[_raw(queries, towards)] * len(queries))
    values = model.signed_step(aimed, radius, bounds, towards is not None)
    if np.shape(values) != np.shape(queries.x):
        raise ValueError(
            f"expected inputs that the net receives as they are, {np.shape(queries.x)}, got {np.shape(values)}: "
            "`collate` changes them, so that a move cannot be put back"
        )
    moved = queries.replaced(x=values, shown=None)
    still = int((np.abs(values - np.asarray(queries.x)).reshape(len(queries), -1).max(axis=1) == 0).sum())
    warnings = [f"{still} of {len(queries)} queries did not move: the gradient of their loss is 0."] if still else []
    return AdversarialQueries(
        queries=queries,
        moved=moved,
        predicted=(model.predict(queries).predicted, model.predict(moved).predicted),
        measured=np.stack([model.measure(queries), model.measure(moved)]),
        radius=radius,
        measurement=model.measurement,
        diagnostics={"warnings": warnings},
    )


def _raw(queries: Examples, label: Any) -> Any:
    """The label as the examples hold it."""
    return {name: raw for raw, name in queries.labels.items()}.get(label, label)
