"""Few draws instead of all label directions: their expectation, and the laws that they keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import Tensor, nn  # noqa: E402

import upweight as uw  # noqa: E402
from support.curved_nets import fit  # noqa: E402
from upweight.curvature.content_keys import content_keys, random_numbers, random_signs  # noqa: E402
from upweight.curvature.ekfac import FittedEKFAC  # noqa: E402
from upweight.curvature.label_expectation import expected_gradients, grouped_directions  # noqa: E402
from upweight.curvature.limits import Limits  # noqa: E402
from upweight.curvature.summed_objective import SummedObjective  # noqa: E402

N = 60
DRAWN: dict[str, int] = {"exact_numbers": 0, "direction_groups": 2}


def hessians(count: int = 5, outputs: int = 6) -> Tensor:
    p = torch.softmax(2 * torch.randn(count, outputs, generator=torch.Generator().manual_seed(0)).double(), dim=1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def products(directions: list[Tensor]) -> Tensor:
    return sum((u[:, :, None] * u[:, None, :] for u in directions), torch.zeros(()))


def test_drawn_directions_have_the_output_hessian_as_expectation() -> None:
    keys, exact = np.arange(5, dtype=np.uint64), hessians()
    drawn = torch.stack([products(grouped_directions(exact, 2, keys, seed)) for seed in range(600)])
    torch.testing.assert_close(drawn.mean(0), exact, atol=0.03, rtol=0)
    trace = drawn.diagonal(dim1=2, dim2=3).sum(2)
    torch.testing.assert_close(trace, exact.diagonal(dim1=1, dim2=2).sum(1).expand_as(trace))


def test_a_group_for_each_direction_is_the_exact_expectation() -> None:
    directions = grouped_directions(hessians(), 5, np.arange(5, dtype=np.uint64), 0)  # rank 5: probabilities sum to 1
    torch.testing.assert_close(products(directions), hessians())


def test_groups_err_less_than_as_many_sums_of_all_directions() -> None:
    keys, exact = np.arange(5, dtype=np.uint64), hessians()
    values, vectors = torch.linalg.eigh(exact)
    root, errors = vectors * values.clamp_min(0).sqrt()[:, None], []
    for seed in range(100):
        signs = torch.as_tensor(random_signs(keys, 12, seed)).double().view(5, 2, 6)
        sums = [(root @ signs[:, k, :, None])[..., 0] / 2**0.5 for k in range(2)]
        errors.append([float((products(u) - exact).norm()) for u in (sums, grouped_directions(exact, 2, keys, seed))])
    plain, grouped = np.sqrt(np.square(errors).mean(0))
    assert grouped < 0.7 * plain


def test_random_numbers_are_even_and_differ_by_seed_and_key() -> None:
    keys = np.arange(1000, dtype=np.uint64)
    bits = random_signs(keys, 64, 3).astype(float)
    assert abs(bits.mean()) < 0.02
    assert np.abs(np.corrcoef(bits.T) - np.eye(64)).max() < 0.2
    assert not np.array_equal(random_numbers(keys, 4, 0), random_numbers(keys, 4, 1))


@pytest.mark.parametrize(
    "x", [np.eye(4), torch.eye(4), ["a", "b", "c", "d"], [{"ids": np.eye(4)[i]} for i in range(4)]]
)
def test_keys_are_those_of_the_contents(x: Any) -> None:
    keys = content_keys(uw.Examples(x))
    assert len(set(keys.tolist())) == 4
    order = [2, 0, 3, 1]
    shuffled = uw.Examples([x[i] for i in order] if isinstance(x, list) else x[order], ids=["p", "q", "r", "s"])
    np.testing.assert_array_equal(content_keys(shuffled), keys[order])


def test_padding_with_zeros_does_not_change_a_key() -> None:
    short = uw.Examples(np.array([[3, 5], [4, 0]]))
    long = uw.Examples(np.array([[3, 5, 0, 0], [4, 0, 0, 0]]))
    np.testing.assert_array_equal(content_keys(short), content_keys(long))


class Pictures(nn.Module):
    """Convolutions of which one is depthwise, with batch norms."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1, groups=4)]
        self.body = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(4, 6, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2))
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


def pictures(rows: Any = None, weights: Any = None) -> tuple[Any, uw.Examples]:
    torch.manual_seed(0)
    net = Pictures().double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, 1, 8, 8)), rng.integers(0, 5, N)
    rows = np.arange(N) if rows is None else np.asarray(rows)
    ids = rows if len(set(rows.tolist())) == len(rows) else None
    model = uw.TorchModel(net, lambda net, batch: F.cross_entropy(net(batch.x), batch.y, reduction="none"))
    return model, uw.Examples(x[rows], y[rows], ids=ids, weights=weights)


