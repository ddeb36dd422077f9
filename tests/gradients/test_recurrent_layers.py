"""Recurrent layers: gradients by hooks, as factors, equal autograd example by example for every form of the layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import upweight as uw
from support.odd_nets import Net
from upweight.gradients import functional
from upweight.gradients.capture import capture
from upweight.gradients.gradient_terms import OuterTerm
from upweight.gradients.hooks import HookedPass
from upweight.gradients.inspection import inspect

EXAMPLES, STEPS, WIDTH = 6, 5, 4


def lengths(x):
    """1 to 5 steps, by the example's contents."""
    return (1 + (x[:, 0, 0].abs() * 100).long() % STEPS).cpu()


def last_output(net, x):
    return net.head(net.body(x)[0][:, -1])


def last_states(net, x):
    states = net.body(x)[1]
    parts = states if isinstance(states, tuple) else (states,)
    return net.head(torch.cat([part.transpose(0, 1).flatten(1) for part in parts], dim=1))


def every_step(net, x):
    return net.head(net.body(x)[0]).mean(1)


def sequence_first(net, x):
    return net.head(net.body(x.transpose(0, 1))[0][-1])


def sentences(net, x):
    """Five sequences of an example are folded into the batch."""
    folded = x.flatten(0, 1)[..., None].expand(-1, -1, WIDTH)
    return net.head(net.body(folded)[1][-1].unflatten(0, (len(x), STEPS)).mean(1))


def given_state(net, x):
    state = x.mean((1, 2))[None, :, None].expand(1, len(x), 3).contiguous()
    return net.head(net.body(x, (state, 2 * state) if isinstance(net.body, nn.LSTM) else state)[0][:, -1])


def learned_state(net, x):
    return net.head(net.body(x, hx=net.start.expand(-1, len(x), -1).contiguous())[0][:, -1])


def packed(net, x):
    sequence = pack_padded_sequence(x, lengths(x), batch_first=True, enforce_sorted=False)
    outputs, states = net.body(sequence)
    last = states[0] if isinstance(states, tuple) else states
    return net.head(pad_packed_sequence(outputs, batch_first=True)[0].sum(1) + last.sum(0).mean(1, keepdim=True))


def twice(net, x):
    return net.head(net.body(x)[0][:, -1] - net.body(x.flip(1) ** 2)[0][:, -1])


def steps_of_cell(net, x):
    state = None
    for t in range(x.shape[1]):
        state = net.body(x[:, t], state)
    return net.head(state[0] if isinstance(state, tuple) else state)


FORMS = {
    "LSTM": (lambda: nn.LSTM(WIDTH, 3, batch_first=True), 3, last_output),
    "LSTM, last states": (lambda: nn.LSTM(WIDTH, 3, batch_first=True), 6, last_states),
    "LSTM without bias": (lambda: nn.LSTM(WIDTH, 3, bias=False, batch_first=True), 3, every_step),
    "projected LSTM": (lambda: nn.LSTM(WIDTH, 3, num_layers=2, proj_size=2, batch_first=True), 2, every_step),
    "two LSTMs in both directions": (
        lambda: nn.LSTM(WIDTH, 3, num_layers=2, dropout=0.5, bidirectional=True, batch_first=True),
        24,
        last_states,
    ),
    "LSTM with a state": (lambda: nn.LSTM(WIDTH, 3, batch_first=True), 3, given_state),
    "sequence first": (lambda: nn.LSTM(WIDTH, 3), 3, sequence_first),
    "folded sentences": (lambda: nn.GRU(WIDTH, 3, batch_first=True), 3, sentences),
    "packed LSTM": (lambda: nn.LSTM(WIDTH, 3, batch_first=True), 3, packed),
    "packed GRU in both directions": (lambda: nn.GRU(WIDTH, 3, bidirectional=True), 6, packed),
    "GRU": (lambda: nn.GRU(WIDTH, 3, batch_first=True), 3, last_output),
    "two GRUs": (lambda: nn.GRU(WIDTH, 3, num_layers=2, batch_first=True), 6, last_states),
    "GRU twice": (lambda: nn.GRU(WIDTH, 3, batch_first=True), 3, twice),
    "RNN": (lambda: nn.RNN(WIDTH, 3, batch_first=True), 3, every_step),
    "RNN of ReLUs": (lambda: nn.RNN(WIDTH, 3, nonlinearity="relu", batch_first=True), 3, every_step),
    "LSTM cell": (lambda: nn.LSTMCell(WIDTH, 3), 3, steps_of_cell),
    "GRU cell": (lambda: nn.GRUCell(WIDTH, 3), 3, steps_of_cell),
    "RNN cell": (lambda: nn.RNNCell(WIDTH, 3, nonlinearity="relu"), 3, steps_of_cell),
}


