"""Losses with positions: output Hessians block by block, and random directions, against dense matrices."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import Tensor, nn  # noqa: E402

import upweight as uw  # noqa: E402
from support.curved_nets import fit, with_limits  # noqa: E402
from upweight.curvature import label_expectation  # noqa: E402
from upweight.curvature.limits import Limits  # noqa: E402
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
    token_weights = (y > 0) * torch.arange(1, y.shape[1] + 1)
    return (tokens(z, y) * token_weights).sum(1) / token_weights.sum(1).clamp_min(1)


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
    for example, weight in zip(train.batches(1), train.weights, strict=True):
        batch = network.batch(example)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            z = network.net(batch.x)
            rows = [torch.autograd.grad(v, parameters, retain_graph=True) for v in z.flatten()]
        jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
        output_hessian = torch.func.hessian(lambda flat, y=batch.y: tokens(flat.view(1, LENGTH, SYMBOLS), y).mean())
        total = total + float(weight) * jacobian.T @ output_hessian(z.detach().flatten()) @ jacobian
    return np.asarray(total.numpy())


def random_outputs(name: str) -> tuple[Outputs, int]:
    """Outputs of three sequences under this loss, and how many trailing axes it joins."""
    loss, joint = LOSSES[name]
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(3, LENGTH, SYMBOLS, dtype=torch.float64, generator=generator)
    y = torch.randint(1, SYMBOLS, (3, LENGTH), generator=generator)
    y[0, 1] = 0
    return Outputs(z, lambda at: loss(at, y)), joint


@pytest.mark.parametrize("name", LOSSES)
def test_positions_that_do_not_interact_are_recognised(name: str) -> None:
    out, joint = random_outputs(name)
    assert out.joint_axes() == joint


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "last two"])
def test_the_root_of_the_blocks_is_a_root_of_the_whole_hessian(name: str) -> None:
    out, joint = random_outputs(name)
    root, count = output_root(out, joint), LENGTH * SYMBOLS
    columns = [root(unit.view(1, LENGTH, SYMBOLS).expand(3, -1, -1).double()).flatten(1) for unit in torch.eye(count)]
    factor = torch.stack(columns, dim=2)
    torch.testing.assert_close(factor @ factor.transpose(1, 2), out.hessians(), atol=1e-12, rtol=0)


def test_blocks_that_are_too_large_are_refused() -> None:
    out, joint = random_outputs("perplexity")
    with pytest.raises(ValueError, match="EmpiricalFisher"):
        output_root(out, joint, max_numbers=100)
    out, joint = random_outputs("mean")  # cross-entropy needs no blocks
    output_root(out, joint, max_numbers=100)


def objective(train: uw.Examples | None = None, **limits: int) -> SummedObjective:
    train = examples() if train is None else train
    return SummedObjective(model().network, train, np.asarray(train.weights), 0.0, 0.0, limits=Limits(**limits))


def gauss_newton(summed: SummedObjective, seed: int = 0, batch_examples: int | None = None) -> np.ndarray:
    """The matrix summed from gradients along label directions."""
    network, total = summed.network, 0.0
    for _, captured in label_expectation.expected_gradients(summed, seed=seed, batch_examples=batch_examples):
        rows = network.join({name: captured.materialise(name) for name in network.names})
        total = total + rows.T @ rows
    return np.asarray(total)


def test_all_directions_give_the_gauss_newton_matrix() -> None:
    np.testing.assert_allclose(gauss_newton(objective()), dense(), atol=1e-10)
    assert label_expectation.label_expectation(objective()) == "exact"


def test_random_directions_converge_to_the_gauss_newton_matrix() -> None:
    errors = []
    for draws in (4, 400):
        summed = objective(exact_outputs=1, total_draws=6 * draws, draws_per_example=draws)
        assert label_expectation.label_expectation(summed) == f"sampled, {draws} draw{'s' * (draws > 1)}"
        errors.append([np.linalg.norm(gauss_newton(summed, seed) - dense()) for seed in range(3)])
    few, many = np.sqrt(np.square(errors).mean(axis=1)) / np.linalg.norm(dense())
    assert many < 0.1
    assert 5 < few / many < 20  # √100


def test_the_draws_of_an_example_do_not_depend_on_the_order_or_the_batches() -> None:
    expected = gauss_newton(objective(exact_outputs=1))
    permuted = objective(examples().take([3, 0, 5, 1, 4, 2]), exact_outputs=1)
    np.testing.assert_allclose(gauss_newton(permuted), expected, atol=1e-12)
    in_batches = gauss_newton(objective(exact_outputs=1), batch_examples=2)
    np.testing.assert_allclose(in_batches, expected, atol=1e-12)
    assert np.abs(gauss_newton(objective(exact_outputs=1), seed=1) - expected).max() > 1e-3


def test_a_batch_whose_blocks_are_too_large_together_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    perplexity = uw.TorchModel(Writer().double(), lambda net, batch: tokens(net(batch.x), batch.y).mean(1).exp())
    train, of_one = examples(5), (LENGTH * SYMBOLS) ** 2
    summed = SummedObjective(perplexity.network, train, train.weights, 0.0, 0.0, limits=Limits(exact_outputs=1))
    expected = gauss_newton(summed)

    def slices(numbers: int) -> list[slice]:
        monkeypatch.setattr(label_expectation, "output_root", functools.partial(output_root, max_numbers=numbers))
        return [batch.where for batch in label_expectation.direction_batches(summed)]

    assert slices(5 * of_one) == [slice(0, 5)]
    assert slices(2 * of_one + 1) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    np.testing.assert_allclose(gauss_newton(summed), expected, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="EmpiricalFisher"):
        slices(of_one - 1)


@pytest.mark.parametrize("draws", [None, 400])
def test_ekfac_of_a_language_model_has_the_trace_of_the_gauss_newton_matrix(
    draws: int | None,
) -> None:
    limits = {"exact_outputs": 1, "total_draws": 6 * draws, "draws_per_example": draws} if draws else {}
    curvature = fit(model(), examples(), uw.EKFAC(), 0.0, **limits)
    trace = np.trace(curvature.matvec(np.eye(model().network.size)))
    np.testing.assert_allclose(trace, np.trace(dense()), rtol=0.05 if draws else 1e-9)
    assert curvature.diagnostics["label_expectation"] == (
        f"sampled, {draws} draw{'s' * (draws > 1)}" if draws else "exact"
    )
    assert (curvature.corrected(model().loss_rows(examples())) is None) == bool(draws)


@pytest.mark.parametrize("solver", [None, uw.CG(tolerance=1e-10, steps=400)], ids=str)
def test_gauss_newton_of_a_language_model_is_solved(solver: Any) -> None:
    limits = {"exact_outputs": 1, "sketch_numbers": 1}  # EK-FAC from random directions only preconditions
    curvature = fit(model(), examples(), uw.GaussNewton(solver=solver), 0.05, **limits)
    rows = model().measure_rows(examples())
    shifted = dense() + 0.05 * examples().weights.sum() * np.eye(model().network.size)
    np.testing.assert_allclose(
        curvature.solve(rows).rows.dense(), np.linalg.solve(shifted, rows.dense().T).T, atol=1e-7
    )


@pytest.mark.sweep(3)
@pytest.mark.parametrize("exact_outputs", [256, 1], ids=["all directions", "random directions"])
@pytest.mark.parametrize("curvature", [uw.EKFAC(), uw.KFAC(), uw.GaussNewton()], ids=lambda c: type(c).__name__)
def test_padding_changes_nothing(curvature: Any, exact_outputs: int) -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, SYMBOLS, length + 1) for length in (2, 3, 2, 2, 3, 2)]

    def padded(length: int, order: Any) -> uw.Examples:
        x, y = np.zeros((6, length), dtype=int), np.full((6, length), -100)
        for row, text in enumerate(texts):
            x[row, : len(text) - 1], y[row, : len(text) - 1] = text[:-1], text[1:]
        return uw.Examples(x[order], y[order], ids=np.arange(6)[order])

    torch.manual_seed(0)
    net = Writer().double()
    padded_model = uw.TorchModel(net, lambda net, batch: tokens(net(batch.x), batch.y).sum(1))
    padded_model = with_limits(padded_model, exact_outputs=exact_outputs)
    short, long = (padded(length, np.arange(6)) for length in (3, LENGTH))
    permuted = padded(LENGTH, np.array([3, 1, 5, 0, 4, 2]))
    method = uw.Influence(curvature=curvature)
    expected, *others = (method.fit(padded_model, s).attribute(short).values for s in (short, long, permuted))
    np.testing.assert_allclose(others[0], expected, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(others[1], expected[:, permuted.ids], atol=1e-9 * np.abs(expected).max())
