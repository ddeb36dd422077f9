"""DataInf against the mean of dense inverses, in float64."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import upweight as uw
from support.curved_nets import cross_entropy, examples, untrained
from upweight.core.rows import DenseRows
from upweight.gradients.batches import Batch
from upweight.gradients.captured_rows import CapturedRows

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


@pytest.mark.sweep(3)
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
    membership = np.random.default_rng(0).standard_normal((2, 6))
    np.testing.assert_allclose(x.sums(membership).dense(), membership @ expected, atol=1e-9 * size)
    np.testing.assert_allclose(x.project(inverse), expected @ inverse, atol=1e-9 * size)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("cached", "absent"), [(True, None), (False, None), (True, 4), (False, 4)])
def test_products_of_training_examples_with_themselves_equal_dense_ones(name, cached, absent):
    weights = np.random.default_rng(3).uniform(0.5, 2.0, 25)
    weights[[] if absent is None else absent] = 0.0
    train = uw.Examples(examples(25).x, examples(25).y, weights=weights)
    model = untrained(name, l2=0.02)
    curvature = model.curvature(train, uw.DataInf(), 0.3)
    if not cached:  # training gradients are captured again, a few examples at a time
        curvature.rows = CapturedRows(model.network, curvature.summed.train, "loss")
        curvature.rows.max_batch_examples, curvature.rows.max_held_numbers = 4, 1
    gradients = uw.TorchModel(model.network.net, model.network.loss).loss_rows(examples(25)).dense()
    inverse = mean_of_inverses(model.network, gradients, weights, 0.02, 0.3)
    measured, rows, q = model.measure_rows(train), model.loss_rows(train), model.measure_rows(examples(25, seed=9))
    for left, right in [(measured, rows), (rows, rows), (rows, measured), (q, rows)]:
        expected = np.einsum("ip,pq,iq->i", left.dense(), inverse, right.dense())
        np.testing.assert_allclose(curvature.paired(left, right), expected, atol=1e-9 * np.abs(expected).max())


def test_scores_of_texts_take_a_pass_over_the_training_set_once():
    texts = [f"text {i}" for i in range(20)]
    x = dict(zip(texts, examples(20).x, strict=True))
    passes = []

    def collate(given):
        passes.append(len(given))
        return Batch(torch.as_tensor(np.stack([x[text] for text in given.x])), torch.as_tensor(given.y))

    trained = untrained("mlp")
    model = uw.TorchModel(trained.network.net, trained.network.loss, collate=collate)
    train = uw.Examples(texts[:16], examples(20).y[:16])
    fitted = uw.Influence(curvature=uw.DataInf(), damping=0.3).fit(model, train)
    assert fitted.gradient_norm is not None  # and the inspections are done
    queries = uw.Examples(texts[16:], examples(20).y[16:], ids=list("abcd"))
    fitted.attribute(queries)
    passes.clear()
    fitted.attribute(queries)
    assert sum(passes) <= 4 * len(queries)
    passes.clear()
    assert fitted.self_influence().values.shape == (1, 16) and sum(passes) == 0


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
