from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from support.dense_problems import CONVEX, hessian, objective, problem_of, slope_of
from upweight.linear.curvature import LinearCurvature
from upweight.linear.newton import Newton
from upweight.linear.problem import Problem

SMOOTH = [n for n in CONVEX if n not in ("squared_hinge", "smooth_hinge_of_pairs")]
EVERY = pytest.mark.parametrize("name", SMOOTH)


def minimum(problem, weights):
    """The optimum under these weights, found without upweight's gradient or Hessian."""

    def f(theta):
        return objective(problem, theta, weights)

    start = problem.theta.ravel()
    return minimize(f, start, jac=lambda t: slope_of(f, t, 1e-5), method="BFGS", options={"gtol": 1e-6}).x


def masks(n, sizes=(1, 3, 15), seed=0):
    rng = np.random.default_rng(seed)
    weights = np.ones((len(sizes), n))
    for row, size in zip(weights, sizes, strict=True):
        row[rng.choice(n, size, replace=False)] = 0.0
    return weights


def newton(problem, weights, start=None, steps=50, **more):
    return LinearCurvature(problem, None, 0.0).newton_steps(weights, start, steps, **more)


@pytest.mark.sweep(3)
@EVERY
@pytest.mark.parametrize("each", [0.0, 0.05])
def test_newton_steps_end_at_the_minimum(name, each):
    problem = problem_of(name, fixed=0.0 if each else 0.7, each=each)
    weights = np.vstack([np.ones((1, 30)), masks(30)])
    moved = newton(problem, weights)
    assert (moved.residual <= 1e-10).all()
    for row, shift in zip(weights, moved.shifts, strict=True):
        theta = problem.theta.ravel() + shift
        np.testing.assert_allclose(theta, minimum(problem, row), atol=2e-4)
        assert objective(problem, theta, row) <= objective(problem, minimum(problem, row), row) + 1e-9


@EVERY
def test_removing_is_leaving_out(name):
    problem = problem_of(name)
    weights = masks(30)
    for row, shift in zip(weights, newton(problem, weights).shifts, strict=True):
        inside = row > 0
        fewer = Problem(
            problem.features.take(inside), problem.targets[inside], problem.weights[inside], problem.family, 0.7, 0.0,
            problem.theta,
        )  # fmt: skip
        np.testing.assert_allclose(shift, newton(fewer, np.ones((1, inside.sum()))).shifts[0], atol=1e-7)


@pytest.mark.parametrize("name", ["softmax", "logistic", "poisson", "squared_hinge"])
def test_a_group_does_not_depend_on_the_other_groups(name):
    problem = problem_of(name)
    weights = masks(30, (1, 2, 4, 8, 20))
    together = newton(problem, weights)
    for g in range(len(weights)):
        np.testing.assert_allclose(together.shifts[g], newton(problem, weights[g : g + 1]).shifts[0], atol=1e-8)


def test_the_number_of_groups_in_memory_changes_nothing():
    problem = problem_of("softmax")
    weights = masks(30, (1, 2, 4, 8, 20))
    together = newton(problem, weights).shifts
    few = Newton(problem, LinearCurvature(problem, None, 0.0).solver, max_outputs=200)
    np.testing.assert_allclose(few.newton_steps(weights, None, 50).shifts, together, atol=1e-8)
    np.testing.assert_allclose(few.newton_steps(weights, together + 0.01, 50).shifts, together, atol=1e-8)


def test_beside_large_features_more_groups_are_in_memory(monkeypatch):
    problem = problem_of("softmax")
    weights = masks(30, (1, 2, 4, 8, 20))
    sizes = []
    optimise = Newton._optimise

    def counted(self, factors, *arguments):
        sizes.append(len(factors))
        return optimise(self, factors, *arguments)

    monkeypatch.setattr(Newton, "_optimise", counted)
    solver = LinearCurvature(problem, None, 0.0).solver
    for features_per_output in (problem.features.width, 1e-9):
        Newton(problem, solver, max_outputs=1, features_per_output=features_per_output).newton_steps(weights, None, 50)
    assert sizes == [1, 1, 1, 1, 1, 5]


@EVERY
def test_a_first_guess_changes_the_number_of_steps_and_not_the_optimum(name):
    problem = problem_of(name)
    weights = masks(30)
    plain = newton(problem, weights)
    rng = np.random.default_rng(2)
    for start in (plain.shifts, plain.shifts + 0.05, 30 * rng.standard_normal(plain.shifts.shape)):
        np.testing.assert_allclose(newton(problem, weights, start).shifts, plain.shifts, atol=1e-7)
    assert newton(problem, weights, plain.shifts).steps <= 1


@pytest.mark.parametrize("name", ["softmax", "logistic", "poisson", "gamma"])
def test_the_residual_is_the_gradient_that_is_left(name):
    problem = problem_of(name)
    weights = masks(30)
    for steps in (0, 1, 2):
        moved = newton(problem, weights, steps=steps)
        for row, shift, left in zip(weights, moved.shifts, moved.residual, strict=True):
            slope = slope_of(lambda t, row=row: objective(problem, t, row), problem.theta.ravel() + shift)
            np.testing.assert_allclose(left * problem.noise, np.linalg.norm(slope), rtol=1e-3, atol=1e-5)
    assert newton(problem, weights, steps=0).steps == 0 and not newton(problem, weights, steps=0).shifts.any()


