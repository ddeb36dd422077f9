"""The solver that eliminates rare columns first, against dense matrices in float64."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from support.dense_problems import CONVEX, blocks_of, gradients, hessian, problem_of
from upweight.linear import column_elimination, row_pairs, selected_inverse, sparse_cholesky
from upweight.linear.column_elimination import EliminatedMatrix
from upweight.linear.features import Features
from upweight.linear.problem import Problem
from upweight.linear.selected_inverse import SelectedInverse
from upweight.linear.solver_choice import solver_for
from upweight.linear.sparse_cholesky import SparseCholesky, is_eliminable

EVERY = pytest.mark.parametrize("name", CONVEX)


@pytest.fixture(autouse=True)
def cheap_elimination(monkeypatch):
    """Eliminate although the matrices of tests are small."""
    monkeypatch.setattr(column_elimination, "NUMBER_COST", 3.0)


def words(n=70, columns=40, seed=0):
    """Texts of five words each, of which the first are frequent; values of both signs, as some sums cancel."""
    rng = np.random.default_rng(seed)
    frequency = 1.0 / np.arange(1, columns + 1)
    x = np.zeros((n, columns))
    for row in x:
        chosen = rng.choice(columns, 5, replace=False, p=frequency / frequency.sum())
        row[chosen] = rng.choice([-1.0, 1.0, 2.0], 5)
    return x


def word_problem(name, *, intercept=1.0, fixed=0.7, x=None, seed=0):
    x = words(seed=seed) if x is None else x
    drawn = problem_of(name, n=len(x), fixed=fixed, seed=seed)
    features = Features(sparse.csr_matrix(x), intercept)
    theta = 0.3 * np.random.default_rng(seed).standard_normal((drawn.family.outputs, features.width))
    weights = drawn.weights.copy()
    weights[::7], weights[3::7] = 0.0, 3.0
    return Problem(features, drawn.targets, weights, drawn.family, fixed, 0.0, theta)


def through(problem, matrix, v):
    return (v.reshape(len(v), -1) @ matrix.T).reshape(v.shape)


def leverages_of(solver, *pieces):
    return np.concatenate(list(solver.leverages(pieces)))


@pytest.mark.sweep(3)
@EVERY
@pytest.mark.parametrize("damping", [0.0, 2.0])
@pytest.mark.parametrize("intercept", [0.0, 2.0])
def test_a_solve_is_the_dense_inverse(name, damping, intercept):
    problem = word_problem(name, intercept=intercept)
    solver = SparseCholesky(problem, damping)
    assert all(len(factor.levels) > 1 and len(factor.core) < problem.size for factor in solver.factors)
    v = np.random.default_rng(9).standard_normal((3, *problem.shape))
    inverse = np.linalg.inv(hessian(problem) + damping * np.eye(problem.size))
    np.testing.assert_allclose(solver.solve(v), through(problem, inverse, v), atol=1e-10)
    np.testing.assert_allclose(solver.matvec(solver.solve(v)), v, atol=1e-10)


@pytest.mark.sweep(3)
@EVERY
@pytest.mark.parametrize("intercept", [0.0, 2.0])
def test_leverages_are_quadratic_forms_of_the_dense_inverse(name, intercept):
    problem = word_problem(name, intercept=intercept)
    wide = blocks_of(problem)
    expected = np.einsum("ncp,pq,nkq->nck", wide, np.linalg.inv(hessian(problem)), wide, optimize=True)
    solver = SparseCholesky(problem, 0.0)
    v = np.random.default_rng(9).standard_normal((2, *problem.shape))
    before = solver.solve(v)
    s = leverages_of(solver, slice(0, 30), slice(30, 70))
    if s.ndim == 2:
        expected = np.einsum("ncc->nc", expected)
    np.testing.assert_allclose(s, expected, atol=1e-10)
    np.testing.assert_array_equal(solver.solve(v), before)
    np.testing.assert_array_equal(leverages_of(solver, slice(0, 70)), s)


@pytest.mark.parametrize("pairs", [1, 7, 10_000])
def test_results_do_not_depend_on_how_many_pairs_fit_in_memory(pairs, monkeypatch):
    problem = word_problem("softmax")
    v = np.random.default_rng(9).standard_normal((2, *problem.shape))
    expected = SparseCholesky(problem, 0.0)

    def few(pointers, max_pairs=pairs):
        return row_pairs.row_pairs(pointers, max_pairs)

    monkeypatch.setattr(column_elimination, "row_pairs", few)
    monkeypatch.setattr(selected_inverse, "row_pairs", few)
    solver = SparseCholesky(problem, 0.0)
    np.testing.assert_allclose(solver.solve(v), expected.solve(v), atol=1e-12)
    np.testing.assert_allclose(leverages_of(solver, slice(0, 70)), leverages_of(expected, slice(0, 70)), atol=1e-12)


def test_entries_that_cancel_stay_in_the_pattern():
    x = np.zeros((6, 8))
    x[0, :2], x[1, 0], x[1, 1] = 1.0, 1.0, -1.0  # the sum of products of columns 0 and 1 is 0
    x[2:6, 2:8] = np.array([[1, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]])
    problem = word_problem("squared", x=x)
    flat = Problem(problem.features, problem.targets, np.ones(6), problem.family, 0.7, 0.0, problem.theta)
    inverse = np.linalg.inv(hessian(flat))
    wide = blocks_of(flat)
    expected = np.einsum("ncp,pq,ncq->nc", wide, inverse, wide)
    np.testing.assert_allclose(leverages_of(SparseCholesky(flat, 0.0), slice(0, 6)), expected, atol=1e-12)


def matrix_of(size=60, seed=0):
    """A positive definite matrix most of whose columns meet few others."""
    x = words(90, size, seed)
    return sparse.csr_matrix(x.T @ x + np.eye(size))


def test_the_selected_inverse_is_the_dense_one_wherever_it_is_known():
    matrix = matrix_of()
    inverse, rows, columns = np.linalg.inv(matrix.toarray()), *matrix.nonzero()
    factor = EliminatedMatrix(matrix)
    assert 0 < len(factor.core) < 60
    with factor.core_inverse() as core:
        selected = SelectedInverse(factor, core)
        np.testing.assert_allclose(selected.at(rows, columns), inverse[rows, columns], atol=1e-12)
        np.testing.assert_allclose(selected.at(columns, rows), inverse[rows, columns], atol=1e-12)


def test_a_pair_outside_of_the_pattern_is_refused():
    matrix = sparse.csr_matrix(sparse.block_diag([matrix_of(seed=1), matrix_of(seed=2)]))
    factor = EliminatedMatrix(matrix)
    last = int(factor.order[0])  # the first to be eliminated
    with factor.core_inverse() as core, pytest.raises(KeyError, match="pairs of columns of the pattern"):
        SelectedInverse(factor, core).at(np.array([last]), np.array([(last + 60) % 120]))


def test_a_matrix_of_rare_columns_alone_has_no_core():
    factor = EliminatedMatrix(sparse.csr_matrix(np.diag([2.0, 4.0, 5.0, 1.0])))
    assert len(factor.core) == 0
    np.testing.assert_allclose(factor.solve(np.ones((1, 4))), [[0.5, 0.25, 0.2, 1.0]])


@pytest.mark.parametrize("name", ["squared", "softmax", "logistic"])
def test_a_singular_hessian_is_damped_as_a_dense_one_is(name):
    x = words(n=200)
    problem = word_problem(name, x=np.hstack([x, x[:, -1:], np.zeros((200, 1))]), fixed=0.0)
    solver, dense = SparseCholesky(problem, 0.0), np.linalg.pinv(hessian(problem), rcond=1e-9)
    assert 0 < solver.jitter < 1e-8 * np.diagonal(hessian(problem)).mean()
    rows = gradients(problem)[:3].reshape(3, *problem.shape)
    np.testing.assert_allclose(solver.solve(rows), through(problem, dense, rows), atol=1e-4)


def test_a_hessian_that_is_singular_but_for_rounding_is_damped_too():
    x = words(n=300)
    both = np.hstack([x, x[:, :1]])
    both[1, -1] += 4e-6  # a column and nearly its copy: the pivot is positive, 3e-14 of its diagonal entry
    alone, doubled = (word_problem("squared", x=design, fixed=0.0) for design in (x, both))
    assert SparseCholesky(alone, 0.0).jitter == 0 < SparseCholesky(doubled, 0.0).jitter


@pytest.mark.parametrize("name", ["logistic", "softmax"])
def test_an_ill_conditioned_hessian_is_solved_to_the_same_residual_as_by_a_dense_factor(name):
    x = words(n=200) * np.logspace(4, -4, 40)
    drawn = word_problem(name, x=x, fixed=1e-8)
    problem = replace(drawn, theta=np.zeros_like(drawn.theta))  # else outputs are so large that all losses are flat
    condition = np.linalg.cond(hessian(problem))
    assert condition > 1e12
    v = np.random.default_rng(9).standard_normal((2, *problem.shape))
    solved = SparseCholesky(problem, 0.0)
    dense = solver_for(problem, None, 0.0)
    assert not isinstance(dense, SparseCholesky)
    error, expected = (np.linalg.norm(s.matvec(s.solve(v)) - v) for s in (solved, dense))
    assert error < max(1e-9, 100 * expected)
    np.testing.assert_allclose(
        leverages_of(solved, slice(0, 200)), leverages_of(dense, slice(0, 200)), rtol=1e-7, atol=1e-10
    )


def test_a_loss_that_is_not_convex_is_refused_in_a_sentence():
    drawn = word_problem("normal_log", fixed=1e-3)
    far = Problem(drawn.features, 50 * np.abs(drawn.targets) + 50, drawn.weights, drawn.family, 1e-3, 0.0, drawn.theta)
    with pytest.raises(np.linalg.LinAlgError, match=r"not convex .*; pass a larger damping"):
        SparseCholesky(far, 0.0)


def test_only_wide_sparse_features_whose_columns_meet_few_others_are_eliminated(monkeypatch):
    narrow = word_problem("logistic", x=words(n=10, columns=400))
    assert not is_eliminable(narrow)
    monkeypatch.setattr(sparse_cholesky, "MIN_PARAMETERS", 300)
    assert is_eliminable(narrow) and isinstance(solver_for(narrow, None, 0.0), SparseCholesky)
    assert not is_eliminable(word_problem("logistic", x=words(n=4000, columns=400)))
    assert not is_eliminable(problem_of("logistic", columns=400))
