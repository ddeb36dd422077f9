"""The distance of the functions of two nets, against outputs and divergences computed in float64."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.datasets import load_digits

import upweight as uw

RNG = np.random.default_rng(0)


def cross_entropy(net, batch):
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return uw.Examples(x[150:160] / 16, y[150:160])


def test_the_distance_of_functions_is_that_of_outputs_or_of_probabilities(digits):
    queries = digits
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 6), torch.nn.GELU(), torch.nn.Linear(6, 10)).double()
    model = uw.TorchModel(net, cross_entropy)
    other = model.with_parameters(model.parameters * 1.1)
    x = torch.as_tensor(queries.x)
    f, g = other.network.net(x).detach(), model.network.net(x).detach()
    expected = (f - g).square().sum(1).mean().sqrt()
    assert uw.function_distance(other, model, queries) == pytest.approx(float(expected), rel=1e-9)
    divergence = F.kl_div(f.log_softmax(1), g.softmax(1), reduction="batchmean")
    assert uw.function_distance(other, model, queries, "bregman") == pytest.approx(float(divergence), rel=1e-9)
    assert uw.function_distance(model, model, queries, "bregman") == 0.0
    with pytest.raises(ValueError, match='expected metric="outputs" or "bregman"'):
        uw.function_distance(other, model, queries, "cosine")


def test_near_nets_are_told_apart_in_single_precision(digits):
    queries = digits
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 6), torch.nn.GELU(), torch.nn.Linear(6, 10))
    near = copy.deepcopy(net)
    with torch.no_grad():
        near[2].bias.add_(1e-4 * torch.randn(10))
    for half in (False, True):
        nets = [copy.deepcopy(each).to(torch.bfloat16 if half else torch.float32) for each in (near, net)]
        models = [uw.TorchModel(each, cross_entropy) for each in nets]
        f, g = (copy.deepcopy(each).double()(torch.as_tensor(queries.x)).detach() for each in nets)
        divergence = F.kl_div(f.log_softmax(1), g.softmax(1), reduction="batchmean")
        assert uw.function_distance(*models, queries, "bregman") == pytest.approx(float(divergence), rel=1e-6)
        assert [p.dtype for p in nets[0].parameters()] == [p.dtype for p in models[0].network.net.parameters()]


def test_a_divergence_of_a_loss_that_is_not_convex_may_be_negative():
    x = RNG.normal(size=(12, 3))
    examples = uw.Examples(x, RNG.normal(size=12))
    nets = [torch.nn.Linear(3, 1).double() for _ in range(2)]
    models = [uw.TorchModel(net, lambda net, b: -((net(b.x)[:, 0] - b.y) ** 2)) for net in nets]
    f, g = (net(torch.as_tensor(x)).detach() for net in nets)
    assert uw.function_distance(*models, examples, "bregman") == pytest.approx(-float((f - g).square().mean()))
