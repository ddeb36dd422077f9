"""Every solver: that it is the dense inverse, what it reports, and that it leaves the net as it was."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import upweight as uw
from support.curved_nets import (
    INDEFINITE,
    MAKERS,
    SOLVERS,
    bowl,
    columns,
    cross_entropy,
    damped,
    dense,
    examples,
    operators,
    solve,
)
from upweight.core.curvature_recipes import Arnoldi, Direct, Nystrom
from upweight.curvature.limits import Limits
from upweight.curvature.operators import HessianOperator
from upweight.curvature.solvers import prepare


@pytest.mark.sweep(3)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["hessian", "gauss-newton"])
@pytest.mark.parametrize("name", MAKERS)
def test_every_solver_is_the_dense_inverse(name, kind, solver):
    matrix = dense(name, kind)
    damping = 1.0 + 2 * abs(min(0.0, np.linalg.eigvalsh(matrix)[0])) + 0.2 * np.linalg.eigvalsh(matrix)[-1]
    operator = damped(operators(name)[kind], damping)
    b, blocks = columns(operator)
    if kind == "hessian" and solver == "nystrom":
        return  # takes the matrix for positive; see below
    x, solution = solve(operator, SOLVERS[solver], blocks)
    expected = np.linalg.solve(matrix + damping * np.eye(len(matrix)), b.T).T
    np.testing.assert_allclose(x, expected, atol=1e-8 * np.abs(expected).max())
    assert solution.converged
    assert solution.residual < 1e-8
    assert all("invert" not in note and "diverged" not in note for note in solution.notes)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("solver", SOLVERS)
def test_right_hand_sides_do_not_depend_on_each_other(solver):
    operator = damped(operators("mlp")["gauss-newton"], 3.0)
    b, _ = columns(operator, 3)
    b[1] *= 1e6
    b[2] = 0.0
    together, _ = solve(operator, SOLVERS[solver], operator.network.split(b))
    for row, x in zip(b, together, strict=True):
        alone, _ = solve(operator, SOLVERS[solver], operator.network.split(row[None]))
        np.testing.assert_allclose(x, alone[0], atol=1e-7 * max(1.0, np.abs(row).max()))
    assert not together[2].any()


def test_the_net_is_left_as_it_was_by_every_solver():
    torch.manual_seed(5)
    net = MAKERS["mlp"]().double().train()
    model = uw.TorchModel(net, cross_entropy)
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
    for recipe in (*SOLVERS.values(), replace(SOLVERS["lissa"], batch=4, depth=20)):
        model.curvature(train, uw.GaussNewton(solver=recipe), 0.5).solve(model.measure_rows(q))
        assert belongings() == before


# --- negative curvature -----------------------------------------------------------------------------------------------


def test_the_direct_solver_reports_negative_eigenvalues_and_damps_them():
    operator, matrix = bowl(INDEFINITE)
    operator = damped(operator, 0.8)  # covers -0.05 · 40 no more than -0.2 · 40
    solver = prepare(operator, Direct())
    assert solver.shift == pytest.approx(16.0)  # twice the lowest eigenvalue
    assert "2 of 6" in solver.notes[0]
    assert "-0.2" in solver.notes[0]
    assert "raised from 0.02 to 0.4" in solver.notes[0]
    b, blocks = columns(operator)
    solution = solver.solve(blocks)
    expected = np.linalg.solve(matrix + 16.0 * np.eye(6), b.T).T
    np.testing.assert_allclose(operator.network.join(solution.blocks), expected, atol=1e-10)
    assert solution.residual < 1e-10


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


@pytest.mark.parametrize("recipe", [Arnoldi(rank=6, steps=6), Nystrom(rank=6)], ids=str)
def test_low_rank_solvers_report_negative_curvature(recipe):
    operator = damped(bowl(INDEFINITE)[0], 0.8)
    _, blocks = columns(operator)
    solution = prepare(operator, recipe).solve(blocks)
    assert "Negative curvature: at least" in solution.notes[0]
    assert not solution.converged


# --- low rank ---------------------------------------------------------------------------------------------------------


def test_arnoldi_inverts_the_largest_directions_and_drops_the_rest():
    operator, matrix = bowl([0.1, 0.2, 3.0, 3.0, 5.0])  # 3 twice, which a Krylov space of one vector sees once
    operator = damped(operator, 1.0)
    b, blocks = columns(operator)
    x, solution = solve(operator, Arnoldi(rank=3, steps=5), blocks)
    values, vectors = np.linalg.eigh(matrix)
    top = vectors[:, 2:]
    np.testing.assert_allclose(x, b @ top / (values[2:] + 1.0) @ top.T, atol=1e-9)
    assert not solution.converged
    assert solution.residual > 0.1


def test_nystrom_needs_a_damping_and_reports_what_it_missed():
    operator, _ = bowl([0.5, 1.0, 2.0, 3.0, 4.0])
    with pytest.raises(ValueError, match="damping or an l2"):
        prepare(operator, Nystrom(rank=2))
    operator = damped(operator, 1.0)
    _, blocks = columns(operator)
    solution = prepare(operator, Nystrom(rank=2)).solve(blocks)
    assert not solution.converged
    assert solution.residual > 0.1
    assert prepare(operator, Nystrom(rank=5)).solve(blocks).residual < 1e-8


def test_a_matrix_that_does_not_fit_is_refused():
    operator, _ = bowl(INDEFINITE)
    limited = replace(operator.summed, limits=Limits(matrix_parameters=5))
    with pytest.raises(ValueError, match=r"solver=CG\(\)"):
        prepare(HessianOperator(limited), Direct())
