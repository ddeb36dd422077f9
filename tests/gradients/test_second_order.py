"""Products with the Hessian and the Gauss–Newton matrix against torch's own on the whole vector."""

import numpy as np
import pytest
import torch
from torch import nn

from support.small_nets import Attention, Case, TinyGPT, cross_entropy, mlp, next_token
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.functional import ggn_vp, gradient_rows, hvp
from upweight.gradients.inspection import inspect
from upweight.gradients.outputs import NoOutputsError, outputs

CASES = [Case("mlp", mlp, (5,)), Case("attention", Attention, (4, 8)), Case("transformer", TinyGPT, 11, next_token)]
SETTING = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)


def vectors(network, k=3):
    return network.split(np.random.default_rng(0).standard_normal((k, network.size)))


@SETTING
def test_hessian_products_are_those_of_the_dense_hessian(case):
    network, examples = case.network(), case.examples()
    v = vectors(network)
    with network.preserved():
        batch = network.batch(examples)
        products = hvp(lambda: network.values("loss", batch, examples.ids), network.parameters(), v)

    # central differences of the gradient, for the oracle differentiates with the same rules
    def gradient(shift):
        with torch.no_grad():
            for name, p in network.parameters().items():
                p.add_(shift[name])
        total = CapturedRows(network, examples, "loss").sums(np.ones((1, len(examples)))).values[0]
        with torch.no_grad():
            for name, p in network.parameters().items():
                p.sub_(shift[name])
        return total

    for k in range(3):
        up = gradient({name: 1e-5 * block[k] for name, block in v.items()})
        down = gradient({name: -1e-5 * block[k] for name, block in v.items()})
        expected = (up - down) / 2e-5
        assert np.abs(network.join(products)[k] - expected).max() < 1e-6 * np.abs(expected).max()


@SETTING
def test_gauss_newton_products_are_those_of_the_dense_matrix(case):
    network, examples = case.network(), case.examples(4)
    v, weights = vectors(network), torch.tensor([1.0, 0.5, 0.0, 2.0]).double()
    with network.preserved():
        out = outputs(network, network.batch(examples), examples.ids)
        products = network.join(ggn_vp(out.values, out.hessian_product(weights), network.parameters(), v))
        flat = out.values.flatten(1)
        rows = [torch.autograd.grad(z, list(network.parameters().values()), retain_graph=True, allow_unused=True)
                for z in flat.flatten()]  # fmt: skip
        zeros = [torch.zeros_like(p) for p in network.parameters().values()]
        jacobian = torch.stack([
            torch.cat([(z if g is None else g).flatten() for g, z in zip(row, zeros, strict=True)]) for row in rows
        ]).view(*flat.shape, -1)  # fmt: skip
        hessians = out.hessians()
    G = torch.einsum("b,bcp,bcd,bdq->pq", weights, jacobian, hessians, jacobian).numpy()
    expected = network.join(v) @ G
    assert np.abs(products - expected).max() < 1e-10 * np.abs(expected).max()


def test_output_hessians_of_cross_entropy():
    network, examples = CASES[0].network(), CASES[0].examples()
    with network.preserved():
        out = outputs(network, network.batch(examples), examples.ids)
        p = torch.softmax(out.values.detach(), 1)
        assert torch.allclose(out.hessians(), torch.diag_embed(p) - p[:, :, None] * p[:, None, :])
        expected = p - nn.functional.one_hot(torch.as_tensor(examples.y), 3)
        assert torch.allclose(out.gradient(), expected)


def test_a_loss_without_one_output_has_no_gauss_newton_matrix():
    case = Case("twice", mlp, (5,), lambda net, b: cross_entropy(net, b) + net(b.x).sum(1))
    network, examples = case.network(), case.examples()
    with network.preserved(), pytest.raises(NoOutputsError, match="did so 2 times"):
        outputs(network, network.batch(examples), examples.ids)


def test_a_loss_that_ignores_the_net_it_is_given():
    net = mlp().double()
    case = Case("closure", lambda: net, (5,), lambda _, batch: cross_entropy(net, batch))
    network, examples = case.network(), case.examples()
    assert inspect(network, "loss", examples).covered == 1.0
    with network.preserved(), pytest.raises(NoOutputsError, match="first argument"):
        outputs(network, network.batch(examples), examples.ids)


@SETTING
def test_vmap_and_loop_agree(case):
    network, examples = case.network(), case.examples()
    inspection = inspect(network, "loss", examples)
    with network.preserved():
        fast = gradient_rows(network, "loss", examples, network.names, inspection.sliced)
        slow = gradient_rows(network, "loss", examples, network.names, None)
    assert np.abs(network.join(fast) - network.join(slow)).max() < 1e-12
    assert np.abs(network.join(fast) - CapturedRows(network, examples, "loss").dense()).max() < 1e-12