@pytest.mark.parametrize("name", ["softmax", "logistic", "squared"])
def test_one_step_is_the_newton_step(name):
    problem = problem_of(name)
    weights = masks(30)
    for row, shift in zip(weights, newton(problem, weights, steps=1).shifts, strict=True):
        slope = slope_of(lambda t, row=row: objective(problem, t, row), problem.theta.ravel())
        np.testing.assert_allclose(shift, -np.linalg.solve(hessian(problem, row), slope), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["softmax", "logistic", "poisson"])
def test_weights_between_0_and_1_and_above_1_lead_to_their_optimum(name):
    problem = problem_of(name)
    weights = np.random.default_rng(3).uniform(0.2, 3.0, (1, 30))
    optimum = problem.theta.ravel() + newton(problem, weights).shifts[0]
    np.testing.assert_allclose(optimum, minimum(problem, weights[0]), atol=2e-4)


def test_steps_that_would_climb_are_halved():
    problem = problem_of("logistic", fixed=1e-3)
    far = Problem(problem.features, problem.targets, problem.weights, problem.family, 1e-3, 0.0, problem.theta + 30.0)
    moved, near = newton(far, np.ones((1, 30)), steps=100), newton(problem, np.ones((1, 30)), steps=100)
    np.testing.assert_allclose(far.theta.ravel() + moved.shifts[0], problem.theta.ravel() + near.shifts[0], atol=1e-6)


def test_the_chord_method_ends_at_the_same_optimum(monkeypatch):
    rough = problem_of("softmax", n=2_000)
    problem = replace(rough, theta=rough.theta + newton(rough, np.ones((1, 2_000))).shifts.reshape(rough.shape))
    weights, products = masks(2_000, (1, 2)), []
    step = Newton._step
    monkeypatch.setattr(Newton, "_step", lambda self, *given: products.append(1) or step(self, *given))
    chord = newton(problem, weights)
    assert (chord.residual <= 1e-10).all() and not products
    exact = Newton(problem, LinearCurvature(problem, None, 0.0).solver, chord_share=0.0)
    np.testing.assert_allclose(chord.shifts, exact.newton_steps(weights, None, 50, forcing=1e-6).shifts, atol=1e-9)
    assert products


@pytest.mark.parametrize("name", ["logistic", "poisson"])
def test_a_retraining_without_a_hundredth_of_the_examples_takes_the_chord_method_and_a_few_steps_do_not(
    name, monkeypatch
):
    rough = problem_of(name, n=2_000)
    problem = replace(rough, theta=rough.theta + newton(rough, np.ones((1, 2_000))).shifts.reshape(rough.shape))
    weights, products = masks(2_000, (20,)), []
    step = Newton._step
    monkeypatch.setattr(Newton, "_step", lambda self, *given: products.append(1) or step(self, *given))
    chord = newton(problem, weights, steps=50)
    assert (chord.residual <= 1e-10).all() and not products
    np.testing.assert_allclose(chord.shifts, newton(problem, weights, steps=10).shifts, atol=1e-9)
    assert products


def test_the_chord_method_gives_way_if_its_steps_gain_too_little():
    problem, weights = problem_of("softmax", fixed=0.1), masks(30)
    overdamped = LinearCurvature(problem, None, 20.0).solver
    moved = Newton(problem, overdamped, chord_share=1.0).newton_steps(weights, None, 50)
    assert (moved.residual <= 1e-10).all()
    np.testing.assert_allclose(moved.shifts, newton(problem, weights).shifts, atol=1e-7)


@pytest.mark.parametrize("name", ["logistic", "softmax"])
def test_loose_systems_far_from_the_optimum_take_fewer_products_to_the_same_one(name, monkeypatch):
    rough = problem_of(name, n=400)
    problem = replace(rough, theta=rough.theta + newton(rough, np.ones((1, 400))).shifts.reshape(rough.shape))
    weights, products = masks(400, (20, 40, 120)), []
    matvec = Newton._matvec
    monkeypatch.setattr(Newton, "_matvec", lambda self, *given: products.append(1) or matvec(self, *given))
    solver, moved, counts = LinearCurvature(problem, None, 0.0).solver, [], []
    for loosest in (0.1, 0.0):
        products.clear()
        moved.append(Newton(problem, solver, loosest=loosest).newton_steps(weights, None, 50, forcing=1e-6))
        counts.append(len(products))
    assert counts[0] < counts[1] and (moved[0].residual <= 1e-10).all()
    np.testing.assert_allclose(moved[0].shifts, moved[1].shifts, atol=1e-9)


def test_a_retraining_solves_loosely_and_a_single_step_does_not(monkeypatch):
    problem, exactness = problem_of("logistic", n=100), []
    step = Newton._step

    def watched(self, gradient, derivatives, factors, forcing):
        exactness.append(float(forcing.max()))
        return step(self, gradient, derivatives, factors, forcing)

    monkeypatch.setattr(Newton, "_step", watched)
    newton(problem, masks(100, (30,)), steps=1)
    assert exactness == [1e-6]
    newton(problem, masks(100, (30,)), steps=50)
    assert exactness[1] == 0.1 and exactness[-1] < 0.1
