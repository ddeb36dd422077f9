"""The distance of a solver from its optimum has a warning where it matters beside the effects, not on clean fits."""

from __future__ import annotations

import numpy as np
import pytest

from upweight.core.departure import Departure
from upweight.core.model import Predictions

EFFECT = 1e-4  # the largest score of the query


def departure(difference: float, share: float, within_tolerance: bool) -> Departure:
    """The optimum's probability differs by `difference`, and the measurement by this share of the largest score."""
    own, optimal = (Predictions(("a",), ("a", "b"), np.array([[p, 1.0 - p]])) for p in (0.7, 0.7 - difference))
    relabelled, differences = np.array([False]), np.array([difference])
    return Departure(np.array([0]), own, optimal, relabelled, differences, np.array([share * EFFECT]), within_tolerance)


@pytest.mark.parametrize(
    ("difference", "share", "within_tolerance", "is_told"),
    [
        (6e-4, 3.0, True, False),  # a usual tolerance beside the small effects of very many examples
        (6e-3, 3.0, True, True),
        (6e-3, 0.5, True, False),
        (6e-4, 0.2, False, True),
        (6e-4, 0.05, False, False),
    ],
)
def test_the_distance_to_the_optimum_is_told(
    difference: float, share: float, within_tolerance: bool, is_told: bool
) -> None:
    sentences = departure(difference, share, within_tolerance).warnings(np.array([EFFECT]))
    assert any("The solver stopped so far" in sentence for sentence in sentences) == is_told


def test_there_is_no_warning_about_the_distance_if_the_scores_are_unknown() -> None:
    assert not departure(6e-4, 3.0, within_tolerance=False).warnings(None)
