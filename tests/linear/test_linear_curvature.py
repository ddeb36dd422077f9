import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import upweight as uw
from support.dense_problems import (
    CONVEX,
    blocks_of,
    curved,
    gradients,
    hessian,
    objective,
    penalty,
    problem_of,
    slope_of,
)
from upweight.core.curvature_recipes import CG, Direct, Hessian
from upweight.core.rows import DenseRows
from upweight.linear.curvature import LinearCurvature
from upweight.linear.rows import FactoredRows

EVERY = pytest.mark.parametrize("name", CONVEX)
REDUCTIONS = pytest.mark.parametrize(("fixed", "each"), [(0.7, 0.0), (0.0, 0.05)])


def curvature_of(problem, solver=None, damping=0.0):
    return LinearCurvature(problem, Hessian(solver=solver), damping)


def rows_of(problem):
    slopes = problem.weights[:, None] * problem.derivatives.gradient
    if problem.each == 0:
        return FactoredRows(problem.features, slopes)
    share = problem.each * problem.penalty_gradient(problem.theta)
    return FactoredRows(problem.features, slopes, problem.weights, share)


def without(problem, i):
    """Σ over all but example i."""
    ones = np.ones(len(problem.weights))
    ones[i] = 0.0
    return ones


@EVERY
@REDUCTIONS
def test_settling_ends_at_the_optimum(name, fixed, each):
    reoptimised = curvature_of(problem_of(name, fixed=fixed, each=each)).reoptimised()
    assert reoptimised.problem.off_optimum < 1e-9
    slope = slope_of(lambda t: objective(reoptimised.problem, t), reoptimised.parameters)
    np.testing.assert_allclose(slope, 0.0, atol=1e-5)
    again = reoptimised.reoptimised()
    np.testing.assert_allclose(again.parameters, reoptimised.parameters, atol=1e-9)


@EVERY
def test_the_reoptimised_curvature_is_taken_at_the_optimum(name):
    reoptimised = curvature_of(problem_of(name)).reoptimised()
    dense = hessian(reoptimised.problem)
    v = np.random.default_rng(0).standard_normal((2, len(dense)))
    np.testing.assert_allclose(reoptimised.matvec(v), v @ dense, atol=1e-9)
    solved = reoptimised.solve(DenseRows(v)).rows.dense()
    np.testing.assert_allclose(solved, v @ np.linalg.inv(dense), rtol=2e-3, atol=1e-4)


@EVERY
@pytest.mark.parametrize("solver", [Direct(), CG(tolerance=1e-11)])
@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_damping_is_on_the_scale_of_the_mean_loss(name, solver, damping):
    problem = problem_of(name)
    dense = hessian(problem) + damping * problem.weights.sum() * np.eye(problem.size)
    curvature, rows = curvature_of(problem, solver, damping), rows_of(problem)
    solved = curvature.solve(rows)
    np.testing.assert_allclose(solved.rows.dense(), gradients(problem) @ np.linalg.inv(dense), atol=1e-8)
    assert solved.converged and solved.residual < 1e-8
    v = gradients(problem)[:2]
    np.testing.assert_allclose(curvature.matvec(v), v @ dense, atol=1e-9)


@EVERY
def test_a_corrected_row_is_the_newton_step_of_leaving_that_one_out(name):
    problem = curvature_of(problem_of(name)).reoptimised().problem
    curvature = curvature_of(problem)
    shifts = curvature.solve(curvature.corrected(rows_of(problem))).rows.dense()
    for i in range(0, 30, 7):
        step = np.linalg.solve(hessian(problem, without(problem, i)), gradients(problem)[i])
        np.testing.assert_allclose(shifts[i], step, rtol=1e-8, atol=1e-10)


@pytest.mark.sweep(3)
@EVERY
def test_of_a_mean_the_corrected_row_takes_its_share_of_the_regulariser_along(name):
    problem = curvature_of(problem_of(name, fixed=0.0, each=0.05)).reoptimised().problem
    curvature = curvature_of(problem)
    shifts = curvature.solve(curvature.corrected(rows_of(problem))).rows.dense()
    wide, bent = blocks_of(problem), curved(problem)
    for i in range(0, 30, 7):
        data = hessian(problem) - wide[i].T @ bent[i] @ wide[i]
        np.testing.assert_allclose(shifts[i], np.linalg.solve(data, gradients(problem)[i]), rtol=1e-8, atol=1e-10)
        true = np.linalg.solve(hessian(problem, without(problem, i)), gradients(problem)[i])
        assert np.linalg.norm(shifts[i] - true) <= 2 / 30 * np.linalg.norm(true)


@pytest.mark.parametrize("name", ["squared", "squared_on_classes", "normal"])
def test_least_squares_needs_no_second_step(name):
    problem = curvature_of(problem_of(name)).reoptimised().problem
    curvature = curvature_of(problem)
    shifts = curvature.solve(curvature.corrected(rows_of(problem))).rows.dense()
    truth = curvature.newton_steps(1.0 - np.eye(30), None, 50).shifts
    np.testing.assert_allclose(shifts, truth, atol=1e-9)


