"""Promises: how well a method agrees with real retraining, and which laws cannot hold for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from upweight.core.laws import Law


@dataclass(frozen=True)
class Promises:
    """What a method guarantees; the laws test it on every model family.

    Attributes:
        correlation: the least Pearson correlation with true leave-one-out effects, over all queries and examples; above
            0. If there is a slope, it applies to answers of unit EFFECT.
        slope: the range of the slope of actual on predicted effects, for answers of unit EFFECT.
        ranking: the least correlation of the same settings on models for which the answers have unit RANK.
        no_floor: why there is no such correlation, in a sentence. Every method states this or `correlation`.
        waives: law (a `Law` or its sentence) → the reason why it cannot hold for this method.

    Raises:
        ValueError: a waiver names no law or gives no reason, a floor is not in (0, 1], or both `correlation` and
            `no_floor` are given.
    """

    correlation: float | None = None
    slope: tuple[float, float] | None = None
    ranking: float | None = None
    waives: Mapping[Law, str] | Mapping[str, str] = field(default_factory=dict)
    no_floor: str = ""

    def __post_init__(self) -> None:
        for law, reason in self.waives.items():
            if law not in tuple(Law):
                raise ValueError(f"expected waives to name laws, got {law!r}; the laws are {', '.join(map(repr, Law))}")
            if not reason:
                raise ValueError(f"expected the reason why the law {str(law)!r} cannot hold, got none")
        for floor in (self.correlation, self.ranking):
            if floor is not None and not 0 < floor <= 1:
                raise ValueError(
                    f"expected a floor of the correlation above 0 and at most 1, got {floor}; a method that promises "
                    "none says why: Promises(no_floor='…')"
                )
        if self.correlation is not None and self.no_floor:
            raise ValueError("expected a floor of the correlation or the reason why there is none, got both")
        if self.correlation is None and (self.slope is not None or self.ranking is not None):
            raise ValueError("expected a floor of the correlation beside what else is promised of it, got none")
