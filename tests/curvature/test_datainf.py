"""DataInf against the mean of dense inverses, in float64."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import upweight as uw
from support.curved_nets import cross_entropy, examples, untrained
from upweight.core.rows import DenseRows

NETS = ["mlp", "cnn", "attention"]


def mean_of_inverses(network, gradients, weights, ridge, damping) -> np.ndarray:
    """(1/W) Σ (wᵢ/W) (λ + gᵢgᵢᵀ)⁻¹, one block per module; damping None is a tenth of the mean squared gradient."""
    total, size, start = weights.sum(), network.size, 0
    modules: dict[str, list[int]] = {}
    for name in network.names:
        stop = start + int(np.prod(network.shapes[name]))
        modules.setdefault(name.rpartition(".")[0], []).extend(range(start, stop))
        start = stop
    out = np.zeros((size, size))
    for positions in modules.values():
        g = gradients[:, positions]
        added = 0.1 * weights @ (g**2).sum(axis=1) / total / len(positions) if damping is None else damping
        inverses = [np.linalg.inv(np.outer(row, row) + (ridge + added) * np.eye(len(positions))) for row in g]
        out[np.ix_(positions, positions)] = np.einsum("n,npq->pq", weights / total**2, inverses)
    return out


@pytest.mark.parametrize("damping", [None, 0.3])
@pytest.mark.parametrize("name", NETS)
def test_it_is_the_mean_of_inverses(name, damping):
    weights = np.random.default_rng(3).uniform(0.5, 2.0, 25)
    weights[4] = 0.0
    train, queries = examples(25), examples(6, seed=9)
    train = uw.Examples(train.x, train.y, weights=weights)
    model = untrained(name, l2=0.02)
    curvature = model.curvature(train, uw.DataInf(), damping)
    gradients = uw.TorchModel(model.network.net, model.network.loss).loss_rows(examples(25)).dense()
    inverse = mean_of_inverses(model.network, gradients, weights, 0.02, damping)
    q, rows = model.measure_rows(queries), model.loss_rows(train)
    x, expected = curvature.solve(q).rows, q.dense() @ inverse
    size, positions = np.abs(expected).max(), np.array([3, 0, 20])
    np.testing.assert_allclose(x.dense(), expected, atol=1e-10 * size)
    np.testing.assert_allclose(curvature.solve(DenseRows(q.dense())).rows.dense(), expected, atol=1e-10 * size)
    for floats in (0, 10**9):  # through products with the training gradients, and through the rows
        curvature.floats = floats
        scores = curvature.solve(q).rows.dot(rows)
        np.testing.assert_allclose(scores, expected @ rows.dense().T, atol=1e-9 * np.abs(scores).max())
        np.testing.assert_allclose(x.dot(rows.take(positions)), scores[:, positions], atol=1e-9 * np.abs(scores).max())
        np.testing.assert_allclose(
            x.take(positions[:2]).dot(q), expected[positions[:2]] @ q.dense().T, atol=1e-9 * size
        )
    np.testing.assert_allclose(rows.dot(x), scores.T, atol=1e-9 * np.abs(scores).max())
    np.testing.assert_allclose(curvature.matvec(expected), q.dense(), atol=1e-9)
    member = np.random.default_rng(0).standard_normal((2, 6))
    np.testing.assert_allclose(x.sums(member).dense(), member @ expected, atol=1e-9 * size)
    np.testing.assert_allclose(x.project(inverse), expected @ inverse, atol=1e-9 * size)


def test_for_one_example_and_one_module_it_is_the_empirical_fisher():
    torch.manual_seed(0)
    model = uw.TorchModel(torch.nn.Linear(12, 3).double(), cross_entropy)
    train, q = examples(1), model.measure_rows(examples(4, seed=9))
    x, y = (
        model.curvature(train, recipe, 0.4).solve(q).rows.dense() for recipe in (uw.DataInf(), uw.EmpiricalFisher())
    )
    np.testing.assert_allclose(x, y, atol=1e-12)


def test_the_damping_is_reported_and_nothing_to_invert_is_refused():
    model, train = untrained("mlp"), examples(25)
    scores = uw.Influence(curvature=uw.DataInf()).fit(model, train).attribute(examples(3, seed=9))
    assert scores.unit == uw.Unit.RANK
    assert scores.diagnostics["damping"] > 0
    assert "every layer" in scores.diagnostics["damping_from"]
    with pytest.raises(ValueError, match="give a damping"):
        model.curvature(train, uw.DataInf(), 0.0)
