import numpy as np
import pytest

from support.dense_problems import KINDS, problem_of
from upweight.core.rows import DenseRows
from upweight.linear.features import Features
from upweight.linear.rows import FactoredRows

rng = np.random.default_rng(5)


def rows_of(kind="float64", intercept=1.0, shared=False, n=9, outputs=3):
    features = problem_of("squared", kind=kind, intercept=intercept, n=n).features
    slopes = rng.standard_normal((n, outputs))
    if not shared:
        return FactoredRows(features, slopes)
    return FactoredRows(features, slopes, rng.random(n), rng.standard_normal((outputs, features.width)))


EVERY = pytest.mark.parametrize(
    ("kind", "intercept", "shared"), [(k, i, s) for k in KINDS for i in (0.0, 1.0, 2.5) for s in (False, True)]
)


@EVERY
def test_a_row_is_an_outer_product_and_a_share(kind, intercept, shared):
    rows = rows_of(kind, intercept, shared)
    x, dense = rows.features.dense(), rows.dense()
    for i in range(len(rows)):
        expected = np.outer(rows.slopes[i], x[i])
        if shared:
            expected += rows.share[i] * rows.common
        np.testing.assert_allclose(dense[i], expected.ravel(), atol=1e-12)


@EVERY
def test_products_of_rows_are_those_of_the_dense_matrix(kind, intercept, shared):
    rows = rows_of(kind, intercept, shared)
    dense = rows.dense()
    matrix, membership = rng.standard_normal((dense.shape[1], 4)), rng.standard_normal((5, len(rows)))
    np.testing.assert_allclose(rows.project(matrix), dense @ matrix, atol=1e-5 if kind == "float32" else 1e-10)
    np.testing.assert_allclose(rows.sums(membership).dense(), membership @ dense, atol=1e-10)
    places = np.array([7, 0, 0])
    np.testing.assert_allclose(rows.take(places).dense(), dense[places], atol=1e-12)
    np.testing.assert_allclose(rows.take(slice(2, 5)).dense(), dense[2:5], atol=1e-12)


@EVERY
def test_inner_products_of_every_two_kinds(kind, intercept, shared):
    left = rows_of(kind, intercept, shared)
    for right in (rows_of(kind, intercept), rows_of(kind, intercept, True), DenseRows(left.dense()[:4])):
        expected = left.dense() @ right.dense().T
        tolerance = 1e-5 if kind == "float32" else 1e-10
        np.testing.assert_allclose(left.dot(right), expected, atol=tolerance)
        np.testing.assert_allclose(right.dot(left), expected.T, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.uint8, bool])
def test_small_integers_do_not_wrap_around_in_inner_products(dtype):
    features = Features((rng.integers(0, 2, (5, 300)) * 200).astype(dtype), 0.0)
    rows = FactoredRows(features, np.ones((5, 1)))
    np.testing.assert_allclose(rows.dot(rows), rows.dense() @ rows.dense().T)