def ekfac(model: Any, train: uw.Examples, recipe: Any = None, **limits: int) -> Any:
    return fit(model, train, recipe or uw.EKFAC(), 0.05, **limits)


def solved(curvature: Any) -> np.ndarray:
    vectors = np.random.default_rng(1).normal(size=(3, curvature.summed.network.size))
    return np.asarray(curvature.matvec(vectors))


@pytest.mark.parametrize("recipe", [uw.KFAC(), uw.EKFAC()], ids=str)
def test_weight_k_is_k_copies_and_order_does_not_count(recipe: Any) -> None:
    counts = np.random.default_rng(2).integers(0, 4, N)
    weighted = solved(ekfac(*pictures(weights=counts.astype(float)), recipe, **DRAWN))
    copied = solved(ekfac(*pictures(np.repeat(np.arange(N), counts)), recipe, **DRAWN))
    shuffled = np.random.default_rng(3).permutation(np.repeat(np.arange(N), counts))
    np.testing.assert_allclose(copied, weighted, atol=1e-9 * np.abs(weighted).max())
    np.testing.assert_allclose(
        solved(ekfac(*pictures(shuffled), recipe, **DRAWN)), weighted, atol=1e-9 * np.abs(weighted).max()
    )


def test_the_trace_is_that_of_the_gauss_newton_matrix_whatever_is_drawn() -> None:
    model, train = pictures()
    exact = sum(float(batch.squares().sum()) for _, batch in expected_gradients(ekfac(model, train).summed))
    assert ekfac(model, train).diagnostics["label_expectation"] == "exact"
    drawn = ekfac(model, train, **DRAWN)
    assert drawn.diagnostics["label_expectation"] == "sampled, 2 draws"
    traces = [sum(float(v.sum()) for _, v in curvature.eigenvalues()) for curvature in (ekfac(model, train), drawn)]
    np.testing.assert_allclose(traces[0], exact, rtol=1e-9)
    np.testing.assert_allclose(traces[1], exact, rtol=0.05)


def test_scores_of_drawn_directions_rank_like_the_exact_ones() -> None:
    model, train = pictures()
    queries = uw.Examples(np.random.default_rng(5).normal(size=(4, 1, 8, 8)), [0, 1, 2, 3])
    rows, query_rows = model.loss_rows(train), model.measure_rows(queries)
    exact, drawn = (ekfac(model, train, **limits).solve(query_rows).rows.dot(rows) for limits in ({}, DRAWN))
    assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(exact, drawn, strict=True)) > 0.95


def test_a_depthwise_convolution_has_the_exact_block_of_every_channel() -> None:
    model, train = pictures()
    curvature = ekfac(model, train)
    gradients = [batch.materialise("body.3.weight") for _, batch in expected_gradients(curvature.summed)]
    blocks = sum(torch.einsum("bci,bcj->cij", g.flatten(2), g.flatten(2)) for g in (g.flatten(2) for g in gradients))
    parameter = curvature.unfactored["body.3.weight"]
    rebuilt = parameter.basis * parameter.values.flatten(1)[:, None] @ parameter.basis.mT
    torch.testing.assert_close(rebuilt, blocks)


@pytest.mark.parametrize("recipe", [uw.KFAC(), uw.EKFAC()], ids=str)
def test_a_fit_with_grouped_convolutions_is_kept_and_restored(recipe: Any) -> None:
    model, train = pictures()
    curvature = ekfac(model, train, recipe)
    restored = FittedEKFAC(curvature.summed, isinstance(recipe, uw.EKFAC), curvature.state().part("fitted"))
    np.testing.assert_array_equal(solved(restored), solved(curvature))


def test_the_mean_eigenvalue_of_a_convolution_counts_its_positions() -> None:
    model, train = pictures(np.arange(4))
    curvature = fit(model, train, uw.EKFAC(), None)
    for name, count in (("body.0.weight", 4 * 8 * 8), ("body.5.weight", 4 * 2 * 2), ("head.weight", 4)):
        values = dict(curvature.eigenvalues())[name]
        expected = 0.1 * float(values.sum()) / min(values.numel(), count)
        assert curvature.dampings[name] == pytest.approx(expected)


def test_batches_do_not_count() -> None:
    model, train = pictures()
    summed = SummedObjective(model.network, train, np.ones(N), 0.0, 0.0, limits=Limits(**DRAWN))

    def sums(size: int | None) -> Tensor:
        return sum(
            batch.sums(torch.ones(1, batch.count).double())["head.weight"]
            for _, batch in expected_gradients(summed, batch_examples=size)
        )

    torch.testing.assert_close(sums(7), sums(None))
