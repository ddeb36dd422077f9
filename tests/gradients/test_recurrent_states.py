"""Gradients of recurrent layers by vmap: no example is passed alone, and nothing of the net is left changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import upweight as uw
from upweight.gradients import functional
from upweight.gradients.inspection import inspect

LAYERS = {
    "GRU": lambda: nn.GRU(4, 3, batch_first=True),
    "two GRUs in both directions": lambda: nn.GRU(4, 3, num_layers=2, bidirectional=True, batch_first=True),
    "RNN": lambda: nn.RNN(4, 3, batch_first=True),
    "GRU with a state": lambda: nn.GRU(4, 3, batch_first=True),
}


class Recurrent(nn.Module):
    def __init__(self, layer: nn.RNNBase, has_state: bool) -> None:
        super().__init__()
        self.layer, self.has_state = layer, has_state
        self.head = nn.Linear(layer.hidden_size * (2 if layer.bidirectional else 1), 3)

    def forward(self, x):
        states = (x.mean((1, 2))[None, :, None].expand(1, len(x), 3).contiguous(),) if self.has_state else ()
        return self.head(self.layer(x, *states)[0][:, -1])


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_formed_for_all_examples_at_once(name, monkeypatch):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = Recurrent(LAYERS[name](), "state" in name).double().eval()
    train = uw.Examples(rng.normal(size=(6, 5, 4)), rng.integers(0, 3, 6))
    network = uw.TorchModel(net, lambda net, b: F.cross_entropy(net(b.x), b.y, reduction="none")).network
    sliced = inspect(network, "loss", train).sliced
    with network.preserved():
        expected = functional.gradient_rows(network, "loss", train, network.names, None)
        monkeypatch.setattr(functional, "single_gradient", None)  # calling it raises TypeError
        rows = functional.gradient_rows(network, "loss", train, network.names, sliced)
    for parameter, values in rows.items():
        torch.testing.assert_close(values, expected[parameter], rtol=0, atol=1e-12)
    assert not any(module._forward_pre_hooks for module in net.modules())
