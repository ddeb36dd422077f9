"""Robust z-values: Qn equals its definition over all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from upweight.applications.robust_scale import CONSISTENCY, qn_scale, robust_z

KINDS = ("normal", "heavy", "few values", "even steps", "mostly zero", "huge range")


def values(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    return {
        "normal": rng.normal(size=n),
        "heavy": 1e6 * rng.standard_cauchy(n),
        "few values": rng.integers(0, 4, n).astype(float),
        "even steps": 0.1 * np.arange(n),
        "mostly zero": np.where(rng.random(n) < 0.6, 0.0, rng.normal(size=n)),
        "huge range": np.exp(50 * rng.normal(size=n)),
    }[kind]


def by_all_pairs(x: np.ndarray) -> float:
    half = len(x) // 2 + 1
    distances = np.sort(np.abs(x[:, None] - x)[np.triu_indices(len(x), 1)])
    return CONSISTENCY * float(distances[half * (half - 1) // 2 - 1])


@pytest.mark.parametrize("kind", KINDS)
def test_qn_is_the_order_statistic_of_all_pairs(kind: str) -> None:
    rng = np.random.default_rng(0)
    for n in (*range(2, 30), 101, 256):
        x = values(kind, n, rng)
        assert qn_scale(x) == pytest.approx(by_all_pairs(x), rel=1e-12, abs=0.0), n


def test_qn_of_normal_values_is_their_standard_deviation_and_a_third_of_outliers_hardly_move_it() -> None:
    x = np.random.default_rng(0).normal(size=4000)
    assert qn_scale(3 * x) == pytest.approx(3, rel=0.03)
    x[:1200] = 1e9
    assert qn_scale(x) < 3


def test_z_is_zero_without_spread_and_for_unknown_values() -> None:
    assert robust_z(np.full(20, 3.0)).tolist() == [0.0] * 20
    assert robust_z(np.array([np.nan, 1.0])).tolist() == [0.0, 0.0]
    sparse = np.zeros(100)
    sparse[:10] = np.arange(1, 11)
    z = robust_z(sparse)
    assert z[:10].tolist() == sorted(z[:10]) and z[0] > 0 and not z[10:].any()
    with pytest.raises(ValueError, match="expected at least two values"):
        qn_scale(np.ones(1))
