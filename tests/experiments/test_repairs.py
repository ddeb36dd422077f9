"""Labels that are flipped and repaired in the order of a suspicion."""

import numpy as np
from experiments.examples import repairs


def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    return y[:, None] + 0.3 * rng.normal(size=(200, 2)), y


def test_the_share_of_the_labels_is_flipped():
    _, y = data()
    assert (repairs.flipped(y, 0.4, 1) != y).sum() == 80


def test_a_suspicion_that_knows_the_flips_repairs_them_first():
    x, y = data()
    wrong = repairs.flipped(y, 0.4, 1)
    accuracy, fixed = repairs.curve(x, y, wrong, (wrong != y).astype(float), (0.2, 0.4), 0.006, (x, y))
    np.testing.assert_allclose(fixed, [0.5, 1.0])
    assert accuracy[1] > 0.98


def test_neighbours_of_other_labels_are_those_of_a_flipped_label():
    x, y = data()
    wrong = repairs.flipped(y, 0.1, 1)
    share = repairs.neighbours_of_other_labels(x, wrong)
    assert share[wrong != y].mean() > 0.7 and share[wrong == y].mean() < 0.3
