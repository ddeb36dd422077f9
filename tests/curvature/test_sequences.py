"""Losses with positions: their output Hessians block by block, and directions drawn, against dense matrices."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import Tensor, nn  # noqa: E402

import upweight as uw  # noqa: E402
from upweight.curvature import label_expectation  # noqa: E402
from upweight.curvature.output_roots import output_root  # noqa: E402
from upweight.curvature.summed_objective import SummedObjective  # noqa: E402
from upweight.gradients.outputs import Outputs  # noqa: E402

LENGTH, SYMBOLS, WIDTH = 4, 5, 4


class Writer(nn.Module):
    """One block of causal attention over a few symbols."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(SYMBOLS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.qkv, self.up, self.norm = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, SYMBOLS)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.head(self.norm(x + F.gelu(self.up(F.scaled_dot_product_attention(q, k, v, is_causal=True)))))


def tokens(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z.transpose(1, 2), y, reduction="none")


def masked(z: Tensor, y: Tensor) -> Tensor:
    kept = (y > 0) * torch.arange(1, y.shape[1] + 1)
    return (tokens(z, y) * kept).sum(1) / kept.sum(1).clamp_min(1)


LOSSES = {
    "mean": (lambda z, y: tokens(z, y).mean(1), 1),
    "masked": (masked, 1),
    "sharpened": (lambda z, y: tokens(2 * z, y).sum(1), 1),
    "squared": (lambda z, y: (z - y[..., None]).square().sum((1, 2)), 0),
    "perplexity": (lambda z, y: tokens(z, y).mean(1).exp(), 2),
    "last two": (lambda z, y: tokens(z, y).sum(1) + tokens(z, y)[:, -2] * tokens(z, y)[:, -1], 2),
}


def examples(n: int = 6) -> uw.Examples:
    ids = np.random.default_rng(0).integers(0, SYMBOLS, (n, LENGTH + 1))
    return uw.Examples(ids[:, :-1], ids[:, 1:], weights=np.random.default_rng(1).uniform(0.5, 2.0, n))


@functools.cache
def model() -> Any:
    torch.manual_seed(0)
    return uw.TorchModel(Writer().double(), lambda net, batch: tokens(net(batch.x), batch.y).mean(1))


@functools.cache
def dense() -> np.ndarray:
    """Σ wᵢ Jᵢᵀ Λᵢ Jᵢ, one output at a time."""
    network, train, total = model().network, examples(), 0.0
    parameters = list(network.parameters().values())
    for one, weight in zip(train.batches(1), train.weights, strict=True):
        batch = network.batch(one)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            z = network.net(batch.x)
            each = [torch.autograd.grad(v, parameters, retain_graph=True) for v in z.flatten()]
        jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in each])
        bend = torch.func.hessian(lambda flat, y=batch.y: tokens(flat.view(1, LENGTH, SYMBOLS), y).mean())
        total = total + float(weight) * jacobian.T @ bend(z.detach().flatten()) @ jacobian
    return np.asarray(total.numpy())


def said(name: str) -> tuple[Outputs, int]:
    loss, joint = LOSSES[name]
    drawn = torch.Generator().manual_seed(3)
    z = torch.randn(3, LENGTH, SYMBOLS, dtype=torch.float64, generator=drawn)
    y = torch.randint(1, SYMBOLS, (3, LENGTH), generator=drawn)
    y[0, 1] = 0
    return Outputs(z, lambda at: loss(at, y)), joint


@pytest.mark.parametrize("name", LOSSES)
def test_positions_that_do_not_interact_are_seen(name: str) -> None:
    out, joint = said(name)
    assert out.joint_axes() == joint


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "last two"])
def test_the_root_of_the_blocks_is_that_of_the_whole_hessian(name: str) -> None:
    out, joint = said(name)
    root, count = output_root(out, joint), LENGTH * SYMBOLS
    columns = [root(unit.view(1, LENGTH, SYMBOLS).expand(3, -1, -1).double()).flatten(1) for unit in torch.eye(count)]
    factor = torch.stack(columns, dim=2)
    torch.testing.assert_close(factor @ factor.transpose(1, 2), out.hessians(), atol=1e-12, rtol=0)


def test_blocks_without_room_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upweight.curvature.output_roots.MAX_BLOCK_NUMBERS", 100)
    out, joint = said("perplexity")
    with pytest.raises(ValueError, match="EmpiricalFisher"):
        output_root(out, joint)
    out, joint = said("mean")  # cross-entropy needs none
    output_root(out, joint)


def summed(train: uw.Examples | None = None) -> SummedObjective:
    train = examples() if train is None else train
    return SummedObjective(model().network, train, np.asarray(train.weights), 0.0, 0.0)


def gathered(objective: SummedObjective, seed: int = 0) -> np.ndarray:
    network, total = model().network, 0.0
    for _, captured in label_expectation.expected_gradients(objective, seed=seed):
        rows = network.join({name: captured.materialise(name) for name in network.names})
        total = total + rows.T @ rows
    return np.asarray(total)


