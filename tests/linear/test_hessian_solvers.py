import numpy as np
import pytest

from support.dense_problems import (
    CONVEX,
    FAMILIES,
    KINDS,
    blocks_of,
    gradients,
    hessian,
    objective,
    problem_of,
    slope_of,
)
from upweight.linear.cholesky import BlockCholesky, JointCholesky
from upweight.linear.conjugate_gradients import ConjugateGradients, conjugate_gradients
from upweight.linear.features import Features
from upweight.linear.problem import Problem


def leverages(solver, where):
    """The leverages of these examples, computed in one block."""
    (found,) = solver.leverages([where])
    return found


def direct(problem, damping=0.0):
    kind = JointCholesky if problem.family.coupled and problem.family.outputs > 1 else BlockCholesky
    return kind(problem, damping)


def iterative(problem, damping=0.0, tolerance=1e-12, widest=15_000):
    return ConjugateGradients(problem, damping, tolerance, 500, widest)


def diagonal(problem, damping=0.0):
    return iterative(problem, damping, widest=1)


EVERY = pytest.mark.parametrize("name", CONVEX)
SOLVERS = pytest.mark.parametrize("make_solver", [direct, iterative, diagonal])


def vectors(problem, count=3):
    return np.random.default_rng(9).standard_normal((count, *problem.shape))


def through(problem, matrix, v):
    return (v.reshape(len(v), -1) @ matrix.T).reshape(v.shape)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("each", [0.0, 0.3])
def test_the_gradient_is_the_slope_of_the_objective(name, each):
    problem = problem_of(name, fixed=0.7 - each, each=each)
    if name.endswith("_identity"):
        problem = positive(problem)
    slope = slope_of(lambda theta: objective(problem, theta), problem.theta.ravel())
    np.testing.assert_allclose(problem.gradient().ravel(), slope, rtol=1e-6, atol=1e-6)
    wide = gradients(problem).sum(axis=0).reshape(problem.shape)
    np.testing.assert_allclose(
        wide + problem.fixed * problem.penalty_gradient(problem.theta), problem.gradient(), atol=1e-10
    )


def positive(problem):
    """The same with outputs above zero, where an identity link has a loss."""
    theta = 0.05 * problem.theta
    theta[:, -1] = 1.5
    return Problem(
        problem.features, problem.targets, problem.weights, problem.family, problem.fixed, problem.each, theta
    )


