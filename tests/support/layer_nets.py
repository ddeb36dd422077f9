"""Networks with one unusual layer, parametrisation or way of use each, with data and a loss per example, in float64."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from support.odd_nets import Net, OddNet, cross_entropy, square


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def head(*layers: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, 3))


def tied(net: Any, x: Tensor) -> Tensor:
    return F.linear(net.words(x).mean(1), net.words.weight)[:, :3]


def packed(net: Any, x: Tensor) -> Tensor:
    lengths = torch.full((len(x),), 3)
    out, _ = pad_packed_sequence(net.body(pack_padded_sequence(x, lengths, batch_first=True))[0], batch_first=True)
    return net.head(out[:, -1])


def cell(net: Any, x: Tensor) -> Tensor:
    state = x.new_zeros(len(x), 3)
    for t in range(x.shape[1]):
        state = net.body(x[:, t], state)
    return net.head(state)


def attention(net: Any, x: Tensor) -> Tensor:
    return net.head(net.body(x, x, x, need_weights=False)[0].mean(1))


def in_place(net: Any, x: Tensor) -> Tensor:
    z = net.body(x)
    z[:, 0] = z[:, 0] * 2
    return net.head(z.relu_())


class Counted(nn.Linear):
    """A linear layer that counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__(5, 3)
        self.calls: Any
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


def nested(net: Any, x: Tensor) -> Any:
    return {"parts": [net.left(x), {"deep": (net.right(x),)}]}


class Remembering(nn.Linear):
    """A linear layer that assigns its last output to a buffer."""

    def __init__(self) -> None:
        super().__init__(5, 3)
        self.register_buffer("last", torch.zeros(1, 3))

    def forward(self, x: Tensor) -> Tensor:
        self.last = super().forward(x)
        return self.last


class Straight(torch.autograd.Function):
    """The sign with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Skipped(nn.Module):
    """A block that is left out at random in training."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.rand(()) < 0.5:
            return x
        out: Tensor = x + self.body(x)
        return out


def trained_batch_norm() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3))
    net(torch.randn(30, 5))
    return net.train()


def hooked() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    net[0].register_forward_hook(lambda module, inputs, out: out * 2)
    net[2].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    return net


def gradient_hooked() -> nn.Module:
    net = nn.Linear(5, 3)
    net.weight.register_hook(lambda grad: grad * 3)
    return net


def lazy() -> nn.Module:
    net = nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(3))
    net(torch.randn(2, 5))
    return net


def frozen_body() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    net[0].requires_grad_(False)
    return net


def frozen_bias() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    net[2].bias.requires_grad_(False)
    return net


def shared() -> nn.Module:
    layer = nn.Linear(5, 5)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(5, 3))


def class_weights(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch.x), batch.y, weight=torch.tensor([1.0, 2.0, 5.0]).double(), reduction="none")


def ignored(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch.x), batch.y, ignore_index=1, reduction="none")


def smoothed(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch.x), batch.y, label_smoothing=0.2, reduction="none")


def many_labels(net: nn.Module, batch: Any) -> Tensor:
    targets = F.one_hot(batch.y, 3).to(batch.x)
    return F.binary_cross_entropy_with_logits(net(batch.x), targets, reduction="none").sum(1)


def soft_labels(net: nn.Module, batch: Any) -> Tensor:
    targets = F.one_hot(batch.y, 3).to(batch.x) * 0.7 + 0.1
    return F.cross_entropy(net(batch.x), targets, reduction="none")


def every_position(net: nn.Module, batch: Any) -> Tensor:
    targets = batch.y[:, None].expand(-1, batch.x.shape[1])
    return F.cross_entropy(net(batch.x).movedim(-1, 1), targets, reduction="none").mean(-1)


def deep(net: nn.Module, batch: Any) -> Tensor:
    left, right = net(batch.x)["parts"][0], net(batch.x)["parts"][1]["deep"][0]
    return F.cross_entropy(left + right, batch.y, reduction="none")


def checkpointed(net: Any, x: Tensor) -> Tensor:
    return net.head(checkpoint(net.body, x, use_reentrant=False))


def by_position(net: nn.Module, batch: Any) -> Tensor:
    return cross_entropy(net, batch) * torch.arange(1, len(batch.y) + 1)


def compiled(net: nn.Module) -> Any:
    return torch.compile(net, backend="eager")