@EVERY
@REDUCTIONS
def test_paired_is_a_quadratic_form_of_the_inverse(name, fixed, each):
    problem = problem_of(name, fixed=fixed, each=each)
    curvature, rows = curvature_of(problem), rows_of(problem)
    inverse = np.linalg.inv(hessian(problem))
    plain = FactoredRows(problem.features, np.random.default_rng(1).standard_normal((30, problem.family.outputs)))
    for left in (plain, rows):
        for right in (plain, rows):
            expected = np.einsum("np,pq,nq->n", left.dense(), inverse, right.dense())
            np.testing.assert_allclose(curvature.paired(left, right), expected, atol=1e-9)


@EVERY
@REDUCTIONS
def test_leverages_sum_to_the_effective_parameters(name, fixed, each):
    problem = problem_of(name, fixed=fixed, each=each)
    h = curvature_of(problem).leverage()
    regulariser = penalty(problem, fixed + each * problem.weights.sum())
    effective = problem.size - np.trace(np.linalg.solve(hessian(problem), regulariser))
    np.testing.assert_allclose(h.sum(), effective, rtol=1e-9)
    assert (h >= -1e-12).all() and (h <= problem.family.outputs + 1e-9).all()


@pytest.mark.parametrize("name", ["softmax", "logistic"])
def test_leverages_that_do_not_fit_in_memory_come_in_pieces(name):
    problem = problem_of(name)
    whole = curvature_of(problem)
    pieces = LinearCurvature(problem, Hessian(), 0.0, max_leverage_entries=20)
    assert len(list(pieces.leverages.blocks())) > 1
    np.testing.assert_allclose(pieces.leverage(), whole.leverage(), atol=1e-12)
    rows = rows_of(problem)
    np.testing.assert_allclose(pieces.corrected(rows).dense(), whole.corrected(rows).dense(), atol=1e-12)
    np.testing.assert_allclose(pieces.paired(rows, rows), whole.paired(rows, rows), atol=1e-12)


@EVERY
@REDUCTIONS
def test_part_matvec_is_the_share_of_the_group(name, fixed, each):
    problem = problem_of(name, fixed=fixed, each=each)
    rng = np.random.default_rng(4)
    membership = (rng.random((3, 30)) < 0.3) * 1.0
    vectors = rng.standard_normal((3, problem.size))
    product = curvature_of(problem).part_matvec(membership, vectors)
    for g in range(3):
        part = hessian(problem) - hessian(problem, 1.0 - membership[g])
        np.testing.assert_allclose(product[g], part @ vectors[g], atol=1e-9)


def test_a_point_of_leverage_one_has_directions_that_it_alone_determines():
    problem = problem_of("squared", fixed=0.0)
    x = problem.features.dense()[:, :-1].copy()
    x[:, 0] = 0.0
    x[4, 0] = 3.0
    problem = type(problem)(
        type(problem.features)(x, 1.0), problem.targets, problem.weights, problem.family, 0.0, 0.0, problem.theta
    )
    curvature = curvature_of(problem).reoptimised()
    assert curvature.leverage()[4] > problem.family.outputs - 1e-9
    rows = curvature.corrected(rows_of(curvature.problem))
    assert np.isfinite(rows.dense()).all()
    directions = curvature.undetermined()
    assert list(directions) == [4]
    assert len(directions[4]) == problem.family.outputs
    others = curvature.matvec(directions[4]) - curvature.part_matvec(np.eye(len(x))[[4, 4]], directions[4])
    np.testing.assert_allclose(others, 0, atol=1e-9)


def test_many_outputs_of_moderate_leverage_determine_nothing_alone():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)), rng.integers(0, 12, 60)
    x[0] *= 300  # its outputs have leverages near .5, whose determinant is below that of one leverage near 1
    estimator = LogisticRegression(C=1e4, max_iter=10_000, tol=1e-10).fit(x, y)
    train = uw.Examples(x, y)
    fitted = uw.Influence().fit(uw.explainable(estimator, train), train)
    assert fitted.curvature.leverages.suspects and fitted.undetermined == {}


def test_news_of_the_solver_travel_along():
    problem = problem_of("softmax", n=100, columns=10)
    curvature = curvature_of(problem, CG(tolerance=1e-14, steps=1))
    solved = curvature.solve(rows_of(problem))
    assert not solved.converged and solved.steps == 1
    assert any("Conjugate gradients stopped" in w for w in curvature.diagnostics["warnings"])
    diagnostics = curvature_of(problem).diagnostics
    assert diagnostics["parameters"] == problem.size and diagnostics["l2"] == 0.7 and diagnostics["warnings"] == []


def test_rows_of_something_else_are_refused():
    problem = problem_of("logistic")
    with pytest.raises(TypeError, match="expected the rows of this model's training examples, got DenseRows"):
        curvature_of(problem).corrected(DenseRows(np.zeros((30, problem.size))))
