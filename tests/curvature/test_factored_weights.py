"""KFAC and EK-FAC of weighted examples against dense matrices in float64, and against repeated examples."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import upweight as uw
from support.curved_nets import fit
from upweight.core.rows import DenseRows

N, CLASSES = 14, 3
WEIGHTS = {
    "whole": np.where(np.arange(N) == 4, 10.0, np.where(np.arange(N) % 5 == 0, 0.0, 1.0)),
    "fractional": np.random.default_rng(7).uniform(0.2, 2.5, N),
}


def problem(weights: np.ndarray) -> tuple[Any, uw.Examples]:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES)).double()
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(N, 4)), rng.integers(0, CLASSES, N)
    x[4] *= 4
    loss = lambda net, batch: F.cross_entropy(net(batch.x), batch.y, reduction="none")  # noqa: E731
    return uw.TorchModel(net, loss, objective=uw.Objective("mean", l2=0.01)), uw.Examples(x, y, weights=weights)


def factors(model: Any, train: uw.Examples) -> list[tuple[np.ndarray, np.ndarray]]:
    """For both layers: inputs with a one (n, d_i + 1), and output gradients of every direction (n, C, d_o)."""
    net, x = model.network.net, torch.as_tensor(train.x)
    first = net[0](x)
    hidden = torch.tanh(first)
    last = net[2](hidden)
    p = torch.softmax(last, 1).detach()
    values, vectors = torch.linalg.eigh(torch.diag_embed(p) - p[:, :, None] * p[:, None])
    roots = (vectors * values.clamp_min(0).sqrt()[:, None]).transpose(1, 2)  # (n, C, C), one direction a row
    back = [torch.autograd.grad((last * roots[:, c]).sum(), first, retain_graph=True)[0] for c in range(CLASSES)]
    ones = torch.ones(len(x), 1, dtype=torch.float64)
    slopes = (torch.stack(back, dim=1), roots)
    return [(torch.cat([a, ones], 1).detach().numpy(), s.numpy()) for a, s in zip((x, hidden), slopes, strict=True)]


def block(a: np.ndarray, s: np.ndarray, weights: np.ndarray, refined: bool) -> np.ndarray:
    """One layer's (d_o (d_i + 1))² matrix, weight and bias side by side."""
    total = weights.sum()
    inputs = np.einsum("n,ni,nj->ij", weights, a, a) / total
    outputs = np.einsum("n,nco,ncp->op", weights, s, s) / total
    if not refined:
        return total * np.kron(outputs, inputs)
    left, right = np.linalg.eigh(outputs)[1], np.linalg.eigh(inputs)[1]
    moments = np.einsum("n,nco,ni->oi", weights, (s @ left) ** 2, (a @ right) ** 2)
    basis = np.kron(left, right)
    return basis @ np.diag(moments.ravel()) @ basis.T


def joined(vectors: np.ndarray, d_o: int, d_i: int) -> np.ndarray:
    """(k, weight and bias of a layer as in the net) as (k, d_o, d_i + 1), flattened."""
    weight, bias = vectors[:, : d_o * d_i].reshape(-1, d_o, d_i), vectors[:, d_o * d_i :]
    return np.concatenate([weight, bias[:, :, None]], axis=2).reshape(len(vectors), -1)


@pytest.mark.parametrize("refined", [False, True], ids=["KFAC", "EK-FAC"])
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_factors_and_moments_are_weighted_sums(weights: np.ndarray, refined: bool) -> None:
    model, train = problem(weights)
    curvature = model.curvature(train, uw.EKFAC() if refined else uw.KFAC(), 0.1)
    size = model.network.size
    matrix = curvature.matvec(np.eye(size))
    shift, edge = 0.11 * weights.sum(), 5 * 4 + 5
    for (a, s), where in zip(factors(model, train), (slice(0, edge), slice(edge, size)), strict=True):
        d_o, d_i = s.shape[2], a.shape[1] - 1
        order = joined(np.arange(d_o * d_i + d_o)[None], d_o, d_i)[0]  # where each entry of the block is in the net
        layer_block = matrix[where, where][np.ix_(order, order)]
        expected = block(a, s, weights, refined) + shift * np.eye(len(order))
        np.testing.assert_allclose(layer_block, expected, atol=1e-10 * np.abs(expected).max())
    assert np.abs(matrix[:edge, edge:]).max() == 0


class Writer(nn.Module):
    """Predicts the next symbols of a sequence; 0 is padding and has no loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(7, 6), nn.Linear(6, 6), nn.Linear(6, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.mix(self.embed(x).cumsum(1))))


def sequences(weights: np.ndarray | None, rows: np.ndarray | None = None) -> tuple[Any, uw.Examples]:
    torch.manual_seed(0)
    net = Writer().double()

    def loss(net: nn.Module, batch: Any) -> torch.Tensor:
        losses = F.cross_entropy(net(batch.x).transpose(1, 2), batch.y, reduction="none", ignore_index=0)
        return losses.sum(1)

    ids = np.random.default_rng(4).integers(1, 7, (N, 6))
    for i in range(N):
        ids[i, 2 + i % 5 :] = 0  # lengths differ, so tokens and examples are counted differently
    ids = ids if rows is None else ids[rows]
    return uw.TorchModel(net, loss), uw.Examples(ids[:, :-1], ids[:, 1:], weights=weights)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("damping", [0.05, None], ids=["given", "automatic"])
@pytest.mark.parametrize("recipe", [uw.KFAC(), uw.EKFAC(), uw.GaussNewton(), uw.Diagonal()], ids=str)
def test_tokens_of_weighted_sequences_are_counted_as_those_of_copies(recipe: Any, damping: float | None) -> None:
    weights = WEIGHTS["whole"]
    model, train = sequences(weights)
    _, copies = sequences(None, np.repeat(np.arange(N), weights.astype(int)))
    weighted, repeated = (model.curvature(examples, recipe, damping) for examples in (train, copies))
    q = DenseRows(np.random.default_rng(0).normal(size=(3, model.network.size)))
    solved, expected = (curvature.solve(q).rows.dense() for curvature in (weighted, repeated))
    np.testing.assert_allclose(solved, expected, atol=1e-9 * np.abs(expected).max())
    assert weighted.diagnostics["damping"] == pytest.approx(repeated.diagnostics["damping"], rel=1e-9)


def test_examples_of_weight_zero_take_no_draws_from_the_others() -> None:
    weights = np.ones(N)
    weights[: N // 2] = 0.0
    model, train = sequences(weights)
    counted = train.take(np.flatnonzero(weights))
    whole, part = (
        fit(model, examples, uw.KFAC(), 0.05, exact_outputs=1, total_draws=N) for examples in (train, counted)
    )
    assert whole.diagnostics["label_expectation"] == part.diagnostics["label_expectation"] == "sampled, 2 draws"
    vectors = np.eye(model.network.size)[:4]
    np.testing.assert_array_equal(whole.matvec(vectors), part.matvec(vectors))
