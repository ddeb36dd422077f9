import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import sparse

from upweight.linear.features import ROW_CHUNK, Features

KINDS = {
    "float64": np.asarray,
    "fortran": np.asfortranarray,
    "float32": lambda x: x.astype(np.float32),
    "uint8": lambda x: np.abs(x).astype(np.uint8),
    "bool": lambda x: x > 0,
    "csr": sparse.csr_array,
    "csr32": lambda x: sparse.csr_matrix(x.astype(np.float32)),
    "csc": sparse.csc_matrix,
    "csr8": lambda x: sparse.csr_array(np.abs(x).astype(np.uint8)),
}
INTERCEPTS = [0.0, 1.0, 2.5]
EVERY = pytest.mark.parametrize(("kind", "intercept"), [(k, i) for k in KINDS for i in INTERCEPTS])
numbers = st.integers(-40, 40).map(lambda k: k / 4)
matrices = hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 5)), elements=numbers)


def features_and_dense(x, kind, intercept, **sizes):
    """Features, and the dense matrix that they represent."""
    matrix = KINDS[kind](x)
    body = matrix.toarray() if sparse.issparse(matrix) else matrix
    dense = body.astype(np.float64)
    if intercept:
        dense = np.hstack([dense, np.full((len(dense), 1), intercept)])
    return Features(matrix, intercept, **sizes), dense


def holed(n, columns, seed=0):
    """A matrix with zeros, and every fifth row empty."""
    rng = np.random.default_rng(seed)
    x = 40 * rng.standard_normal((n, columns)) * (rng.random((n, columns)) < 0.5)
    x[::5] = 0.0
    return x


def symmetric(matrix):
    """A symmetric matrix, and the same with what is below its diagonal made useless."""
    whole = np.triu(matrix) + np.triu(matrix, 1).T
    return whole, np.triu(matrix) - 7.0 * np.tril(np.ones_like(matrix), -1)


def forms(dense, matrix):
    return np.einsum("ni,ij,nj->n", dense, matrix, dense)


def equal(result, expected):
    np.testing.assert_allclose(result, expected, rtol=1e-11, atol=1e-11 * max(1.0, np.abs(expected).max(initial=0.0)))


@pytest.mark.sweep(3)
@EVERY
@settings(max_examples=12)
@given(x=matrices, data=st.data())
def test_products_are_those_of_the_dense_matrix(kind, intercept, x, data):
    features, dense = features_and_dense(x, kind, intercept)
    n, width = dense.shape
    v = data.draw(hnp.arrays(np.float64, (width, 2), elements=numbers))
    r = data.draw(hnp.arrays(np.float64, (n, 2), elements=numbers))
    weights = data.draw(hnp.arrays(np.float64, n, elements=numbers))
    equal(features.dense(), dense)
    equal(features.times(v), dense @ v)
    equal(features.transposed_times(r), dense.T @ r)
    equal(features.squares(), (dense**2).sum(axis=1))
    equal(np.tril(features.weighted_gram(weights)), np.tril(dense.T @ (weights[:, None] * dense)))
    matrix = data.draw(hnp.arrays(np.float64, (width, width), elements=numbers))
    whole, upper = symmetric(matrix)
    equal(features.quadratic(upper), forms(dense, whole))


@pytest.mark.parametrize("n", [ROW_CHUNK, 2 * ROW_CHUNK + 7])
@pytest.mark.parametrize("kind", ["float64", "float32", "uint8", "csr", "csc"])
@pytest.mark.parametrize("sign", ["positive", "negative", "mixed", "none"])
def test_many_examples_go_chunk_by_chunk(n, kind, sign):
    features, dense = features_and_dense(holed(n, 4), kind, 1.5)
    rng = np.random.default_rng(1)
    weights = (
        rng.random(n) * {"positive": 1.0, "negative": -1.0, "mixed": rng.choice([-1.0, 1.0], n), "none": 0.0}[sign]
    )
    equal(np.tril(features.weighted_gram(weights)), np.tril(dense.T @ (weights[:, None] * dense)))
    v, r, matrix = rng.standard_normal((5, 3)), rng.standard_normal((n, 3)), rng.standard_normal((5, 5))
    equal(features.times(v), dense @ v)
    equal(features.transposed_times(r), dense.T @ r)
    whole, upper = symmetric(matrix)
    equal(features.quadratic(upper), forms(dense, whole))