def problem(make, width, forward, **others):
    """The network, in float64, and six examples."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = Net(forward, body=make(), head=nn.Linear(width, 3)).double()
    for name, value in others.items():
        setattr(net, name, value)
    train = uw.Examples(rng.normal(size=(EXAMPLES, STEPS, WIDTH)), rng.integers(0, 3, EXAMPLES))
    return uw.TorchModel(net, lambda net, b: F.cross_entropy(net(b.x), b.y, reduction="none")).network, train


def alone(network, train):
    """Gradients by autograd, one example at a time."""
    with network.preserved():
        return functional.gradient_rows(network, "loss", train, network.names, None)


@pytest.mark.parametrize("name", FORMS)
def test_captured_gradients_equal_autograd(name):
    network, train = problem(*FORMS[name])
    inspection = inspect(network, "loss", train)
    assert inspection.fallback == ()
    captured = capture(network, "loss", train, inspection)
    for parameter, expected in alone(network, train).items():
        torch.testing.assert_close(captured.materialise(parameter), expected, rtol=0, atol=1e-12)
        if parameter.startswith("body.weight"):
            assert all(isinstance(term, OuterTerm) for term in captured.terms[parameter])
    layers = {factors.weight: factors.bias for factors in captured.layers()}
    weights = {parameter for parameter in network.names if "weight" in parameter}
    assert set(layers) == weights
    assert all(bias is None or bias == weight.replace("weight", "bias") for weight, bias in layers.items())


@pytest.mark.parametrize("name", FORMS)
def test_a_pass_computes_what_the_net_computes_and_leaves_it_alone(name):
    network, train = problem(*FORMS[name])
    layer = network.net.body
    with network.preserved():
        batch = network.batch(train)
        before = network.values("loss", batch, train.ids)
        with HookedPass(network, len(train), {}, explore=True):
            torch.testing.assert_close(network.values("loss", batch, train.ids), before, rtol=0, atol=1e-12)
        assert "forward" not in layer.__dict__
        with pytest.raises(RuntimeError, match="stop"), HookedPass(network, len(train), {}, explore=True):
            raise RuntimeError("stop")
    assert "forward" not in layer.__dict__


def test_a_learned_state_has_its_gradient():
    start = nn.Parameter(torch.randn(1, 1, 3, dtype=torch.float64))
    network, train = problem(lambda: nn.GRU(WIDTH, 3, batch_first=True), 3, learned_state, start=start)
    captured = capture(network, "loss", train, inspect(network, "loss", train))
    for parameter, expected in alone(network, train).items():
        torch.testing.assert_close(captured.materialise(parameter), expected, rtol=0, atol=1e-12)


def test_frozen_weights_have_no_gradient():
    network, train = problem(*FORMS["GRU"])
    network.net.body.weight_hh_l0.requires_grad_(False)
    network.net.body.bias_ih_l0.requires_grad_(False)
    network = uw.TorchModel(network.net, network.loss).network
    assert set(network.names) == {"body.weight_ih_l0", "body.bias_hh_l0", "head.weight", "head.bias"}
    captured = capture(network, "loss", train, inspect(network, "loss", train))
    for parameter, expected in alone(network, train).items():
        torch.testing.assert_close(captured.materialise(parameter), expected, rtol=0, atol=1e-12)


class Doubled(nn.GRU):
    """A subclass that computes something else."""

    def forward(self, x, hx=None):
        outputs, state = super().forward(x, hx)
        return 2 * outputs, state


def own_forward(layer):
    """An object with another forward of its own."""
    forward = layer.forward
    layer.forward = lambda x: (forward(x)[0] ** 2,)
    return layer


@pytest.mark.parametrize(
    "make",
    [lambda: Doubled(WIDTH, 3, batch_first=True), lambda: own_forward(nn.GRU(WIDTH, 3, batch_first=True))],
    ids=["subclass", "own forward"],
)
def test_layers_with_another_forward_are_left_to_autograd(make):
    network, train = problem(make, 3, last_output)
    inspection = inspect(network, "loss", train)
    captured = capture(network, "loss", train, inspection)
    assert len(inspection.fallback) == 4
    for parameter, expected in alone(network, train).items():
        torch.testing.assert_close(captured.materialise(parameter), expected, rtol=0, atol=1e-12)


def test_ekfac_of_one_step_is_that_of_a_linear_layer():
    """An RNN of ReLUs with one step from a state of zeros is a linear layer with a ReLU."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    recurrent = nn.RNN(WIDTH, 3, nonlinearity="relu", bias=False, batch_first=True)
    recurrent.weight_hh_l0.requires_grad_(False)
    head = nn.Linear(3, 3)
    plain = nn.Linear(WIDTH, 3, bias=False)
    plain.weight.data = recurrent.weight_ih_l0.data
    examples = uw.Examples(rng.normal(size=(40, 1, WIDTH)), rng.integers(0, 3, 40))
    scores = []
    for net in (
        Net(last_output, body=recurrent, head=head),
        Net(lambda n, x: n.head(n.body(x[:, 0]).relu()), body=plain, head=head),
    ):
        model = uw.TorchModel(net.double(), lambda net, b: F.cross_entropy(net(b.x), b.y, reduction="none"))
        fitted = uw.Influence(curvature=uw.EKFAC()).fit(model, examples)
        scores.append(fitted.attribute(examples.take(np.arange(5))).values)
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-9)


