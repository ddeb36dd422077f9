"""Products with the Hessian and the Gauss–Newton matrix of a data set against dense matrices."""

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from torch import nn

import upweight as uw
from support.curved_nets import MAKERS, Attention, columns, cross_entropy, damped, dense, examples, operators
from upweight.curvature.operators import GaussNewtonOperator, HessianOperator
from upweight.curvature.summed_objective import SummedObjective

KINDS = ["hessian", "gauss-newton"]


def for_every_net_and_kind(test):
    return pytest.mark.parametrize("kind", KINDS)(pytest.mark.parametrize("name", MAKERS)(test))


@for_every_net_and_kind
def test_products_are_those_of_the_dense_matrix(name, kind):
    operator = operators(name, damping=0.7)[kind]
    b, blocks = columns(operator)
    network, matrix = operator.network, dense(name, kind)
    np.testing.assert_allclose(network.join(operator.product(blocks)), b @ matrix, atol=1e-10)
    np.testing.assert_allclose(network.join(operator.matvec(blocks)), b @ matrix + 0.7 * b, atol=1e-10)
    assert (np.linalg.eigvalsh(matrix).min() < -1e-3) == (kind == "hessian")  # the nets distinguish the two kinds


@for_every_net_and_kind
def test_products_are_symmetric_and_linear(name, kind):
    operator = operators(name)[kind]
    b, blocks = columns(operator, 3)
    products = operator.network.join(operator.product(blocks))
    np.testing.assert_allclose(b @ products.T, products @ b.T, atol=1e-10)
    mixed = operator.network.split(np.array([[2.0, -1.0, 0.5]]) @ b)
    product = operator.network.join(operator.product(mixed))[0]
    np.testing.assert_allclose(product, [2.0, -1.0, 0.5] @ products, atol=1e-10)


@for_every_net_and_kind
def test_products_do_not_depend_on_batches_of_examples_or_vectors(name, kind):
    operator = operators(name)[kind]
    _, blocks = columns(operator, 5)
    whole = operator.network.join(operator.product(blocks))
    operator.max_batch_examples, operator.max_vector_numbers = 7, 2 * operator.size
    np.testing.assert_allclose(operator.network.join(operator.product(blocks)), whole, atol=1e-10)


@for_every_net_and_kind
def test_random_subsets_estimate_the_whole_without_bias(name, kind):
    operator = damped(operators(name)[kind], 0.3)
    _, blocks = columns(operator, 2)
    positions = np.random.default_rng(0).permutation(25).reshape(5, 5)
    parts = [operator.network.join(operator.subset(part).matvec(blocks)) for part in positions]
    np.testing.assert_allclose(np.mean(parts, axis=0), operator.network.join(operator.matvec(blocks)), atol=1e-10)
    assert np.abs(parts[0] - parts[1]).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_examples_of_weight_zero_are_not_read(kind):
    operator = operators("mlp", 25)[kind]
    weights = operator.summed.weights.copy()
    weights[5:] = 0.0
    batch_sizes = []
    operator.network.collate, collate = (
        lambda part: batch_sizes.append(len(part)) or collate(part),
        operator.network.collate,
    )
    try:
        sparse = type(operator)(SummedObjective(operator.network, operator.summed.train, weights, 0.0, 0.0))
        batch_sizes.clear()
        _, blocks = columns(operator, 1)
        product = operator.network.join(sparse.product(blocks))
    finally:
        operator.network.collate = collate
    assert batch_sizes == [5]
    few = type(operator)(SummedObjective(operator.network, operator.summed.train.take(range(5)), weights[:5], 0.0, 0.0))
    np.testing.assert_allclose(product, operator.network.join(few.product(blocks)), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_net_is_left_as_it_was(kind):
    torch.manual_seed(4)
    net = nn.Sequential(nn.Dropout(0.5), Attention(), nn.BatchNorm1d(3)).double().train()
    net[1].qkv.bias.requires_grad_(False)
    model = uw.TorchModel(net, cross_entropy)
    make = HessianOperator if kind == "hessian" else GaussNewtonOperator

    def belongings():
        hooks = [len(m._forward_hooks) + len(m._backward_hooks) for m in net.modules()]
        flags = [(p.requires_grad, p.grad is None) for p in net.parameters()]
        state = b"".join(v.numpy().tobytes() for v in net.state_dict().values())
        return hooks, flags, state, [m.training for m in net.modules()], torch.random.get_rng_state().tolist()

    before = belongings()
    operator = make(SummedObjective(model.network, examples(8), np.ones(8), 0.0, 0.1))
    _, blocks = columns(operator, 2)
    product = operator.matvec(blocks)
    assert not any(block.requires_grad for block in product.values())
    assert belongings() == before
    broken = uw.Examples(np.full((3, 12), np.nan), [0, 1, 2])
    with pytest.raises(ValueError, match=r"(?i)nan"):
        make(SummedObjective(model.network, broken, np.ones(3), 0.0, 0.1)).matvec(blocks)
    assert belongings() == before


def test_a_loss_that_hides_the_output_is_refused_with_what_to_do():
    def twice(net, batch):
        return cross_entropy(net, batch) + cross_entropy(net, batch)

    torch.manual_seed(0)
    model = uw.TorchModel(nn.Linear(12, 3).double(), twice)
    summed = SummedObjective(model.network, examples(6), np.ones(6), 0.0, 0.1)
    with pytest.raises(TypeError, match="call the net once"):
        GaussNewtonOperator(summed)
    with pytest.raises(TypeError, match=r"EmpiricalFisher\(\), DataInf\(\), Hessian\(\)"):
        uw.Influence(curvature=uw.GaussNewton()).fit(model, examples(6))
    operator = HessianOperator(summed)
    _, blocks = columns(operator, 1)
    assert operator.network.join(operator.matvec(blocks)).shape == (1, operator.size)