LAYER_NETS: dict[str, OddNet] = {
    "tied weights": OddNet(lambda: Net(tied, words=nn.Embedding(9, 4)), cross_entropy, "tokens"),
    "weight norm": OddNet(lambda: parametrizations.weight_norm(nn.Linear(5, 3)), cross_entropy),
    "old weight norm": OddNet(lambda: nn.utils.weight_norm(nn.Linear(5, 3)), cross_entropy),
    "spectral norm": OddNet(lambda: parametrizations.spectral_norm(nn.Linear(5, 3)), cross_entropy),
    "orthogonal": OddNet(lambda: chain(parametrizations.orthogonal(nn.Linear(5, 5)), nn.Linear(5, 3)), cross_entropy),
    "layer norm": OddNet(lambda: chain(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3)), cross_entropy),
    "RMS norm": OddNet(lambda: chain(nn.Linear(5, 4), nn.RMSNorm(4), nn.Linear(4, 3)), cross_entropy),
    "instance norm": OddNet(
        lambda: head(nn.Conv2d(2, 3, 3), nn.InstanceNorm2d(3, affine=True), width=27), cross_entropy, "images"
    ),
    "batch norm in training mode": OddNet(trained_batch_norm, cross_entropy),
    "dropout in training mode": OddNet(lambda: chain(nn.Linear(5, 4), nn.Dropout(), nn.Linear(4, 3)), cross_entropy),
    "convolution 1d": OddNet(
        lambda: head(nn.Conv1d(4, 3, 3, padding="same", padding_mode="circular"), width=15), cross_entropy, "sequences"
    ),
    "convolution 3d": OddNet(
        lambda: chain(nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 2, 2), nn.Flatten(), nn.Linear(32, 3)),
        cross_entropy,
        "images",
    ),
    "transposed": OddNet(
        lambda: head(nn.ConvTranspose2d(2, 1, 3, stride=2, output_padding=1), nn.AvgPool2d(6), width=4),
        cross_entropy,
        "images",
    ),
    "grouped and dilated": OddNet(
        lambda: head(nn.Conv2d(2, 4, 2, groups=2, dilation=2, stride=2), width=16), cross_entropy, "images"
    ),
    "packed LSTM": OddNet(
        lambda: Net(packed, body=nn.LSTM(5, 2, batch_first=True), head=nn.Linear(2, 3)), cross_entropy, "sequences"
    ),
    "bidirectional GRU": OddNet(
        lambda: Net(
            lambda n, x: n.head(n.body(x)[0][:, -1]),
            body=nn.GRU(5, 2, bidirectional=True, batch_first=True),
            head=nn.Linear(4, 3),
        ),
        cross_entropy,
        "sequences",
    ),
    "sequence first": OddNet(
        lambda: Net(lambda n, x: n.head(n.body(x.transpose(0, 1))[0][-1]), body=nn.RNN(5, 3), head=nn.Linear(3, 3)),
        cross_entropy,
        "sequences",
    ),
    "recurrent cell": OddNet(
        lambda: Net(cell, body=nn.GRUCell(5, 3), head=nn.Linear(3, 3)), cross_entropy, "sequences"
    ),
    "attention": OddNet(
        lambda: Net(attention, body=nn.MultiheadAttention(5, 1, batch_first=True), head=nn.Linear(5, 3)),
        cross_entropy,
        "sequences",
    ),
    "transformer layer": OddNet(
        lambda: Net(
            lambda n, x: n.head(n.body(x).mean(1)),
            body=nn.TransformerEncoderLayer(5, 1, 6, batch_first=True),
            head=nn.Linear(5, 3),
        ),
        cross_entropy,
        "sequences",
    ),
    "padding": OddNet(
        lambda: Net(
            lambda n, x: n.head(n.words(x).sum(1)), words=nn.Embedding(9, 3, padding_idx=0), head=nn.Linear(3, 3)
        ),
        cross_entropy,
        "tokens",
    ),
    "bag with padding and scale": OddNet(
        lambda: chain(nn.EmbeddingBag(9, 3, mode="max", padding_idx=0), nn.Linear(3, 3)), cross_entropy, "tokens"
    ),
    "frequency scaled": OddNet(
        lambda: Net(
            lambda n, x: n.head(n.words(x).mean(1)),
            words=nn.Embedding(9, 3, scale_grad_by_freq=True),
            head=nn.Linear(3, 3),
        ),
        cross_entropy,
        "tokens",
    ),
    "renormalised": OddNet(
        lambda: Net(
            lambda n, x: n.head(n.words(x).mean(1)), words=nn.Embedding(9, 3, max_norm=1.0), head=nn.Linear(3, 3)
        ),
        cross_entropy,
        "tokens",
    ),
    "bilinear": OddNet(lambda: Net(lambda n, x: n.body(x, x.tanh()), body=nn.Bilinear(5, 5, 3)), cross_entropy),
    "PReLU": OddNet(lambda: chain(nn.Linear(5, 4), nn.PReLU(4), nn.Linear(4, 3)), cross_entropy),
    "complex": OddNet(
        lambda: Net(
            lambda n, x: (x.to(n.table.dtype) @ n.table).abs(), table=torch.randn(5, 3, dtype=torch.complex128)
        ),
        cross_entropy,
    ),
    "buffer that counts": OddNet(Counted, cross_entropy),
    "buffer that is assigned": OddNet(Remembering, cross_entropy),
    "nested output": OddNet(lambda: Net(nested, left=nn.Linear(5, 3), right=nn.Linear(5, 3)), deep),
    "class weights": OddNet(lambda: nn.Linear(5, 3), class_weights),
    "ignored labels": OddNet(lambda: nn.Linear(5, 3), ignored),
    "label smoothing": OddNet(lambda: nn.Linear(5, 3), smoothed),
    "several labels": OddNet(lambda: chain(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), many_labels),
    "soft labels": OddNet(lambda: nn.Linear(5, 3), soft_labels),
    "negative dimension": OddNet(
        lambda: chain(nn.Linear(5, 4), nn.Softmax(dim=-1), nn.Linear(4, 3)), every_position, "sequences"
    ),
    "frozen body": OddNet(frozen_body, cross_entropy),
    "frozen bias": OddNet(frozen_bias, cross_entropy),
    "module used twice": OddNet(shared, cross_entropy),
    "module in a loop": OddNet(
        lambda: Net(
            lambda n, x: n.head(n.body(n.body(n.body(x).tanh()).tanh())), head=nn.Linear(5, 3), body=nn.Linear(5, 5)
        ),
        cross_entropy,
    ),
    "functional weight of a module": OddNet(
        lambda: Net(lambda n, x: F.linear(torch.tanh(n.body(x)), n.body.weight * 2)[:, :3], body=nn.Linear(5, 5)),
        cross_entropy,
    ),
    "functional parameter": OddNet(lambda: Net(lambda n, x: F.linear(x, n.w), w=torch.randn(3, 5)), cross_entropy),
    "einsum": OddNet(
        lambda: Net(lambda n, x: torch.einsum("btd,dk->bk", x, n.w), w=torch.randn(5, 3)), cross_entropy, "sequences"
    ),
    "in place": OddNet(lambda: Net(in_place, body=nn.Linear(5, 4), head=nn.Linear(4, 3)), cross_entropy),
    "checkpointed": OddNet(
        lambda: Net(checkpointed, body=chain(nn.Linear(5, 4), nn.Tanh()), head=nn.Linear(4, 3)), cross_entropy
    ),
    "compiled": OddNet(lambda: compiled(nn.Linear(5, 3)), cross_entropy),
    "data parallel": OddNet(lambda: nn.DataParallel(chain(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))), cross_entropy),
    "lazy": OddNet(lazy, cross_entropy),
    "lazy without a batch": OddNet(lambda: nn.LazyLinear(3), cross_entropy),
    "function with its own gradient": OddNet(
        lambda: Net(lambda n, x: n.head(Straight.apply(n.body(x))), body=nn.Linear(5, 4), head=nn.Linear(4, 3)),
        cross_entropy,
    ),
    "hooks of the user": OddNet(hooked, cross_entropy),
    "gradient hook of the user": OddNet(gradient_hooked, cross_entropy),
    "stochastic depth": OddNet(lambda: chain(Skipped(), Skipped(), nn.Linear(5, 3)), cross_entropy),
    "no bias": OddNet(
        lambda: chain(nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 3, bias=False)), cross_entropy
    ),
    "unused layer": OddNet(
        lambda: Net(lambda n, x: n.head(x), head=nn.Linear(5, 3), spare=nn.Linear(5, 3)), cross_entropy
    ),
    "empty parameter": OddNet(
        lambda: Net(lambda n, x: n.head(x), head=nn.Linear(5, 3), none=torch.zeros(0)), cross_entropy
    ),
    "expanded view": OddNet(
        lambda: Net(lambda n, x: n.head(x) * n.scale.expand(3), head=nn.Linear(5, 3), scale=torch.ones(1)),
        cross_entropy,
    ),
    "parameter list": OddNet(
        lambda: Net(lambda n, x: x @ n.ws[0] + n.ws[1], ws=nn.ParameterList([torch.randn(5, 3), torch.zeros(3)])),
        cross_entropy,
    ),
    "pixel shuffle": OddNet(
        lambda: head(nn.Conv2d(2, 4, 3, padding=1), nn.PixelShuffle(2), nn.AvgPool2d(2), width=25),
        cross_entropy,
        "images",
    ),
    "loss by position in the batch": OddNet(lambda: nn.Linear(5, 3), by_position),
    "one output": OddNet(lambda: nn.Linear(5, 1), square, labels="numbers"),
}
REFUSED = {"frequency scaled", "renormalised", "complex", "lazy without a batch", "loss by position in the batch"}
