"""Small networks of every layer kind, each with data and a loss per example, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import upweight as uw
from upweight.gradients.network import Network

CLASSES = 3


def cross_entropy(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def next_token(net: nn.Module, batch: Any) -> Tensor:
    logits = net(batch.x)
    each = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch.x[:, 1:].flatten(), reduction="none")
    return each.view(len(batch.x), -1).sum(1)


def squares(net: nn.Module, batch: Any) -> Tensor:
    return net(batch.x).flatten(1).pow(2).sum(1)


class Conv1D(nn.Module):
    """As transformers writes a linear layer."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / 3)
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], -1)


class Shift(nn.Module):
    """A bare bias, and a bare scale."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.bias, self.scale = nn.Parameter(torch.randn(size)), nn.Parameter(torch.randn(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.bias


class Twice(nn.Module):
    """A module that is used twice, and once more through a tie."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.other, self.out = nn.Linear(5, 5), nn.Linear(5, 5, bias=False), nn.Linear(5, CLASSES)
        self.other.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.other(torch.tanh(self.first(torch.tanh(self.first(x)))))))


class Attention(nn.Module):
    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.attend = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.out = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.batch_first else x.transpose(0, 1)
        attended = self.attend(x, x, x, need_weights=False)[0]
        return self.out(attended).mean(1 if self.batch_first else 0)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(width), nn.RMSNorm(width)
        self.attn, self.proj = Conv1D(3 * width, width), Conv1D(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(2, (2, -1)).transpose(1, 2) for t in self.attn(self.norm(x)).chunk(3, dim=2))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class TinyGPT(nn.Module):
    """Tied embedding, positions without a batch, transposed linear layers, both norms."""

    def __init__(self, vocabulary: int = 11, width: int = 8, length: int = 6, single: bool = False) -> None:
        super().__init__()
        self.single = single
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.tokens(ids) + self.places(places[None] if self.single else places)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Functional(nn.Module):
    """A Linear whose weight is also used behind its hook's back, and a parameter of the root itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(5, 5), nn.Linear(5, CLASSES)
        self.start = nn.Parameter(torch.randn(1, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x + self.start)
        return self.out(torch.tanh(x) @ self.inner.weight)


class Folded(nn.Module):
    """Positions and examples on one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(4, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.inner(x.flatten(0, 1)))
        return self.out(h.view(*x.shape[:2], -1).sum(1))


class Patches(nn.Module):
    """As a vision transformer: a class token and positions that are parameters of the root."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 4)), nn.Parameter(torch.randn(1, 5, 4))
        self.gain, self.out = nn.Parameter(torch.randn(1)), nn.Linear(4, CLASSES)
        if tied:
            self.inner = nn.ParameterDict({"places": self.places})

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.places
        if hasattr(self, "inner"):
            h = h * self.inner["places"]
        return self.out(torch.tanh(self.gain * h)).mean(1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.GRU(4, 5, batch_first=True), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.inner(x)[0][:, -1])


class LowRank(nn.Linear):
    """A subclass of Linear that computes something else."""

    def __init__(self) -> None:
        super().__init__(5, CLASSES)
        self.up, self.down = nn.Parameter(torch.randn(CLASSES, 2)), nn.Parameter(torch.randn(2, 5))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight + self.up @ self.down, self.bias)


def batch_norm() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.Flatten(), nn.Linear(64, CLASSES), nn.BatchNorm1d(3))
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    return net


def conv(layer: nn.Module, *shape: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(layer, nn.Tanh())


@dataclass(frozen=True)
class Case:
    name: str
    net: Callable[[], nn.Module]
    x: tuple[int, ...] | int  # shape of one input, or the vocabulary of sequences of 6 tokens
    loss: Callable[[nn.Module, Any], Tensor] = cross_entropy
    fallback: tuple[str, ...] = ()

    def network(self) -> Network:
        torch.manual_seed(1)
        return Network(self.net().double().eval(), self.loss)

    def examples(self, n: int = 7, seed: int = 0) -> uw.Examples:
        rng = np.random.default_rng(seed)
        if isinstance(self.x, int):
            return uw.Examples(rng.integers(0, self.x, (n, 6)), rng.integers(0, CLASSES, n))
        return uw.Examples(rng.standard_normal((n, *self.x)), rng.integers(0, CLASSES, n))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(7, CLASSES))


CASES = [
    Case("linear", mlp, (5,)),
    Case("linear over positions", lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)), (9, 5), squares),
    Case("linear over few positions", lambda: nn.Sequential(nn.Linear(25, 24, bias=False)), (2, 25), squares),
    Case("conv1d", conv(nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2)), (4, 9), squares),
    Case("conv1d same", conv(nn.Conv1d(4, 6, 4, padding="same", groups=2)), (4, 9), squares),
    Case("conv2d", conv(nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 2), bias=False)), (3, 6, 5), squares),
    Case("conv2d depthwise", conv(nn.Conv2d(4, 8, 3, groups=4, dilation=(1, 2), padding=2)), (4, 6, 6), squares),
    Case("conv2d reflect", conv(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect")), (2, 5, 5), squares),
    Case("conv3d", conv(nn.Conv3d(2, 3, 2, stride=(1, 2, 1), padding=(0, 1, 1))), (2, 4, 3, 4), squares),
    Case("conv transposed", conv(nn.ConvTranspose2d(2, 3, 3, stride=2)), (2, 4, 4), squares),
    Case(
        "embedding",
        lambda: nn.Sequential(nn.Embedding(5, 4, padding_idx=1), nn.Flatten(), nn.Linear(24, CLASSES)),
        5,
    ),
    Case("layer norm", lambda: nn.Sequential(nn.LayerNorm([3, 5]), nn.Flatten(), nn.Linear(15, CLASSES)), (3, 5)),
    Case("group norm", lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Tanh()), (4, 3, 3), squares),
    Case("rms norm", lambda: nn.Sequential(nn.RMSNorm(5), nn.Linear(5, CLASSES), nn.RMSNorm(CLASSES)), (5,)),
    Case("batch norm", batch_norm, (2, 6, 6)),
    Case("bare bias", lambda: nn.Sequential(nn.Linear(5, CLASSES), Shift(CLASSES), nn.PReLU()), (5,)),
    Case("stand-in Conv1D", lambda: nn.Sequential(Conv1D(6, 5), nn.Tanh(), Conv1D(4, 6)), (8, 5), squares),
    Case("used twice and tied", Twice, (5,)),
    Case(
        "attention",
        Attention,
        (4, 8),
        fallback=tuple(f"attend.{n}" for n in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")),
    ),
    Case(
        "attention, positions first",
        lambda: Attention(batch_first=False),
        (4, 8),
        fallback=tuple(f"attend.{n}" for n in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")),
    ),
    Case("transformer", TinyGPT, 11, next_token),
    Case("transformer, batch of one position row", lambda: TinyGPT(single=True), 11, next_token),
    Case("positions and examples on one axis", Folded, (4, 4)),
    Case("class token", Patches, (4, 4), fallback=("gain",)),
    Case("tied positions", lambda: Patches(tied=True), (4, 4), fallback=("gain",)),
    Case("functional use", Functional, (5,), fallback=("inner.weight",)),
    Case("recurrent", Recurrent, (4, 4)),
    Case("subclass of Linear", LowRank, (5,), fallback=("up", "down")),
    Case(
        "parametrised",
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, 4)), nn.Tanh(), nn.Linear(4, CLASSES)),
        (5,),
        fallback=("0.parametrizations.weight.original0", "0.parametrizations.weight.original1"),
    ),
]
