"""Conjugate gradients: preconditioners, precision, and where they stop."""

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import upweight as uw
from support.curved_nets import (
    INDEFINITE,
    MAKERS,
    bowl,
    columns,
    cross_entropy,
    damped,
    dense,
    examples,
    operators,
    solve,
    untrained,
)
from upweight.core.curvature_recipes import CG, Direct, Nystrom
from upweight.curvature.operators import GaussNewtonOperator
from upweight.curvature.solvers import prepare
from upweight.curvature.solvers.cg import ConjugateGradients
from upweight.curvature.summed_objective import SummedObjective


def test_a_preconditioner_changes_the_steps_and_not_the_solve():
    operator = damped(operators("cnn")["gauss-newton"], 0.05)
    b, blocks = columns(operator)
    plain = ConjugateGradients(operator, CG(tolerance=1e-9, steps=300)).solve(blocks)
    sketch = prepare(operator, Nystrom(rank=12))
    helped = ConjugateGradients(operator, CG(tolerance=1e-9, steps=300), sketch.precondition, "Nyström").solve(blocks)
    factored = untrained("cnn").curvature(examples(25), uw.EKFAC(), 0.002)
    by_ekfac = ConjugateGradients(operator, CG(tolerance=1e-9, steps=300), lambda v: factored.inverse(dict(v)))
    exact = np.linalg.solve(dense("cnn", "gauss-newton") + 0.05 * np.eye(operator.size), b.T).T
    for solution in (plain, helped, by_ekfac.solve(blocks)):
        assert solution.converged
        np.testing.assert_allclose(operator.network.join(solution.blocks), exact, atol=1e-6 * np.abs(exact).max())
    assert helped.steps < plain.steps
    perfect = prepare(operator, Direct())
    assert ConjugateGradients(operator, CG(tolerance=1e-9), lambda v: perfect.solve(v).blocks).solve(blocks).steps == 1


def test_the_size_of_a_preconditioner_does_not_matter():
    operator = damped(operators("mlp")["gauss-newton"], 1.0)
    _, blocks = columns(operator)
    sketch = prepare(operator, Nystrom(rank=5))
    solutions = [
        ConjugateGradients(
            operator,
            CG(tolerance=1e-8),
            lambda v, scale=scale: {name: scale * block for name, block in sketch.precondition(v).items()},
        ).solve(blocks)
        for scale in (2.0**-13, 1.0, 2.0**13)  # powers of two: what is rounded is the same
    ]
    assert all(solution.converged for solution in solutions)
    assert len({solution.steps for solution in solutions}) == 1


def test_conjugate_gradients_that_run_out_of_steps_report_it():
    operator = damped(operators("attention")["gauss-newton"], 1e-3)
    b, blocks = columns(operator)
    x, solution = solve(operator, CG(tolerance=1e-10, steps=3), blocks)
    assert (solution.steps, solution.converged) == (3, False)
    matrix = dense("attention", "gauss-newton") + 1e-3 * np.eye(operator.size)
    residuals = np.linalg.norm(x @ matrix - b, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(solution.residual, residuals.max(), rtol=1e-8)


def test_single_precision_reports_the_residual_it_really_has():
    torch.manual_seed(0)
    net = MAKERS["mlp"]()
    network = uw.TorchModel(net, cross_entropy).network
    x = examples(25)
    operator = GaussNewtonOperator(
        SummedObjective(network, uw.Examples(x.x.astype(np.float32), x.y), np.ones(25), 0.0, 1e-2)
    )
    _, blocks = columns(operator)
    solution = ConjugateGradients(operator, CG(tolerance=1e-12, steps=2000)).solve(blocks)
    assert not solution.converged
    assert 1e-8 < solution.residual < 1e-2
    assert solution.steps < 2000  # it gives up when a restart does not help


def test_conjugate_gradients_stop_at_negative_curvature_column_by_column():
    operator, matrix = bowl(INDEFINITE)
    operator = damped(operator, 0.8)
    values, vectors = np.linalg.eigh(matrix)
    b = np.stack([vectors[:, 0], vectors[:, 5] + vectors[:, 4]])  # along the negative one, and without any of it
    solution = ConjugateGradients(operator, CG(tolerance=1e-8)).solve(operator.network.split(b))
    x = operator.network.join(solution.blocks)
    assert not solution.converged
    assert "1 of 2 solves" in solution.notes[0]
    np.testing.assert_allclose(x[1], vectors[:, 5] / (values[5] + 0.8) + vectors[:, 4] / (values[4] + 0.8), atol=1e-8)
    np.testing.assert_array_equal(x[0], 0.0)
