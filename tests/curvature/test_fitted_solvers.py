"""The fitted Hessian and Gauss–Newton matrix with every solver, against dense matrices."""

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import upweight as uw
from support.curved_nets import MAKERS, dense, examples, fit, untrained
from upweight.core.curvature_recipes import CG, Arnoldi, Direct
from upweight.core.rows import DenseRows
from upweight.curvature.operators import GaussNewtonOperator, HessianOperator
from upweight.curvature.solvers import direct, prepare
from upweight.curvature.solvers.roots import Roots
from upweight.curvature.summed_objective import SummedObjective

RECIPES = {
    "hessian": uw.Hessian(),
    "hessian by cg": uw.Hessian(solver=CG(tolerance=1e-9)),
    "gauss-newton": uw.GaussNewton(),
    "gauss-newton by cg": uw.GaussNewton(solver=CG(tolerance=1e-9)),
    "gauss-newton by arnoldi": uw.GaussNewton(solver=Arnoldi(rank=200, steps=200)),
}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("which", RECIPES)
@pytest.mark.parametrize("name", MAKERS)
def test_fitted_curvatures_are_the_dense_inverse_and_describe_themselves(name, which):
    train, queries = examples(25), examples(3, seed=9)
    weights = np.random.default_rng(3).uniform(0.5, 2.0, 25)
    train = uw.Examples(train.x, train.y, weights=weights)
    kind = which.split(" ")[0]
    model = untrained(name, l2=0.5)
    curvature = model.curvature(train, RECIPES[which], 0.7)
    total = weights.sum()
    matrix = dense(name, kind) + 1.2 * total * np.eye(model.network.size)
    q = model.measure_rows(queries)
    expected = np.linalg.solve(matrix, q.dense().T).T
    solved = curvature.solve(q)
    np.testing.assert_allclose(solved.rows.dense(), expected, atol=1e-7 * np.abs(expected).max())
    np.testing.assert_allclose(curvature.matvec(expected), q.dense(), atol=1e-10)
    rows = model.loss_rows(train)
    np.testing.assert_allclose(solved.rows.dot(rows), expected @ rows.dense().T, atol=1e-8)
    diagnostics = curvature.diagnostics
    assert diagnostics["damping"] == pytest.approx(0.7)
    assert diagnostics["warnings"] == []
    assert (diagnostics["parameters"], diagnostics["damping_from"]) == (model.network.size, "as given")
    assert solved.converged
    assert not curvature.calibrated  # damped beyond the objective


def test_the_solution_does_not_depend_on_how_many_rows_are_solved_at_a_time():
    model, train = untrained("mlp"), examples(25)
    curvature = model.curvature(train, uw.GaussNewton(), 0.1)
    rows = model.loss_rows(train)
    whole = curvature.solve(rows).rows.dense()
    curvature.inverse.max_numbers = 3 * model.network.size
    np.testing.assert_allclose(curvature.solve(rows).rows.dense(), whole, atol=1e-12)
    np.testing.assert_allclose(curvature.solve(DenseRows(rows.dense())).rows.dense(), whole, atol=1e-12)


def test_a_solve_that_did_not_converge_is_a_warning_of_the_curvature():
    model, train = untrained("attention"), examples(25)
    curvature = fit(model, train, uw.GaussNewton(solver=CG(tolerance=1e-8, steps=2)), 1e-4, sketch_rank=2)
    solved = curvature.solve(model.measure_rows(examples(2, seed=9)))
    assert not solved.converged
    assert f"residual of {solved.residual:.2g} after 2 steps" in curvature.diagnostics["warnings"][-1]


def test_a_hessian_that_had_to_be_raised_is_not_calibrated_and_reports_its_damping():
    model, train = untrained("mlp"), examples(25)
    curvature = model.curvature(train, uw.Hessian(), 0.0)
    matrix = dense_unweighted("mlp", train)
    lowest = np.linalg.eigvalsh(matrix)[0]
    assert curvature.diagnostics["damping"] == pytest.approx(-2 * lowest / 25)
    assert "raised" in curvature.diagnostics["damping_from"]
    assert "Negative curvature" in curvature.diagnostics["warnings"][0]
    assert not curvature.calibrated
    vectors = np.random.default_rng(0).standard_normal((2, model.network.size))
    solved = curvature.solve(DenseRows(curvature.matvec(vectors))).rows.dense()
    np.testing.assert_allclose(solved, vectors, atol=1e-8)


def dense_unweighted(name, train):
    operator = HessianOperator(SummedObjective(untrained(name).network, train, np.ones(len(train)), 0.0, 0.0))
    return direct.assemble(operator).numpy()


def gauss_newton_of(model, train):
    weights = np.random.default_rng(3).uniform(0.5, 2.0, len(train)) * (np.arange(len(train)) != 4)
    return GaussNewtonOperator(SummedObjective(model.network, train, weights, 0.0, 1.0))


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_gauss_newton_matrix_needs_one_pass_per_output_and_no_product(name, monkeypatch):
    operator = gauss_newton_of(untrained(name), examples(25))
    expected = direct.assemble(operator)
    monkeypatch.setattr(direct, "assemble", None)
    matrix = prepare(operator, Direct())._factor
    np.testing.assert_allclose(matrix @ matrix.T, expected + torch.eye(operator.size), atol=1e-10)


def test_a_loss_that_is_not_convex_in_the_outputs_is_recognised():
    def saddle(net, batch):
        z = net(batch.x)
        return z[:, 0] ** 2 - z[:, 1] ** 2

    operator = gauss_newton_of(uw.TorchModel(MAKERS["mlp"]().double(), saddle), examples(25))
    assert not Roots(operator, share=0.998).convex
    assert "Negative curvature" in prepare(operator, Direct()).notes[0]


def test_large_nets_use_conjugate_gradients():
    model, train = untrained("mlp"), examples(25)
    hessian = fit(model, train, uw.Hessian(), 1.0, dense_parameters=10)
    assert hessian.diagnostics["solver"] == "conjugate gradients"
    for sketch_numbers, name in ((1 << 27, f"Nyström, rank {model.network.size}"), (5, "EK-FAC")):
        limits = {"dense_parameters": 10, "dual_rows": 5, "sketch_numbers": sketch_numbers}
        curvature = fit(model, train, uw.GaussNewton(), 0.1, **limits)
        assert curvature.diagnostics["solver"] == f"conjugate gradients preconditioned by {name}"
        assert curvature.solve(model.measure_rows(examples(2, seed=9))).residual < 1e-3


@pytest.mark.parametrize("solver", [None, CG(), uw.Nystrom(rank=5), uw.LiSSA(), Arnoldi(), Direct()], ids=repr)
def test_a_curvature_of_zeros_leaves_the_damping(solver):
    torch.manual_seed(0)
    net, objective = torch.nn.Linear(4, 3).double(), uw.Objective("sum", l2=0.5)
    cross_entropy = torch.nn.functional.cross_entropy
    model = uw.TorchModel(
        net,
        lambda net, batch: 0.0 * cross_entropy(net(batch.x), batch.y, reduction="none"),
        lambda net, batch: cross_entropy(net(batch.x), batch.y, reduction="none"),
        objective=objective,
    )
    x, y = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 3
    queries = model.measure_rows(uw.Examples(x[:2], y[:2]))
    solved = model.curvature(uw.Examples(x, y), uw.GaussNewton(solver=solver), 0.7).solve(queries)
    shift = 0.5 + 20 * 0.7
    np.testing.assert_allclose(solved.rows.dense() * shift, queries.dense(), rtol=1e-6, atol=1e-12)
