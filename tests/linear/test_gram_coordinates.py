import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics.pairwise import rbf_kernel

from upweight.linear.gram_coordinates import GramCoordinates, inner_product


def inputs(n=12, columns=30, seed=0):
    return np.random.default_rng(seed).standard_normal((n, columns))


def rbf(a, b):
    return rbf_kernel(a, b, gamma=0.05)


CASES = {
    "independent": (inputs(), None, 12),
    "repeated": (np.vstack([inputs(), inputs()[:5]]), None, 12),
    "dependent": (inputs(20, 4) @ inputs(4, 30), None, 4),
    "scaled_up": (1e6 * inputs(), None, 12),
    "scaled_down": (1e-6 * inputs(), None, 12),
    "sparse": (sparse.csr_array(inputs() * (inputs(seed=1) > 0)), None, 12),
    "csc": (sparse.csc_matrix(inputs() * (inputs(seed=1) > 0)), None, 12),
    "coo": (sparse.coo_matrix(inputs() * (inputs(seed=1) > 0)), None, 12),
    "rbf": (inputs(), rbf, 12),
    "rbf_repeated": (np.vstack([inputs(), inputs()[:5]]), rbf, 12),
    "rbf_sparse": (sparse.csr_array(inputs() * (inputs(seed=1) > 0)), rbf, 12),
}


@pytest.mark.parametrize(("x", "kernel", "rank"), CASES.values(), ids=CASES)
def test_coordinates_have_the_same_inner_products(x, kernel, rank):
    coordinates = GramCoordinates(x, kernel)
    gram = (inner_product if kernel is None else kernel)(x, x)
    size = gram.max()
    assert coordinates.features.shape == (x.shape[0], rank)
    np.testing.assert_allclose(coordinates.features @ coordinates.features.T / size, gram / size, atol=1e-9)
    np.testing.assert_allclose(coordinates.transform(x) / size**0.5, coordinates.features / size**0.5, atol=1e-7)


@pytest.mark.parametrize("kernel", [None, rbf])
def test_new_inputs_keep_their_inner_products_with_the_training_inputs(kernel):
    x, new = inputs(), inputs(5, seed=2)
    coordinates = GramCoordinates(x, kernel)
    expected = (inner_product if kernel is None else kernel)(new, x)
    np.testing.assert_allclose(coordinates.transform(new) @ coordinates.features.T, expected, atol=1e-9)


def test_a_linear_model_is_the_same_in_coordinates():
    x, theta = inputs(), inputs(2, seed=3)
    coordinates = GramCoordinates(x)
    in_coordinates = coordinates.solve(x[coordinates.pivots] @ theta.T)
    np.testing.assert_allclose(coordinates.features @ in_coordinates, x @ theta.T, atol=1e-9)


def test_a_matrix_of_zeros_has_no_coordinates():
    assert GramCoordinates(np.zeros((4, 6))).features.shape == (4, 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, bool, np.float32])
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array])
def test_inner_products_do_not_wrap_around_in_small_numbers(dtype, make):
    x = (np.abs(inputs(6, 40)) * 60).clip(0, 120).astype(dtype)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(inner_product(make(x), make(x)), exact @ exact.T, rtol=1e-6)
