"""LiSSA: its scale, its batches, and what it reports when it is too short or diverges."""

import numpy as np
import pytest

pytest.importorskip("torch")
from support.curved_nets import INDEFINITE, bowl, columns, damped, solve
from upweight.core.curvature_recipes import LiSSA
from upweight.curvature.solvers import prepare
from upweight.curvature.solvers.lissa import LissaSolver, largest_eigenvalue


def test_lissa_restarts_when_its_scale_is_too_small():
    operator, matrix = bowl([0.5, 1.0, 4.0])
    operator = damped(operator, 20.0)
    solver = prepare(operator, LiSSA(depth=200, scale=20.0, batch=1000))
    b, blocks = columns(operator)
    solution = solver.solve(blocks)
    assert solver.scale > (np.linalg.eigvalsh(matrix)[-1] + 20) / 2
    assert "restarted at" in solution.notes[0]
    assert solution.converged
    expected = np.linalg.solve(matrix + 20 * np.eye(3), b.T).T
    np.testing.assert_allclose(operator.network.join(solution.blocks), expected, rtol=1e-4)


def test_lissa_on_random_batches_comes_near_the_inverse():
    operator, matrix = bowl([0.2, 0.5, 1.0, 2.0])
    operator = damped(operator, 10.0)
    b, blocks = columns(operator)
    recipe = LiSSA(depth=130, repeats=6, scale=300.0, batch=8, seed=3)
    x, _ = solve(operator, recipe, blocks)
    expected = np.linalg.solve(matrix + 10 * np.eye(4), b.T).T
    np.testing.assert_allclose(x, expected, atol=0.02 * np.abs(expected).max())
    again, _ = solve(operator, recipe, blocks)
    np.testing.assert_array_equal(x, again)


def test_a_short_lissa_reports_how_many_steps_it_needs():
    operator = damped(bowl([0.0, 4.0])[0], 1.0)
    _, blocks = columns(operator)
    solution = prepare(operator, LiSSA(depth=20, batch=1000)).solve(blocks)
    assert not solution.converged
    assert solution.residual > 0.1
    assert "20 steps" in solution.notes[0]


def test_the_power_iteration_finds_the_largest_eigenvalue():
    assert largest_eigenvalue(bowl([-0.1, 0.3, 1.0])[0], 0) == pytest.approx(40.0)
    assert largest_eigenvalue(bowl([0.0, 0.0])[0], 0) == 0.0


def test_lissa_gives_up_when_no_scale_helps():
    operator = damped(bowl(INDEFINITE)[0], 0.8)
    _, blocks = columns(operator)
    solver = LissaSolver(operator, LiSSA(depth=1000, scale=50.0, batch=1000))
    solver.max_restarts = 3
    with pytest.raises(ValueError, match="diverged at every scale from 50"):
        solver.solve(blocks)