def test_all_directions_give_the_gauss_newton_matrix() -> None:
    np.testing.assert_allclose(gathered(summed()), dense(), atol=1e-10)
    assert label_expectation.label_expectation(summed()) == "exact"


def test_draws_arrive_at_the_gauss_newton_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_expectation, "MAX_EXACT_OUTPUTS", 1)
    errors = []
    for draws in (4, 400):
        monkeypatch.setattr(label_expectation, "TOTAL_DRAWS", 6 * draws)
        monkeypatch.setattr(label_expectation, "MAX_DRAWS_PER_EXAMPLE", draws)
        assert label_expectation.label_expectation(summed()) == f"sampled, {draws} draw{'s' * (draws > 1)}"
        errors.append([np.linalg.norm(gathered(summed(), seed) - dense()) for seed in range(3)])
    few, many = np.sqrt(np.square(errors).mean(axis=1)) / np.linalg.norm(dense())
    assert many < 0.1
    assert 5 < few / many < 20  # √100


def test_an_example_has_the_same_draws_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_expectation, "MAX_EXACT_OUTPUTS", 1)
    there = gathered(summed())
    np.testing.assert_allclose(gathered(summed(examples().take([3, 0, 5, 1, 4, 2]))), there, atol=1e-12)
    monkeypatch.setattr(label_expectation, "MAX_BATCH_EXAMPLES", 2)
    np.testing.assert_allclose(gathered(summed()), there, atol=1e-12)
    assert np.abs(gathered(summed(), seed=1) - there).max() > 1e-3


@pytest.mark.parametrize("draws", [None, 400])
def test_ekfac_of_a_language_model_has_the_trace_of_the_gauss_newton_matrix(
    draws: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if draws:
        for name, value in (("MAX_EXACT_OUTPUTS", 1), ("TOTAL_DRAWS", 6 * draws), ("MAX_DRAWS_PER_EXAMPLE", draws)):
            monkeypatch.setattr(label_expectation, name, value)
    curvature = model().curvature(examples(), uw.EKFAC(), 0.0)
    trace = np.trace(curvature.matvec(np.eye(model().network.size)))
    np.testing.assert_allclose(trace, np.trace(dense()), rtol=0.05 if draws else 1e-9)
    assert curvature.diagnostics["label_expectation"] == (
        f"sampled, {draws} draw{'s' * (draws > 1)}" if draws else "exact"
    )
    assert (curvature.corrected(model().loss_rows(examples())) is None) == bool(draws)


@pytest.mark.parametrize("solver", [None, uw.CG(tolerance=1e-10, steps=400)], ids=str)
def test_gauss_newton_of_a_language_model_is_solved(solver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_expectation, "MAX_EXACT_OUTPUTS", 1)  # the solution is not that of the draws
    monkeypatch.setattr("upweight.curvature.gauss_newton.MAX_SKETCH_NUMBERS", 1)
    curvature = model().curvature(examples(), uw.GaussNewton(solver=solver), 0.05)
    rows = model().measure_rows(examples())
    shifted = dense() + 0.05 * examples().weights.sum() * np.eye(model().network.size)
    np.testing.assert_allclose(
        curvature.solve(rows).rows.dense(), np.linalg.solve(shifted, rows.dense().T).T, atol=1e-7
    )


@pytest.mark.parametrize("exact", [label_expectation.MAX_EXACT_OUTPUTS, 1], ids=["all directions", "drawn"])
@pytest.mark.parametrize("curvature", [uw.EKFAC(), uw.KFAC(), uw.GaussNewton()], ids=lambda c: type(c).__name__)
def test_padding_changes_nothing(curvature: Any, exact: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_expectation, "MAX_EXACT_OUTPUTS", exact)
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, SYMBOLS, length + 1) for length in (2, 3, 2, 2, 3, 2)]

    def padded(length: int, order: Any) -> uw.Examples:
        x, y = np.zeros((6, length), dtype=int), np.full((6, length), -100)
        for row, text in enumerate(texts):
            x[row, : len(text) - 1], y[row, : len(text) - 1] = text[:-1], text[1:]
        return uw.Examples(x[order], y[order], ids=np.arange(6)[order])

    torch.manual_seed(0)
    here = uw.TorchModel(Writer().double(), lambda net, batch: tokens(net(batch.x), batch.y).sum(1))
    short, long = (padded(length, np.arange(6)) for length in (3, LENGTH))
    turned = padded(LENGTH, np.array([3, 1, 5, 0, 4, 2]))
    found = [uw.Influence(curvature=curvature).fit(here, s).attribute(short).values for s in (short, long, turned)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-9 * np.abs(found[0]).max())
    np.testing.assert_allclose(found[0][:, turned.ids], found[2], atol=1e-9 * np.abs(found[0]).max())
