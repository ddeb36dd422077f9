"""Nets in half precision have the scores of the same weights in float64."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import Tensor, nn  # noqa: E402

import upweight as uw  # noqa: E402

WORDS, WIDTH = 12, 8
RECIPES = [uw.EKFAC(), uw.KFAC(), uw.GaussNewton(), uw.EmpiricalFisher(), uw.DataInf()]
HALVES = [torch.bfloat16, torch.float16]


class RootMeanSquare(nn.Module):
    """RMSNorm as language models write it: the mean in float32, the product in the precision of the net."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + 0.1 * torch.randn(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


class LowRank(nn.Module):
    """A linear layer with an adapter that may be more precise."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = nn.Linear(WIDTH, 2, bias=False), nn.Linear(2, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x.to(self.down.weight.dtype))).to(x.dtype)


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.norm, self.head = nn.Embedding(WORDS, WIDTH), RootMeanSquare(), nn.Linear(WIDTH, WORDS)
        self.query, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        x = x + F.scaled_dot_product_attention(self.query(x), x, self.value(x), is_causal=True)
        return self.head(self.norm(x))


class Autocast(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, ids: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(ids)


def reader(half: Any) -> nn.Module:
    torch.manual_seed(0)
    return Reader().to(half)


def with_adapters(half: Any) -> nn.Module:
    net = reader(half).requires_grad_(False)
    net.query, net.value = LowRank(net.query), LowRank(net.value)
    net.query.base.requires_grad_(False)
    return net


def loss(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch.x)[:, :-1].transpose(1, 2), batch.x[:, 1:], reduction="none").sum(1)


def scores(net: nn.Module, recipe: Any) -> np.ndarray:
    tokens = np.random.default_rng(0).integers(0, WORDS, size=(12, 9))
    model = uw.TorchModel(net, loss, objective=uw.Objective("mean", l2=1e-3))
    fitted = uw.Influence(curvature=recipe).fit(model, uw.Examples(tokens[:9]))
    return fitted.attribute(uw.Examples(tokens[9:], ids=["a", "b", "c"])).values


@pytest.mark.sweep(3)
@pytest.mark.parametrize("make", [reader, with_adapters])
@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_scores_are_those_of_the_same_weights_in_float64(recipe: Any, half: Any, make: Any) -> None:
    net = make(half)
    expected = scores(copy.deepcopy(net).double(), recipe)
    half_scores = scores(net, recipe)
    assert np.corrcoef(half_scores.ravel(), expected.ravel())[0, 1] > 0.99
    assert np.linalg.norm(half_scores) == pytest.approx(np.linalg.norm(expected), rel=0.05)
    assert {p.dtype for p in net.head.parameters()} == {half}


@pytest.mark.sweep(2)
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_hooks_see_a_net_in_autocast(recipe: Any) -> None:
    net = Autocast(reader(torch.float32))
    expected = scores(copy.deepcopy(net.net).double(), recipe)
    assert np.corrcoef(scores(net, recipe).ravel(), expected.ravel())[0, 1] > 0.99
    assert not any("Hooks" in note for note in uw.TorchModel(net, loss).notes)


def test_examples_that_interact_are_refused_in_half_precision() -> None:
    def contrastive(net: nn.Module, batch: Any) -> Tensor:
        z = F.normalize(net(batch.x).float().mean(1), dim=1)
        return F.cross_entropy(10 * z @ z.T, torch.arange(len(z)), reduction="none")

    train = uw.Examples(np.random.default_rng(0).integers(0, WORDS, size=(9, 9)))
    with pytest.raises(ValueError, match="treats examples separately"):
        uw.Influence(curvature=uw.EmpiricalFisher()).fit(uw.TorchModel(reader(torch.bfloat16), contrastive), train)
