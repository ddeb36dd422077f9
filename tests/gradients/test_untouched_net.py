"""The user's net is unchanged after passes, also after an error or an interrupt."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import upweight as uw
from support.small_nets import Case, Patches, TinyGPT, batch_norm, cross_entropy, mlp, next_token
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.network import Network


class Shared(nn.Module):
    """A layer that is registered twice, and a parameter that hooks miss."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Linear(5, 5)
        self.layers = nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(5, 3))
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.scale * self.layers(x)


CASES = [
    Case("mlp", mlp, (5,)),
    Case("batch norm", batch_norm, (2, 6, 6)),
    Case("transformer", TinyGPT, 11, next_token),
    Case("class token", Patches, (4, 4)),
    Case("layer registered twice", Shared, (5,)),
]


def state(net: nn.Module):
    return {
        "tensors": {name: t.detach().clone() for name, t in net.state_dict().items()},
        "identities": [(name, id(p)) for name, p in net.named_parameters(remove_duplicate=False)],
        "modes": [m.training for m in net.modules()],
        "flags": [p.requires_grad for p in net.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        "hooks": [
            len(getattr(m, f"_{kind}_hooks"))
            for m in net.modules()
            for kind in ("forward", "forward_pre", "backward", "backward_pre")
        ],
        "random": (torch.get_rng_state(), np.random.get_state()[1], random.getstate()),
    }


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


class Failing:
    """A loss that raises at its k-th call."""

    def __init__(self, loss, when: int, error: type[BaseException]) -> None:
        self.loss, self.remaining, self.error = loss, when, error

    def __call__(self, net, batch):
        values = self.loss(net, batch)
        torch.rand(1), np.random.rand(), random.random()
        self.remaining -= 1
        if self.remaining < 0:
            raise self.error("in the loss")
        return values


def net_in_use(case: Case) -> nn.Module:
    net = case.net().double().train()
    next(iter(net.parameters())).requires_grad_(False)
    sum(p.sum() for p in net.parameters() if p.requires_grad).backward()
    net.apply(lambda m: m.register_forward_hook(lambda *_: None) if isinstance(m, nn.Linear) else None)
    return net


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_passes_leave_the_net_unchanged(case):
    net = net_in_use(case)
    before = state(net)
    rows = CapturedRows(Network(net, Failing(case.loss, 10**9, ValueError)), case.examples(), "loss")
    rows.dense(), rows.gram(), rows.squares()
    assert same(state(net), before)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("when", [0, 1, 3, 4, 5, 6])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_an_error_at_any_call_of_the_loss_leaves_the_net_unchanged(case, when, error):
    net = net_in_use(case)
    before = state(net)
    rows = CapturedRows(Network(net, Failing(case.loss, when, error)), case.examples(), "loss")
    with pytest.raises(error, match="in the loss"):
        for _ in range(3):
            rows.gram()
    assert same(state(net), before)


def test_an_interrupt_inside_the_net_leaves_it_unchanged():
    net = mlp().double()

    def interrupt(*_):
        raise KeyboardInterrupt

    network = Network(net, cross_entropy)
    rows = CapturedRows(network, CASES[0].examples(), "loss")
    rows.squares()
    handle = net[3].register_forward_hook(interrupt)
    before = state(net)
    with pytest.raises(KeyboardInterrupt):
        rows.squares()
    assert same(state(net), before)
    handle.remove()
    assert all(len(m._forward_hooks) == 0 for m in net.modules())


def test_an_abandoned_pass_leaves_no_hooks():
    net = mlp().double().train()
    passes = CapturedRows(Network(net, cross_entropy), CASES[0].examples(), "loss").passes(size=2)
    next(passes)
    assert net.training
    assert all(len(m._forward_hooks) == 0 for m in net.modules())


def test_the_grad_mode_of_the_caller_does_not_matter():
    case = CASES[0]
    network = case.network()
    rows = CapturedRows(network, case.examples(), "loss")
    expected = rows.dense()
    with torch.no_grad():
        assert np.array_equal(rows.dense(), expected)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        assert np.array_equal(rows.dense(), expected)


@pytest.mark.parametrize("curvature", [uw.EKFAC(), uw.Diagonal()], ids=repr)
def test_the_grad_mode_of_the_caller_does_not_matter_to_curvatures(curvature):
    net = Shared().double()
    train = uw.Examples(np.random.default_rng(0).normal(size=(9, 5)), np.arange(9) % 3)
    recipe = uw.Influence(curvature=curvature, damping=0.1)
    expected = recipe.fit(uw.TorchModel(net, cross_entropy), train).attribute(train).values
    with torch.inference_mode():
        found = recipe.fit(uw.TorchModel(net, cross_entropy), train).attribute(train).values
    np.testing.assert_allclose(found, expected, atol=1e-12 * np.abs(expected).max())


def test_training_mode_is_noted():
    net = mlp().train()
    assert "training mode" in Network(net, cross_entropy).notes[0]
    assert not Network(net.eval(), cross_entropy).notes
