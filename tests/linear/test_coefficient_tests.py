"""Tests of coefficients against textbook formulas and refits without each row."""

import numpy as np
import pytest
from scipy.stats import t
from sklearn.linear_model import LinearRegression

import upweight as uw
from upweight.linear.coefficient_tests import coefficient_test, statistics_without_each


@pytest.mark.parametrize("column", ["a", "b", "intercept"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_statistic_and_those_without_each_row_are_those_of_least_squares(column, weighted):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((15, 2))
    y = x @ [0.5, -1] + 0.3 + rng.standard_normal(15)
    w = rng.integers(1, 4, 15).astype(float) if weighted else np.ones(15)
    train = uw.Examples(x, y, names=["a", "b"], weights=w if weighted else None)
    model = uw.explainable(LinearRegression().fit(x, y, w), train, uw.Coefficient(column))
    gradient = model.measure_rows(model.parameter_query()).dense()[0]

    def statistic(rows):
        design = np.c_[x, np.ones(15)][rows]
        inverse = np.linalg.inv(design.T * w[rows] @ design)
        solution = inverse @ design.T @ (w[rows] * y[rows])
        freedom = w[rows].sum() - 3  # whole weights are copies
        variance = w[rows] @ (y[rows] - design @ solution) ** 2 / freedom
        place = {"a": 0, "b": 1, "intercept": 2}[column]
        return solution[place] / np.sqrt(variance * inverse[place, place]), freedom

    test = coefficient_test(model, train, gradient)
    expected, freedom = statistic(np.arange(15))
    assert (test.statistic, test.freedom) == (pytest.approx(expected), freedom)
    assert test.p_value == pytest.approx(2 * t.sf(abs(expected), freedom))
    assert test.critical(0.05) == pytest.approx(t.ppf(0.975, freedom))
    without = [statistic(np.delete(np.arange(15), i))[0] for i in range(15)]
    np.testing.assert_allclose(statistics_without_each(model, train, gradient), without, rtol=1e-9)