@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_the_sparse_gram_matrix_may_have_more_columns_than_a_chunk(intercept):
    features, dense = features_and_dense(holed(12, 8), "csr", intercept, row_chunk=3)
    weights = np.linspace(-1, 2, 12)
    equal(np.tril(features.weighted_gram(weights)), np.tril(dense.T @ (weights[:, None] * dense)))


@pytest.mark.parametrize("pairs", [1, 7, 40])
@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_sparse_quadratic_forms_do_not_depend_on_how_many_pairs_fit_in_memory(pairs, intercept):
    features, dense = features_and_dense(holed(23, 6), "csr", intercept, max_pairs=pairs)
    matrix = np.random.default_rng(2).standard_normal((dense.shape[1],) * 2)
    whole, upper = symmetric(matrix)
    equal(features.quadratic(upper), forms(dense, whole))


@pytest.mark.parametrize("kind", ["float64", "csr"])
def test_the_gram_matrix_takes_weights_of_zero_among_negative_ones(kind):
    features, dense = features_and_dense(holed(6, 3), kind, 1.0)
    weights = np.array([-1.0, 0.0, -2.0, -0.5, -0.0, -1.0])
    equal(np.tril(features.weighted_gram(weights)), np.tril(dense.T @ (weights[:, None] * dense)))


def test_a_sparse_matrix_with_no_entries_is_all_intercept():
    features = Features(sparse.csr_array((4, 3)), 2.0)
    matrix = symmetric(np.arange(16.0).reshape(4, 4))[0]
    equal(features.quadratic(matrix), np.full(4, 4 * matrix[-1, -1]))
    equal(Features(sparse.csr_array((4, 3)), 0.0).quadratic(matrix[:3, :3]), np.zeros(4))


def test_sums_of_squares_do_not_wrap_around_in_small_integers():
    x = np.array([[200, 100], [7, 255]], dtype=np.uint8)
    for given_x in (x, sparse.csr_array(x)):
        equal(Features(given_x, 0.0).squares(), [50000.0, 65074.0])


@pytest.mark.parametrize("kind", KINDS)
def test_taking_rows_keeps_everything_else(kind):
    features, dense = features_and_dense(holed(9, 3), kind, 2.0)
    part = features.take(np.array([7, 1, 1]))
    equal(part.dense(), dense[[7, 1, 1]])
    equal(features.take(slice(2, 5)).dense(), dense[2:5])
    assert len(part) == 3 and len(features) == 9


@pytest.mark.parametrize("penalised", [True, False])
@pytest.mark.parametrize("intercept", INTERCEPTS)
def test_the_regulariser_sees_the_intercept_only_where_told(penalised, intercept):
    features = Features(np.ones((2, 3)), intercept, penalised)
    expected = [1.0, 1.0, 1.0] if not intercept else [1.0, 1.0, 1.0, float(penalised)]
    np.testing.assert_array_equal(features.penalised, expected)
    assert features.width == len(expected)


def test_the_input_is_never_changed():
    x = holed(6, 3)
    before, matrix = x.copy(), np.eye(4)
    features = Features(x, 1.0)
    features.weighted_gram(np.linspace(-1, 1, 6))
    features.quadratic(matrix)
    features.times(np.ones((4, 1)))
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(matrix, np.eye(4))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array])
def test_values_that_are_no_numbers_are_refused(bad, make):
    x = np.ones((3, 2))
    x[1, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinite values; impute"):
        Features(make(x), 1.0)


def test_a_bad_value_far_down_is_found():
    x = np.ones((70_000, 1), dtype=np.float32)
    x[-1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        Features(x, 1.0)


def test_other_shapes_and_kinds_are_refused():
    with pytest.raises(ValueError, match=r"expected features of shape \(n, columns\), got \(3,\)"):
        Features(np.ones(3), 1.0)
    with pytest.raises(ValueError, match=r"expected numeric features, got .*; encode them"):
        Features(np.array([["a"], ["b"]]), 1.0)
