"""The dual form of the Gauss–Newton inverse against dense matrices."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from torch import nn

import upweight as uw
from support.curved_nets import DUAL_FORM, MAKERS, Attention, columns, cross_entropy, dense, examples, fit, untrained
from upweight.core.curvature import Curvature
from upweight.core.curvature_recipes import Direct
from upweight.core.rows import DenseRows
from upweight.curvature.operators import GaussNewtonOperator
from upweight.curvature.solvers import dual, prepare
from upweight.curvature.solvers.dual import DualRows
from upweight.curvature.summed_objective import SummedObjective


def fit_dual(model: uw.TorchModel, train: uw.Examples, damping: float, **limits: Any) -> Curvature:
    return fit(model, train, uw.GaussNewton(solver=Direct()), damping, **{**DUAL_FORM, **limits})


@pytest.mark.parametrize("name", MAKERS)
def test_the_dual_form_is_the_dense_inverse(name):
    weights = np.random.default_rng(3).uniform(0.5, 2.0, 25)
    train, queries = examples(25), examples(6, seed=9)
    train = uw.Examples(train.x, train.y, weights=weights)
    model = untrained(name, l2=0.3)
    curvature = fit_dual(model, train, 0.01)
    assert "dual form" in curvature.diagnostics["solver"]
    matrix = dense(name, "gauss-newton") + 0.31 * weights.sum() * np.eye(model.network.size)
    q, rows = model.measure_rows(queries), model.loss_rows(train)
    solved = curvature.solve(q)
    expected = np.linalg.solve(matrix, q.dense().T).T
    assert isinstance(solved.rows, DualRows)
    assert solved.converged
    assert solved.residual < 1e-8
    membership, positions = np.random.default_rng(0).standard_normal((2, 6)), np.array([3, 0, 20])
    x = solved.rows
    np.testing.assert_allclose(x.dense(), expected, atol=1e-9)
    np.testing.assert_allclose(x.dot(rows), expected @ rows.dense().T, atol=1e-9)
    np.testing.assert_allclose(x.dot(rows.take(positions)), expected @ rows.dense()[positions].T, atol=1e-9)
    np.testing.assert_allclose(x.dot(q), expected @ q.dense().T, atol=1e-9)
    np.testing.assert_allclose(x.dot(x), expected @ expected.T, atol=1e-9)
    np.testing.assert_allclose(x.take(np.array([4, 1])).dense(), expected[[4, 1]], atol=1e-9)
    np.testing.assert_allclose(x.sums(membership).dense(), membership @ expected, atol=1e-9)
    np.testing.assert_allclose(x.project(matrix), expected @ matrix, atol=1e-8)
    np.testing.assert_allclose(rows.dot(x), rows.dense() @ expected.T, atol=1e-9)
    np.testing.assert_allclose(curvature.matvec(expected), q.dense(), atol=1e-9)
    again = curvature.solve(DenseRows(q.dense())).rows
    np.testing.assert_allclose(again.dot(rows), expected @ rows.dense().T, atol=1e-9)
    # in several pieces, as if the factors did not fit
    pieces = fit_dual(model, train, 0.01, held_numbers=500).solve(q).rows
    np.testing.assert_allclose(pieces.dot(rows), expected @ rows.dense().T, atol=1e-9)


def test_scores_in_dual_form_need_no_vector_of_all_parameters(monkeypatch):
    model, train = untrained("mlp", l2=0.3), examples(25)
    curvature = fit_dual(model, train, 0.01)
    q, rows = model.measure_rows(examples(6, seed=9)), model.loss_rows(train)
    solved = curvature.solve(q)

    def refuse(*_):
        raise AssertionError("a row was formed")

    monkeypatch.setattr(type(q), "tensors", refuse)
    monkeypatch.setattr(type(model.network), "join", refuse)
    assert solved.rows.dot(rows).shape == (6, 25)
    assert curvature.solve(q).rows.dot(rows.take(np.arange(5))).shape == (6, 5)


def test_other_examples_with_the_ids_of_training_examples_are_not_taken_for_them():
    model, train, others = untrained("mlp"), examples(25), examples(6, seed=9)
    curvature = fit_dual(model, train, 0.1)
    x = curvature.solve(model.measure_rows(others)).rows
    rows = model.loss_rows(others)  # ids 0 … 5, as in the training set
    np.testing.assert_allclose(x.dot(rows), x.dense() @ rows.dense().T, atol=1e-10)


def test_the_dual_form_holds_a_share_of_the_trace_and_measures_what_it_leaves_out():
    model, train = untrained("mlp"), examples(25)
    q = model.measure_rows(examples(6, seed=9))
    counts = []
    for share, converged in ((0.999, True), (0.6, False)):
        curvature = fit_dual(model, train, 0.3, dual_trace=share)
        solved = curvature.solve(q)
        counts.append(len(curvature.inverse.roots))
        assert solved.converged == converged
        assert bool(curvature.diagnostics["warnings"]) != converged
        remainder = curvature.matvec(solved.rows.dense()) - q.dense()
        residuals = np.linalg.norm(remainder, axis=1) / np.linalg.norm(q.dense(), axis=1)
        np.testing.assert_allclose(solved.residual, residuals[: dual.PROBED_ROWS].max(), rtol=1e-6, atol=1e-12)
    assert counts[1] < counts[0] <= 50  # softmax over three classes has two directions


def test_the_dual_form_sees_parameters_that_hooks_do_not():
    torch.manual_seed(2)

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.scale = Attention(), nn.Parameter(torch.tensor([0.7, 1.0, 1.3]))

        def forward(self, x):
            return self.inner(x) * self.scale

    model = uw.TorchModel(Scaled().double(), cross_entropy)
    train = examples(12)
    curvature = fit_dual(model, train, 0.1)
    operator = GaussNewtonOperator(SummedObjective(model.network, train, np.ones(12), 0.0, 1.2))
    b, blocks = columns(operator, 3)
    expected = operator.network.join(prepare(operator, Direct()).solve(blocks).blocks)
    np.testing.assert_allclose(curvature.solve(DenseRows(b)).rows.dense(), expected, atol=1e-9)


def test_a_damping_below_rounding_is_raised_in_dual_form():
    model, train = untrained("mlp"), examples(25)
    curvature = fit_dual(model, train, 0.0)
    assert curvature.diagnostics["damping"] > 0
    assert "rounding" in curvature.diagnostics["warnings"][0]


def test_no_curvature_and_no_damping_is_refused():
    torch.manual_seed(0)
    model = uw.TorchModel(nn.Linear(12, 1).double(), lambda net, batch: (net(batch.x)[:, 0] - 9.0).abs())
    train = examples(10)
    for dense_parameters in (3000, 1):
        with pytest.raises(ValueError, match="give a damping"):
            fit_dual(model, train, 0.0, dense_parameters=dense_parameters)
        q = model.measure_rows(train)
        solved = fit_dual(model, train, 0.5, dense_parameters=dense_parameters).solve(q)  # by λ alone
        np.testing.assert_allclose(solved.rows.dense(), q.dense() / 5.0, atol=1e-12)


def test_a_problem_that_fits_neither_form_is_refused_with_a_way_out():
    model, train = untrained("mlp"), examples(25)
    parameters_fit = fit_dual(model, train, 0.1, dual_rows=5)
    assert parameters_fit.diagnostics["solver"] == "Cholesky"
    for hessian_numbers in (1 << 27, 1):
        limits = {"dual_rows": 5, "matrix_parameters": 5, "hessian_numbers": hessian_numbers}
        with pytest.raises(ValueError, match=r"no room .* use solver=CG\(\)"):
            fit_dual(model, train, 0.1, **limits)
