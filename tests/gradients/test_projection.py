"""Projected rows against the projection written out as a matrix."""

import numpy as np
import pytest

from support.small_nets import CASES, Case
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.projection import Projection


@pytest.mark.sweep(3)
@pytest.mark.parametrize("numbers", [4, 12, 10_000])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rows_are_projected_by_their_factors(case: Case, numbers: int) -> None:
    network = case.network()
    share = network.split(np.random.default_rng(2).standard_normal((1, network.size)))
    rows = CapturedRows(network, case.examples(7), "loss", np.linspace(0.5, 2, 7), {k: b[0] for k, b in share.items()})
    projection = Projection(network, numbers)
    projected, expected = projection.rows(rows), rows.dense() @ projection.matrix()
    assert projected.shape == (7, projection.width)
    np.testing.assert_allclose(projected, expected, atol=1e-10 * np.abs(expected).max())
    if numbers == 10_000:
        np.testing.assert_allclose(projected @ projected.T, rows.gram(), rtol=1e-9)  # nothing was left out


def test_inner_products_are_kept_on_average() -> None:
    network = CASES[0].network()
    rows = CapturedRows(network, CASES[0].examples(4), "loss")
    projected = [Projection(network, 9, seed).rows(rows) for seed in range(400)]
    mean, exact = np.mean([each @ each.T for each in projected], axis=0), rows.gram()
    assert np.abs(mean - exact).max() < 0.15 * np.abs(exact).max()
    np.testing.assert_array_equal(projected[3], Projection(network, 9, 3).rows(rows))
    with pytest.raises(ValueError, match="at least one"):
        Projection(network, 0)