def shrinking(net, x):
    """Sequences that are over leave the batch, which is sorted by length for that."""
    count, order = lengths(x).sort(descending=True)
    state, sequences = x.new_zeros(len(x), 3), x[order]
    for t in range(STEPS):
        running = int((count > t).sum())
        state = torch.cat([step(net.body, sequences[:running, t], state[:running]), state[running:]])
    return net.head(state)[torch.argsort(order)]


def step(body, x, state):
    return body(x, state) if isinstance(body, nn.RNNCellBase) else body(state).tanh() + x[:, :3]


@pytest.mark.parametrize("make", [lambda: nn.GRUCell(WIDTH, 3), lambda: nn.Linear(3, 3)], ids=["cell", "linear"])
def test_a_batch_that_shrinks_is_left_to_autograd(make):
    network, train = problem(make, 3, shrinking)
    captured = capture(network, "loss", train, inspect(network, "loss", train))
    for parameter, expected in alone(network, train).items():
        torch.testing.assert_close(captured.materialise(parameter), expected, rtol=0, atol=1e-12)


def test_a_single_sequence_that_nobody_inspected_is_left_to_autograd():
    network, train = problem(
        lambda: nn.LSTM(WIDTH, 3, batch_first=True),
        3,
        lambda net, x: net.head(net.body(x.squeeze(0))[0][..., -1, :].reshape(len(x), 3)),
    )
    inspection, example = inspect(network, "loss", train), train.take([2])
    assert inspection.fallback == ()
    captured = capture(network, "loss", example, inspection)
    for parameter, expected in alone(network, example).items():
        torch.testing.assert_close(captured.materialise(parameter), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_net_of_recurrent_layers_has_an_identity(make, tmp_path):
    """They hold weak references to their own parameters, which have no contents."""
    models = []
    for width in (0.0, 0.0, 0.1):
        network, train = problem(lambda: make(WIDTH, 3, batch_first=True), 3, last_output)
        network.net.body.weight_hh_l0.data += width
        models.append(uw.TorchModel(network.net, network.loss))
    method = uw.Influence(curvature=uw.EKFAC())
    fitted = method.fit(models[0], train)
    fitted.save(tmp_path / "fit")
    loaded = method.load(tmp_path / "fit", models[1], train)
    np.testing.assert_array_equal(loaded.attribute(train).values, fitted.attribute(train).values)
    with pytest.raises(ValueError, match="parameters"):
        method.load(tmp_path / "fit", models[2], train)