@EVERY
@pytest.mark.parametrize("each", [0.0, 0.3])
def test_matvec_is_the_slope_of_the_gradient(name, each):
    problem = problem_of(name, fixed=0.0 if each else 0.7, each=each)

    def gradient(theta):
        return Problem(
            problem.features, problem.targets, problem.weights, problem.family, problem.fixed, each,
            theta.reshape(problem.shape),
        ).gradient().ravel()  # fmt: skip

    slope = slope_of(gradient, problem.theta.ravel())
    v = vectors(problem)
    np.testing.assert_allclose(hessian(problem), slope, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(direct(problem).matvec(v), through(problem, slope, v), rtol=1e-6, atol=1e-5)


@pytest.mark.sweep(3)
@EVERY
@SOLVERS
@pytest.mark.parametrize("damping", [0.0, 2.0])
@pytest.mark.parametrize("kind", ["float64", "csr"])
def test_solve_is_the_dense_inverse(name, make_solver, damping, kind):
    problem = problem_of(name, kind=kind)
    dense = hessian(problem) + damping * np.eye(problem.size)
    solver, v = make_solver(problem, damping), vectors(problem)
    np.testing.assert_allclose(solver.matvec(v), through(problem, dense, v), atol=1e-9)
    np.testing.assert_allclose(solver.solve(v), through(problem, np.linalg.inv(dense), v), atol=1e-9)
    assert solver.converged


@pytest.mark.sweep(3)
@EVERY
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("intercept", [0.0, 2.0])
def test_leverages_are_quadratic_forms_of_the_inverse(name, kind, intercept):
    problem = problem_of(name, kind=kind, intercept=intercept)
    inverse, wide = np.linalg.inv(hessian(problem)), blocks_of(problem)
    expected = np.einsum("ncp,pq,nkq->nck", wide, inverse, wide)
    for where in (slice(0, 30), slice(7, 19)):
        s = leverages(direct(problem), where)
        if s.ndim == 2:
            expected_here = np.einsum("ncc->nc", expected)
            off = expected - expected_here[:, :, None] * np.eye(problem.family.outputs)
            np.testing.assert_allclose(off, 0.0, atol=1e-9)
        else:
            expected_here = expected
        np.testing.assert_allclose(s, expected_here[where], atol=1e-9)


@EVERY
def test_a_factor_solves_as_before_after_its_leverages(name):
    problem = problem_of(name)
    solver, v = direct(problem), vectors(problem)
    before = solver.solve(v)
    first = leverages(solver, slice(0, 30))
    np.testing.assert_array_equal(solver.solve(v), before)
    np.testing.assert_array_equal(leverages(solver, slice(0, 30)), first)
    np.testing.assert_array_equal(solver.solve(v), before)


def test_a_factor_wider_than_a_tile_inverts_itself_in_place():
    rng = np.random.default_rng(0)
    problem = problem_of("softmax", n=60, columns=200, fixed=1.0)
    assert problem.size > 512
    solver, v = JointCholesky(problem, 0.0), rng.standard_normal((2, *problem.shape))
    before = solver.solve(v)
    wide = blocks_of(problem)
    expected = np.einsum("ncp,pq,nkq->nck", wide, np.linalg.inv(hessian(problem)), wide, optimize=True)
    np.testing.assert_allclose(leverages(solver, slice(0, 60)), expected, atol=1e-9)
    np.testing.assert_array_equal(solver.solve(v), before)


@pytest.mark.parametrize("name", [n for n in CONVEX if not n.startswith("softmax")])
def test_blocks_alone_are_the_leverages_where_outputs_do_not_interact(name):
    problem = problem_of(name)
    np.testing.assert_allclose(
        leverages(iterative(problem), slice(0, 30)), leverages(direct(problem), slice(0, 30)), atol=1e-12
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("intercept", [0.0, 2.0])
def test_the_diagonal_preconditioner_is_the_diagonal(kind, intercept):
    problem = problem_of("softmax", kind=kind, intercept=intercept)
    ones = np.ones((1, *problem.shape))
    expected = 1.0 / np.diagonal(hessian(problem)).reshape(ones.shape)
    solver = diagonal(problem)
    np.testing.assert_allclose(solver.solve_approximately(ones), expected, rtol=1e-9)
    squares = problem.features.dense() ** 2
    np.testing.assert_allclose(leverages(solver, slice(2, 9)), squares[2:9] @ expected[0].T, rtol=1e-9)


@pytest.mark.parametrize("make_solver", [direct, iterative])
@pytest.mark.parametrize("name", ["squared", "softmax", "logistic"])
def test_a_singular_hessian_is_damped_and_says_so(make_solver, name):
    problem = problem_of(name, fixed=0.0)
    x = problem.features.dense()[:, :-1]
    twice = Features(np.hstack([x, x[:, :1]]), 1.0)
    problem = Problem(
        twice, problem.targets, problem.weights, problem.family, 0.0, 0.0, np.zeros((problem.family.outputs, 6))
    )
    solver = make_solver(problem)
    assert 0 < solver.jitter < 1e-8 * np.diagonal(hessian(problem)).mean()
    rows = gradients(problem)[:3].reshape(3, *problem.shape)
    x = solver.solve(rows)
    np.testing.assert_allclose(through(problem, hessian(problem), x), rows, atol=1e-6)
    np.testing.assert_allclose(x, through(problem, np.linalg.pinv(hessian(problem), rcond=1e-9), rows), atol=1e-4)


@pytest.mark.parametrize("name", ["squared", "softmax", "logistic"])
def test_a_tiny_regulariser_is_not_refused(name):
    problem = problem_of(name, fixed=1e-15)
    x = problem.features.dense()[:, :-1]
    twice = Features(np.hstack([x, x[:, :1]]), 1.0)
    problem = Problem(
        twice, problem.targets, problem.weights, problem.family, 1e-15, 0.0, np.zeros((problem.family.outputs, 6))
    )
    rows = gradients(problem)[:3].reshape(3, *problem.shape)
    x = direct(problem).solve(rows)
    np.testing.assert_allclose(through(problem, hessian(problem), x), rows, atol=1e-6)


def test_a_loss_with_negative_second_derivatives_is_refused_in_a_sentence():
    problem = problem_of("normal_log", fixed=1e-3)
    far = Problem(
        problem.features, 50 * np.abs(problem.targets) + 50, problem.weights, problem.family, 1e-3, 0.0, problem.theta
    )
    assert np.linalg.eigvalsh(hessian(far)).min() < 0
    with pytest.raises(np.linalg.LinAlgError, match=r"not convex .*; pass a larger damping"):
        direct(far)
    enough = -2 * np.linalg.eigvalsh(hessian(far)).min()
    dense = hessian(far) + enough * np.eye(far.size)
    v = vectors(far)
    np.testing.assert_allclose(direct(far, enough).solve(v), through(far, np.linalg.inv(dense), v), atol=1e-9)


@pytest.mark.parametrize("name", ["softmax", "logistic", "squared"])
@pytest.mark.parametrize("kind", ["float64", "csr"])
def test_examples_of_weight_zero_change_nothing(name, kind):
    problem = problem_of(name, kind=kind)
    weights = problem.weights.copy()
    weights[::3] = 0.0
    present = weights > 0
    zeroed = Problem(problem.features, problem.targets, weights, problem.family, 0.7, 0.0, problem.theta)
    fewer = Problem(
        problem.features.take(present),
        problem.targets[present],
        weights[present],
        problem.family,
        0.7,
        0.0,
        problem.theta,
    )
    v = vectors(problem)
    np.testing.assert_allclose(direct(zeroed).solve(v), direct(fewer).solve(v), atol=1e-10)


def test_conjugate_gradients_stop_at_their_tolerance_and_report_the_residual():
    problem, v = problem_of("softmax", n=200, columns=20, fixed=1e-4), None
    v = vectors(problem, 4)
    solver = ConjugateGradients(problem, 0.0, 1e-12, 2, 1)
    x = solver.solve(v)
    left = through(problem, hessian(problem), x) - v
    worst = (np.linalg.norm(left.reshape(4, -1), axis=1) / np.linalg.norm(v.reshape(4, -1), axis=1)).max()
    assert not solver.converged and solver.steps == 2
    np.testing.assert_allclose(solver.residual, worst, rtol=1e-6)


def test_conjugate_gradients_leave_a_zero_right_hand_side_alone():
    b = np.zeros((2, 1, 3))
    b[1] = 1.0
    x, left, steps = conjugate_gradients(lambda p: 4.0 * p, lambda r: r, b, 1e-12, 10)
    np.testing.assert_allclose(x, b / 4)
    assert left <= 1e-12 and steps == 1


def test_the_factor_of_a_neighbour_multiplies_with_its_own_hessian():
    problem = problem_of("softmax")
    other = Problem(problem.features, problem.targets, problem.weights, problem.family, 0.7, 0.0, problem.theta + 0.5)
    v = vectors(problem)
    np.testing.assert_allclose(direct(problem).at(other).matvec(v), through(other, hessian(other), v), atol=1e-9)
