"""Every solver against the dense inverse, what it reports, and the fitted curvatures on top of them."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from curved_nets import (
    MAKERS,
    Attention,
    bowl,
    columns,
    cross_entropy,
    damped,
    dense,
    examples,
    model,
    operators,
)
from torch import nn

import upweight as uw
from upweight.core.curvature_recipes import CG, Arnoldi, Direct, LiSSA, Nystrom
from upweight.core.rows import DenseRows
from upweight.curvature import gauss_newton, hessian
from upweight.curvature.operators import GaussNewtonOperator, HessianOperator
from upweight.curvature.solvers import direct, dual, inverse, lissa, prepare, roots
from upweight.curvature.solvers.cg import ConjugateGradients
from upweight.curvature.solvers.dual import DualRows
from upweight.curvature.solvers.lissa import largest_eigenvalue
from upweight.curvature.summed_objective import SummedObjective

EVERY = {
    "direct": Direct(),
    "cg": CG(tolerance=1e-10, steps=500),
    "lissa": LiSSA(depth=150, batch=1000),
    "arnoldi": Arnoldi(rank=1000, steps=1000),
    "nystrom": Nystrom(rank=1000),
}
INDEFINITE = [-0.2, -0.05, 0.0, 0.1, 0.5, 2.0]


def answer(operator, recipe, blocks):
    found = prepare(operator, recipe).solve(blocks)
    return operator.network.join(found.blocks), found


# --- every solver is the inverse --------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", EVERY)
@pytest.mark.parametrize("kind", ["hessian", "gauss-newton"])
@pytest.mark.parametrize("name", MAKERS)
def test_every_solver_is_the_dense_inverse(name, kind, solver):
    matrix = dense(name, kind)
    damping = 1.0 + 2 * abs(min(0.0, np.linalg.eigvalsh(matrix)[0])) + 0.2 * np.linalg.eigvalsh(matrix)[-1]
    operator = damped(operators(name)[kind], damping)
    b, blocks = columns(operator)
    if kind == "hessian" and solver == "nystrom":
        return  # takes the matrix for positive; see below
    x, found = answer(operator, EVERY[solver], blocks)
    expected = np.linalg.solve(matrix + damping * np.eye(len(matrix)), b.T).T
    np.testing.assert_allclose(x, expected, atol=1e-8 * np.abs(expected).max())
    assert found.converged
    assert found.residual < 1e-8
    assert all("invert" not in note and "diverged" not in note for note in found.notes)


@pytest.mark.parametrize("solver", EVERY)
def test_right_hand_sides_do_not_know_of_each_other(solver):
    operator = damped(operators("mlp")["gauss-newton"], 3.0)
    b, _ = columns(operator, 3)
    b[1] *= 1e6
    b[2] = 0.0
    together, _ = answer(operator, EVERY[solver], operator.network.split(b))
    for row, x in zip(b, together, strict=True):
        alone, _ = answer(operator, EVERY[solver], operator.network.split(row[None]))
        np.testing.assert_allclose(x, alone[0], atol=1e-7 * max(1.0, np.abs(row).max()))
    assert not together[2].any()


# --- conjugate gradients ----------------------------------------------------------------------------------------------


def test_a_preconditioner_changes_the_steps_and_not_the_answer():
    operator = damped(operators("cnn")["gauss-newton"], 0.05)
    b, blocks = columns(operator)
    plain = ConjugateGradients(operator, CG(tolerance=1e-9, steps=300)).solve(blocks)
    sketch = prepare(operator, Nystrom(rank=12))
    helped = ConjugateGradients(operator, CG(tolerance=1e-9, steps=300), sketch.precondition, "Nyström").solve(blocks)
    factored = model("cnn").curvature(examples(25), uw.EKFAC(), 0.002)
    by_ekfac = ConjugateGradients(operator, CG(tolerance=1e-9, steps=300), lambda v: factored.inverse(dict(v)))
    exact = np.linalg.solve(dense("cnn", "gauss-newton") + 0.05 * np.eye(operator.size), b.T).T
    for found in (plain, helped, by_ekfac.solve(blocks)):
        assert found.converged
        np.testing.assert_allclose(operator.network.join(found.blocks), exact, atol=1e-6 * np.abs(exact).max())
    assert helped.steps < plain.steps
    perfect = prepare(operator, Direct())
    assert ConjugateGradients(operator, CG(tolerance=1e-9), lambda v: perfect.solve(v).blocks).solve(blocks).steps == 1


def test_the_size_of_a_preconditioner_does_not_matter():
    operator = damped(operators("mlp")["gauss-newton"], 1.0)
    _, blocks = columns(operator)
    sketch = prepare(operator, Nystrom(rank=5))
    found = [
        ConjugateGradients(
            operator,
            CG(tolerance=1e-8),
            lambda v, scale=scale: {name: scale * block for name, block in sketch.precondition(v).items()},
        ).solve(blocks)
        for scale in (2.0**-13, 1.0, 2.0**13)  # powers of two: what is rounded is the same
    ]
    assert all(one.converged for one in found)
    assert len({one.steps for one in found}) == 1


def test_conjugate_gradients_that_run_out_of_steps_say_so():
    operator = damped(operators("attention")["gauss-newton"], 1e-3)
    b, blocks = columns(operator)
    x, found = answer(operator, CG(tolerance=1e-10, steps=3), blocks)
    assert (found.steps, found.converged) == (3, False)
    matrix = dense("attention", "gauss-newton") + 1e-3 * np.eye(operator.size)
    left = np.linalg.norm(x @ matrix - b, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(found.residual, left.max(), rtol=1e-8)


def test_single_precision_reports_the_residual_it_really_has():
    torch.manual_seed(0)
    net = MAKERS["mlp"]()
    network = uw.TorchModel(net, cross_entropy).network
    x = examples(25)
    operator = GaussNewtonOperator(
        SummedObjective(network, uw.Examples(x.x.astype(np.float32), x.y), np.ones(25), 0.0, 1e-2)
    )
    _, blocks = columns(operator)
    found = ConjugateGradients(operator, CG(tolerance=1e-12, steps=2000)).solve(blocks)
    assert not found.converged
    assert 1e-8 < found.residual < 1e-2
    assert found.steps < 2000  # it gives up where starting again does not help


# --- negative curvature -----------------------------------------------------------------------------------------------


def test_the_direct_solver_says_what_is_negative_and_damps_it():
    operator, matrix = bowl(INDEFINITE)
    operator = damped(operator, 0.8)  # covers -0.05 · 40 no more than -0.2 · 40
    solver = prepare(operator, Direct())
    assert solver.shift == pytest.approx(16.0)  # twice the lowest eigenvalue
    assert "2 of 6" in solver.notes[0]
    assert "-0.2" in solver.notes[0]
    assert "raised from 0.02 to 0.4" in solver.notes[0]
    b, blocks = columns(operator)
    found = solver.solve(blocks)
    expected = np.linalg.solve(matrix + 16.0 * np.eye(6), b.T).T
    np.testing.assert_allclose(operator.network.join(found.blocks), expected, atol=1e-10)
    assert found.residual < 1e-10


def test_a_damping_that_covers_negative_curvature_is_left_alone():
    operator = damped(bowl(INDEFINITE)[0], 8.5)
    solver = prepare(operator, Direct())
    assert solver.shift == 8.5
    assert not solver.notes


def test_a_singular_matrix_without_damping_is_raised_by_rounding_alone():
    operator, matrix = bowl([0.0, 0.0, 1.0, 2.0])
    solver = prepare(operator, Direct())
    assert 0 < solver.shift < 1e-10 * np.linalg.norm(matrix)
    assert "singular" in solver.notes[0]


def test_conjugate_gradients_stop_at_negative_curvature_column_by_column():
    operator, matrix = bowl(INDEFINITE)
    operator = damped(operator, 0.8)
    values, vectors = np.linalg.eigh(matrix)
    b = np.stack([vectors[:, 0], vectors[:, 5] + vectors[:, 4]])  # along the negative one, and without any of it
    found = ConjugateGradients(operator, CG(tolerance=1e-8)).solve(operator.network.split(b))
    x = operator.network.join(found.blocks)
    assert not found.converged
    assert "1 of 2 solves" in found.notes[0]
    np.testing.assert_allclose(x[1], vectors[:, 5] / (values[5] + 0.8) + vectors[:, 4] / (values[4] + 0.8), atol=1e-8)
    np.testing.assert_array_equal(x[0], 0.0)


@pytest.mark.parametrize("recipe", [Arnoldi(rank=6, steps=6), Nystrom(rank=6)], ids=str)
def test_low_rank_solvers_report_negative_curvature(recipe):
    operator = damped(bowl(INDEFINITE)[0], 0.8)
    _, blocks = columns(operator)
    found = prepare(operator, recipe).solve(blocks)
    assert "Negative curvature: at least" in found.notes[0]
    assert not found.converged


def test_lissa_gives_up_where_no_scale_helps(monkeypatch):
    monkeypatch.setattr(lissa, "MAX_RESTARTS", 3)
    operator = damped(bowl(INDEFINITE)[0], 0.8)
    _, blocks = columns(operator)
    with pytest.raises(ValueError, match="diverged at every scale from 50"):
        prepare(operator, LiSSA(depth=1000, scale=50.0, batch=1000)).solve(blocks)


# --- LiSSA ------------------------------------------------------------------------------------------------------------


def test_lissa_starts_again_when_its_scale_is_too_small():
    operator, matrix = bowl([0.5, 1.0, 4.0])
    operator = damped(operator, 20.0)
    solver = prepare(operator, LiSSA(depth=200, scale=20.0, batch=1000))
    b, blocks = columns(operator)
    found = solver.solve(blocks)
    assert solver.scale > (np.linalg.eigvalsh(matrix)[-1] + 20) / 2
    assert "started again at" in found.notes[0]
    assert found.converged
    expected = np.linalg.solve(matrix + 20 * np.eye(3), b.T).T
    np.testing.assert_allclose(operator.network.join(found.blocks), expected, rtol=1e-4)


def test_lissa_on_random_batches_comes_near_the_inverse():
    operator, matrix = bowl([0.2, 0.5, 1.0, 2.0])
    operator = damped(operator, 10.0)
    b, blocks = columns(operator)
    recipe = LiSSA(depth=130, repeats=6, scale=300.0, batch=8, seed=3)
    x, _ = answer(operator, recipe, blocks)
    expected = np.linalg.solve(matrix + 10 * np.eye(4), b.T).T
    np.testing.assert_allclose(x, expected, atol=0.02 * np.abs(expected).max())
    again, _ = answer(operator, recipe, blocks)
    np.testing.assert_array_equal(x, again)


def test_a_short_lissa_says_how_long_it_would_take():
    operator = damped(bowl([0.0, 4.0])[0], 1.0)
    _, blocks = columns(operator)
    found = prepare(operator, LiSSA(depth=20, batch=1000)).solve(blocks)
    assert not found.converged
    assert found.residual > 0.1
    assert "20 steps" in found.notes[0]


def test_the_power_iteration_finds_the_largest_eigenvalue():
    assert largest_eigenvalue(bowl([-0.1, 0.3, 1.0])[0], 0) == pytest.approx(40.0)
    assert largest_eigenvalue(bowl([0.0, 0.0])[0], 0) == 0.0


# --- low rank ---------------------------------------------------------------------------------------------------------


def test_arnoldi_inverts_the_largest_directions_and_drops_the_rest():
    operator, matrix = bowl([0.1, 0.2, 3.0, 3.0, 5.0])  # 3 twice, which a Krylov space of one vector sees once
    operator = damped(operator, 1.0)
    b, blocks = columns(operator)
    x, found = answer(operator, Arnoldi(rank=3, steps=5), blocks)
    values, vectors = np.linalg.eigh(matrix)
    top = vectors[:, 2:]
    np.testing.assert_allclose(x, b @ top / (values[2:] + 1.0) @ top.T, atol=1e-9)
    assert not found.converged
    assert found.residual > 0.1


def test_nystrom_needs_a_damping_and_says_what_it_missed():
    operator, _ = bowl([0.5, 1.0, 2.0, 3.0, 4.0])
    with pytest.raises(ValueError, match="damping or an l2"):
        prepare(operator, Nystrom(rank=2))
    operator = damped(operator, 1.0)
    _, blocks = columns(operator)
    found = prepare(operator, Nystrom(rank=2)).solve(blocks)
    assert not found.converged
    assert found.residual > 0.1
    assert prepare(operator, Nystrom(rank=5)).solve(blocks).residual < 1e-8


def test_a_matrix_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(direct, "MAX_MATRIX_PARAMETERS", 5)
    with pytest.raises(ValueError, match=r"solver=CG\(\)"):
        prepare(bowl(INDEFINITE)[0], Direct())


# --- fitted curvatures ------------------------------------------------------------------------------------------------


RECIPES = {
    "hessian": uw.Hessian(),
    "hessian by cg": uw.Hessian(solver=CG(tolerance=1e-9)),
    "gauss-newton": uw.GaussNewton(),
    "gauss-newton by cg": uw.GaussNewton(solver=CG(tolerance=1e-9)),
    "gauss-newton by arnoldi": uw.GaussNewton(solver=Arnoldi(rank=200, steps=200)),
}


@pytest.mark.parametrize("which", RECIPES)
@pytest.mark.parametrize("name", MAKERS)
def test_fitted_curvatures_are_the_dense_inverse_and_say_what_they_are(name, which):
    train, queries = examples(25), examples(3, seed=9)
    weights = np.random.default_rng(3).uniform(0.5, 2.0, 25)
    train = uw.Examples(train.x, train.y, weights=weights)
    kind = which.split(" ")[0]
    here = model(name, l2=0.5)
    curvature = here.curvature(train, RECIPES[which], 0.7)
    total = weights.sum()
    matrix = dense(name, kind) + 1.2 * total * np.eye(here.network.size)
    q = here.measure_rows(queries)
    expected = np.linalg.solve(matrix, q.dense().T).T
    solved = curvature.solve(q)
    np.testing.assert_allclose(solved.rows.dense(), expected, atol=1e-7 * np.abs(expected).max())
    np.testing.assert_allclose(curvature.matvec(expected), q.dense(), atol=1e-10)
    rows = here.loss_rows(train)
    np.testing.assert_allclose(solved.rows.dot(rows), expected @ rows.dense().T, atol=1e-8)
    news = curvature.diagnostics
    assert news["damping"] == pytest.approx(0.7)
    assert (news["warnings"], news["parameters"], news["damping_from"]) == ([], here.network.size, "as given")
    assert solved.converged
    assert not curvature.calibrated  # damped beyond the objective


def test_rows_are_solved_some_at_a_time(monkeypatch):
    here, train = model("mlp"), examples(25)
    curvature = here.curvature(train, uw.GaussNewton(), 0.1)
    rows = here.loss_rows(train)
    whole = curvature.solve(rows).rows.dense()
    monkeypatch.setattr(inverse, "MAX_RIGHT_SIDE_NUMBERS", 3 * here.network.size)
    np.testing.assert_allclose(curvature.solve(rows).rows.dense(), whole, atol=1e-12)
    np.testing.assert_allclose(curvature.solve(DenseRows(rows.dense())).rows.dense(), whole, atol=1e-12)


def test_what_did_not_converge_is_said_by_the_curvature(monkeypatch):
    monkeypatch.setattr(gauss_newton, "SKETCH_RANK", 2)
    here, train = model("attention"), examples(25)
    curvature = here.curvature(train, uw.GaussNewton(solver=CG(tolerance=1e-8, steps=2)), 1e-4)
    solved = curvature.solve(here.measure_rows(examples(2, seed=9)))
    assert not solved.converged
    assert f"residual of {solved.residual:.2g} after 2 steps" in curvature.diagnostics["warnings"][-1]


def test_a_hessian_that_had_to_be_raised_is_not_calibrated_and_reports_its_damping():
    here, train = model("mlp"), examples(25)
    curvature = here.curvature(train, uw.Hessian(), 0.0)
    matrix = dense_unweighted("mlp", train)
    lowest = np.linalg.eigvalsh(matrix)[0]
    assert curvature.diagnostics["damping"] == pytest.approx(-2 * lowest / 25)
    assert "raised" in curvature.diagnostics["damping_from"]
    assert "Negative curvature" in curvature.diagnostics["warnings"][0]
    assert not curvature.calibrated
    vectors = np.random.default_rng(0).standard_normal((2, here.network.size))
    back = curvature.solve(DenseRows(curvature.matvec(vectors))).rows.dense()
    np.testing.assert_allclose(back, vectors, atol=1e-8)


def dense_unweighted(name, train):
    operator = HessianOperator(SummedObjective(model(name).network, train, np.ones(len(train)), 0.0, 0.0))
    return direct.assemble(operator).numpy()


def gauss_newton_of(here, train):
    weights = np.random.default_rng(3).uniform(0.5, 2.0, len(train)) * (np.arange(len(train)) != 4)
    return GaussNewtonOperator(SummedObjective(here.network, train, weights, 0.0, 1.0))


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_gauss_newton_matrix_takes_passes_for_its_outputs_not_for_its_parameters(name, monkeypatch):
    operator = gauss_newton_of(model(name), examples(25))
    expected = direct.assemble(operator)
    monkeypatch.setattr(direct, "assemble", None)
    matrix = prepare(operator, Direct())._factor
    np.testing.assert_allclose(matrix @ matrix.T, expected + torch.eye(operator.size), atol=1e-10)


def test_a_loss_that_is_not_convex_in_the_outputs_is_not_taken_for_one():
    def saddle(net, batch):
        z = net(batch.x)
        return z[:, 0] ** 2 - z[:, 1] ** 2

    operator = gauss_newton_of(uw.TorchModel(MAKERS["mlp"]().double(), saddle), examples(25))
    assert not roots.Roots(operator).convex
    assert "Negative curvature" in prepare(operator, Direct()).notes[0]


def test_large_nets_take_conjugate_gradients(monkeypatch):
    monkeypatch.setattr(hessian, "MAX_DENSE_PARAMETERS", 10)
    monkeypatch.setattr(gauss_newton, "MAX_DENSE_PARAMETERS", 10)
    monkeypatch.setattr(gauss_newton, "MAX_DUAL_ROWS", 5)
    here, train = model("mlp"), examples(25)
    assert here.curvature(train, uw.Hessian(), 1.0).diagnostics["solver"] == "conjugate gradients"
    for room, named in ((gauss_newton.MAX_SKETCH_NUMBERS, f"Nyström, rank {here.network.size}"), (5, "EK-FAC")):
        monkeypatch.setattr(gauss_newton, "MAX_SKETCH_NUMBERS", room)
        fitted = here.curvature(train, uw.GaussNewton(), 0.1)
        assert fitted.diagnostics["solver"] == f"conjugate gradients preconditioned by {named}"
        assert fitted.solve(here.measure_rows(examples(2, seed=9))).residual < 1e-3


# --- the dual form ----------------------------------------------------------------------------------------------------


@pytest.fixture
def in_dual_form(monkeypatch):
    monkeypatch.setattr(gauss_newton, "MAX_DENSE_PARAMETERS", 1)
    monkeypatch.setattr(roots, "TRACE_SHARE", 1.0)


@pytest.mark.parametrize("name", MAKERS)
def test_the_dual_form_is_the_dense_inverse(name, in_dual_form, monkeypatch):
    weights = np.random.default_rng(3).uniform(0.5, 2.0, 25)
    train, queries = examples(25), examples(6, seed=9)
    train = uw.Examples(train.x, train.y, weights=weights)
    here = model(name, l2=0.3)
    curvature = here.curvature(train, uw.GaussNewton(solver=Direct()), 0.01)
    assert "dual form" in curvature.diagnostics["solver"]
    matrix = dense(name, "gauss-newton") + 0.31 * weights.sum() * np.eye(here.network.size)
    q, rows = here.measure_rows(queries), here.loss_rows(train)
    solved = curvature.solve(q)
    expected = np.linalg.solve(matrix, q.dense().T).T
    assert isinstance(solved.rows, DualRows)
    assert solved.converged
    assert solved.residual < 1e-8
    member, some = np.random.default_rng(0).standard_normal((2, 6)), np.array([3, 0, 20])
    x = solved.rows
    np.testing.assert_allclose(x.dense(), expected, atol=1e-9)
    np.testing.assert_allclose(x.dot(rows), expected @ rows.dense().T, atol=1e-9)
    np.testing.assert_allclose(x.dot(rows.take(some)), expected @ rows.dense()[some].T, atol=1e-9)
    np.testing.assert_allclose(x.dot(q), expected @ q.dense().T, atol=1e-9)
    np.testing.assert_allclose(x.dot(x), expected @ expected.T, atol=1e-9)
    np.testing.assert_allclose(x.take(np.array([4, 1])).dense(), expected[[4, 1]], atol=1e-9)
    np.testing.assert_allclose(x.sums(member).dense(), member @ expected, atol=1e-9)
    np.testing.assert_allclose(x.project(matrix), expected @ matrix, atol=1e-8)
    np.testing.assert_allclose(rows.dot(x), rows.dense() @ expected.T, atol=1e-9)
    np.testing.assert_allclose(curvature.matvec(expected), q.dense(), atol=1e-9)
    again = curvature.solve(DenseRows(q.dense())).rows
    np.testing.assert_allclose(again.dot(rows), expected @ rows.dense().T, atol=1e-9)
    # in several pieces, as where the factors do not fit
    monkeypatch.setattr(roots, "HELD", 500)
    pieces = here.curvature(train, uw.GaussNewton(solver=Direct()), 0.01).solve(q).rows
    np.testing.assert_allclose(pieces.dot(rows), expected @ rows.dense().T, atol=1e-9)


def test_scores_in_dual_form_make_no_vector_of_all_parameters(in_dual_form, monkeypatch):
    here, train = model("mlp", l2=0.3), examples(25)
    curvature = here.curvature(train, uw.GaussNewton(solver=Direct()), 0.01)
    q, rows = here.measure_rows(examples(6, seed=9)), here.loss_rows(train)
    solved = curvature.solve(q)

    def refuse(*_):
        raise AssertionError("a row was formed")

    monkeypatch.setattr(type(q), "tensors", refuse)
    monkeypatch.setattr(type(here.network), "join", refuse)
    assert solved.rows.dot(rows).shape == (6, 25)
    assert curvature.solve(q).rows.dot(rows.take(np.arange(5))).shape == (6, 5)


def test_other_examples_with_the_ids_of_training_examples_are_themselves(in_dual_form):
    here, train, others = model("mlp"), examples(25), examples(6, seed=9)
    curvature = here.curvature(train, uw.GaussNewton(solver=Direct()), 0.1)
    x = curvature.solve(here.measure_rows(others)).rows
    rows = here.loss_rows(others)  # ids 0 … 5, as in the training set
    np.testing.assert_allclose(x.dot(rows), x.dense() @ rows.dense().T, atol=1e-10)


def test_the_dual_form_keeps_what_holds_the_trace_and_measures_what_it_leaves_out(monkeypatch):
    monkeypatch.setattr(gauss_newton, "MAX_DENSE_PARAMETERS", 1)
    here, train = model("mlp"), examples(25)
    q = here.measure_rows(examples(6, seed=9))
    counts = []
    for share, converged in ((0.999, True), (0.6, False)):
        monkeypatch.setattr(roots, "TRACE_SHARE", share)
        curvature = here.curvature(train, uw.GaussNewton(solver=Direct()), 0.3)
        solved = curvature.solve(q)
        counts.append(len(curvature._inverse.roots))
        assert solved.converged == converged
        assert bool(curvature.diagnostics["warnings"]) != converged
        left = curvature.matvec(solved.rows.dense()) - q.dense()
        worst = np.linalg.norm(left, axis=1) / np.linalg.norm(q.dense(), axis=1)
        np.testing.assert_allclose(solved.residual, worst[: dual.PROBED_ROWS].max(), rtol=1e-6, atol=1e-12)
    assert counts[1] < counts[0] <= 50  # softmax over three classes has two directions


def test_the_dual_form_sees_parameters_that_hooks_do_not(in_dual_form):
    torch.manual_seed(2)

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.scale = Attention(), nn.Parameter(torch.tensor([0.7, 1.0, 1.3]))

        def forward(self, x):
            return self.inner(x) * self.scale

    here = uw.TorchModel(Scaled().double(), cross_entropy)
    train = examples(12)
    fitted = here.curvature(train, uw.GaussNewton(solver=Direct()), 0.1)
    operator = GaussNewtonOperator(SummedObjective(here.network, train, np.ones(12), 0.0, 1.2))
    b, blocks = columns(operator, 3)
    expected = operator.network.join(prepare(operator, Direct()).solve(blocks).blocks)
    np.testing.assert_allclose(fitted.solve(DenseRows(b)).rows.dense(), expected, atol=1e-9)


def test_a_damping_below_rounding_is_raised_in_dual_form(in_dual_form):
    here, train = model("mlp"), examples(25)
    curvature = here.curvature(train, uw.GaussNewton(solver=Direct()), 0.0)
    assert curvature.diagnostics["damping"] > 0
    assert "rounding" in curvature.diagnostics["warnings"][0]


def test_no_curvature_and_no_damping_is_refused(monkeypatch):
    torch.manual_seed(0)
    here = uw.TorchModel(nn.Linear(12, 1).double(), lambda net, batch: (net(batch.x)[:, 0] - 9.0).abs())
    train = examples(10)
    for small in (3000, 1):
        monkeypatch.setattr(gauss_newton, "MAX_DENSE_PARAMETERS", small)
        with pytest.raises(ValueError, match="give a damping"):
            here.curvature(train, uw.GaussNewton(solver=Direct()), 0.0)
        q = here.measure_rows(train)
        flat = here.curvature(train, uw.GaussNewton(solver=Direct()), 0.5).solve(q)  # λ alone
        np.testing.assert_allclose(flat.rows.dense(), q.dense() / 5.0, atol=1e-12)


def test_neither_form_fits_is_said_with_a_way_out(in_dual_form, monkeypatch):
    here, train = model("mlp"), examples(25)
    monkeypatch.setattr(gauss_newton, "MAX_DUAL_ROWS", 5)
    fits = here.curvature(train, uw.GaussNewton(solver=Direct()), 0.1)
    assert fits.diagnostics["solver"] == "Cholesky"
    monkeypatch.setattr(gauss_newton, "MAX_MATRIX_PARAMETERS", 5)
    for room in (gauss_newton.MAX_HESSIAN_NUMBERS, 1):
        monkeypatch.setattr(gauss_newton, "MAX_HESSIAN_NUMBERS", room)
        with pytest.raises(ValueError, match=r"no room .* use solver=CG\(\)"):
            here.curvature(train, uw.GaussNewton(solver=Direct()), 0.1)


def test_the_net_is_left_as_it_was_by_every_solver():
    torch.manual_seed(5)
    net = MAKERS["mlp"]().double().train()
    here = uw.TorchModel(net, cross_entropy)
    train, q = examples(12), examples(2, seed=9)

    def belongings():
        state = b"".join(v.numpy().tobytes() for v in net.state_dict().values())
        hooks = [len(m._forward_hooks) + len(m._backward_hooks) for m in net.modules()]
        grads = [(p.grad is None, p.requires_grad) for p in net.parameters()]
        return (
            state,
            hooks,
            grads,
            net[0].training,
            torch.random.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),
        )

    before = belongings()
    for recipe in (*EVERY.values(), replace(EVERY["lissa"], batch=4, depth=20)):
        here.curvature(train, uw.GaussNewton(solver=recipe), 0.5).solve(here.measure_rows(q))
        assert belongings() == before
