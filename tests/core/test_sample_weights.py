"""What sample weights mean where examples are counted, and where nothing of weight above 0 is left."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

import upweight as uw
from upweight.core.weights import checked_weights, example_counts, require_part, sample_weights, weighted_positions


def examples(weights=None, n=6):
    rng = np.random.default_rng(0)
    return uw.Examples(rng.normal(size=(n, 2)), rng.normal(size=n), weights=weights)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1, 1, 1], [1, 1, 1]),
        ([0, 3, 10], [0, 3, 10]),
        ([0, 0.5, 2], [0, 1, 1]),  # how much a loss counts, not how often it was seen
        ([1e-3, 0, 1e-3], [1, 0, 1]),
    ],
)
def test_whole_weights_are_counts_and_others_are_not(weights, expected):
    assert example_counts(np.array(weights, dtype=float)).tolist() == expected


def test_those_present_weigh_something():
    assert weighted_positions(examples()).tolist() == list(range(6))
    assert weighted_positions(examples([0, 1, 0, 2, 0.5, 0])).tolist() == [1, 3, 4]


def test_a_part_may_weigh_nothing_and_is_refused_where_it_is_trained_on():
    train = examples([0] * 3 + [1] * 9, n=12)
    nothing = train.take([0, 1])
    assert sample_weights(nothing).tolist() == [0, 0] and nothing.select(nothing.ids[:1]).weights.tolist() == [0]
    assert [part.weights.sum() for part in train.batches(3)] == [0, 3, 3, 3]
    fitted = LinearRegression().fit(train.x, train.y, train.weights)
    model = uw.explainable(fitted, train)
    for attempt in (
        lambda: uw.explainable(fitted, nothing),
        lambda: uw.Influence().fit(model, nothing),
        lambda: uw.GradDot().fit(model, nothing),
    ):
        with pytest.raises(ValueError, match="not all zero, got 2 of weight 0"):
            attempt()


def test_weights_that_leave_only_absent_examples_are_refused():
    train = examples([0, 0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match="nothing would be left"):
        checked_weights(train, [1, 1, 1, 0, 0, 0])
    for positions, expected in (([], 0), ([3, 4, 5], 3), ([0, 3, 4, 5], 4)):
        with pytest.raises(ValueError, match=f"group 'g' to be some of the 3 training examples, got {expected}"):
            require_part(train, "g", np.array(positions, dtype=int))
    require_part(train, "g", np.array([0, 3]))
