import weakref
from copy import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

import upweight as uw
from support.small_nets import CASES, Case, cross_entropy
from upweight.core.examples import Examples
from upweight.core.rows import DenseRows
from upweight.gradients import captured_rows
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.functional import single_gradient
from upweight.gradients.inner_products import pairwise_inner_products, per_example_inner_products
from upweight.gradients.inspection import inspect, inspections_of
from upweight.gradients.network import Network
from upweight.gradients.tensor_rows import TensorRows

EXACT = 1e-10
IDS = [case.name for case in CASES]


def truth(case: Case, network, examples, quantity="loss") -> np.ndarray:
    """Gradients of each example in a batch of its own, by autograd."""
    with network.preserved():
        each = [single_gradient(network, quantity, example, network.names) for example in examples.batches(1)]
    return network.join({name: torch.stack([g[name] for g in each]) for name in network.names})


def close(a, b):
    return np.abs(a - b).max() <= EXACT * max(1.0, np.abs(b).max())


@pytest.fixture(params=CASES, ids=IDS, scope="module")
def setting(request):
    case = request.param
    network = case.network()
    train, queries = case.examples(7), case.examples(5, seed=1)
    rng = np.random.default_rng(2)
    share = network.split(rng.standard_normal((1, network.size)))
    weights = rng.uniform(0.5, 2.0, 7)
    ours = CapturedRows(network, train, "loss", weights, {name: b[0] for name, b in share.items()})
    theirs = CapturedRows(network, queries, "measure")
    dense = weights[:, None] * (truth(case, network, train) + network.join(share))
    return case, network, (ours, dense), (theirs, truth(case, network, queries, "measure"))


@pytest.mark.sweep(3)
def test_rows_are_those_of_autograd(setting):
    case, network, (ours, dense), (theirs, dense_queries) = setting
    assert close(ours.dense(), dense)
    assert close(theirs.dense(), dense_queries)
    assert set(inspect(network, "loss", ours.examples).fallback) == set(case.fallback)


@pytest.mark.sweep(3)
def test_products_are_those_of_the_dense_matrices(setting):
    _, network, (ours, dense), (theirs, dense_queries) = setting
    assert close(ours.dot(theirs), dense @ dense_queries.T)
    assert close(theirs.dot(ours), dense_queries @ dense.T)
    assert close(ours.gram(), dense @ dense.T)
    assert close(ours.squares(), (dense**2).sum(axis=1))
    blocks = TensorRows(network, network.split(dense_queries))
    assert close(ours.dot(blocks), dense @ dense_queries.T)
    assert close(blocks.dot(ours), dense_queries @ dense.T)
    assert close(ours.dot(DenseRows(dense_queries)), dense @ dense_queries.T)
    assert close(DenseRows(dense_queries).dot(ours), dense_queries @ dense.T)


@pytest.mark.sweep(3)
def test_one_vector_or_many_give_the_same_products(setting):
    _, network, (ours, dense), _ = setting
    rng = np.random.default_rng(3)
    for k in (1, 3, 9):
        matrix, membership = rng.standard_normal((network.size, k)), rng.standard_normal((k, len(ours)))
        assert close(ours.project(matrix), dense @ matrix)
        assert close(ours.sums(membership).values, membership @ dense)


def test_taken_rows_are_those_of_the_dense_matrix(setting):
    _, _, (ours, dense), (theirs, dense_queries) = setting
    where = np.array([5, 0, 3])
    assert close(ours.take(where).dense(), dense[where])
    assert close(ours.take(where[:1]).dot(theirs.take(where[1:2])), dense[[5]] @ dense_queries[[0]].T)


@pytest.mark.sweep(3)
def test_temporaries_of_any_size_give_the_same_products(setting):
    _, network, (ours, _), (theirs, _) = setting
    ((_, batch),), ((_, queries),) = ours.passes(size=7), theirs.passes(size=5)
    rng = np.random.default_rng(4)
    vectors, membership = network.split(rng.standard_normal((3, network.size))), torch.as_tensor(rng.random((2, 7)))
    for name, uses in batch.terms.items():
        assert torch.allclose(batch.sum_of_squares(name, limit=7), batch.materialise(name).square().sum(0))
        for term in uses:
            gradients, matrices = term.materialise().flatten(1), vectors[name].flatten(1)
            assert torch.allclose(term.dot_vectors(vectors[name], limit=7), gradients @ matrices.T)
            assert torch.allclose(term.sums(membership, limit=7).flatten(1), membership @ gradients)
            for other in queries.terms[name]:
                products = pairwise_inner_products(term, other, limit=7)
                assert torch.allclose(products, gradients @ other.materialise().flatten(1).T)
            for other in uses:
                products = per_example_inner_products(term, other, limit=7)
                assert torch.allclose(products, (gradients * other.materialise().flatten(1)).sum(1))
    assert torch.allclose(batch.gram(block_examples=2), batch.dot(batch))


@pytest.mark.sweep(3)
def test_batches_of_any_size_give_the_same_products(setting):
    _, _, (large, dense), (large_queries, dense_queries) = setting
    ours, theirs = copy(large), copy(large_queries)
    for rows in (ours, theirs):
        rows.max_batch_examples, rows.max_held_numbers = 2, 1
    assert close(ours.dot(theirs), dense @ dense_queries.T)
    assert close(ours.gram(), dense @ dense.T)
    assert close(ours.squares(), (dense**2).sum(axis=1))
    assert close(ours.project(dense_queries.T), dense @ dense_queries.T)
    assert close(ours.sums(np.ones((5, len(ours)))).values, np.ones((5, len(ours))) @ dense)


def test_one_example_has_rows_but_is_not_enough_for_an_inspection():
    for case in CASES:
        network, single = case.network(), case.examples(1)
        assert close(CapturedRows(network, single, "loss").dense(), truth(case, network, single)), case.name
        assert not inspections_of(network)  # one example says nothing about batches


def test_tensor_rows_are_those_of_the_dense_matrix():
    case = CASES[0]
    network = case.network()
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, network.size)), rng.standard_normal((3, network.size))
    ours, theirs = (TensorRows.of(network, DenseRows(m)) for m in (a, b))
    assert len(ours) == 4
    assert close(ours.dense(), a)
    assert close(ours.dot(theirs), a @ b.T)
    assert close(ours.project(b.T), a @ b.T)
    assert close(ours.take(np.array([2, 0])).dense(), a[[2, 0]])
    assert close(ours.sums(b[:, :4]).values, b[:, :4] @ a)
    assert TensorRows.of(network, ours) is ours


def test_layers_give_the_factors_of_kfac():
    network = CASES[0].network()
    (_, batch), *_ = CapturedRows(network, CASES[0].examples(), "loss").passes()
    layers = list(batch.layers())
    assert [(layer.weight, layer.bias) for layer in layers] == [("0.weight", "0.bias"), ("3.weight", "3.bias")]
    for layer in layers:
        gradients = torch.einsum("bto,bti->boi", layer.s, layer.a)
        assert torch.allclose(gradients, batch.materialise(layer.weight))


def test_sequences_of_different_lengths_can_be_multiplied():
    case = next(c for c in CASES if c.name == "transformer")
    network = case.network()
    rng = np.random.default_rng(0)
    long, short = (case.examples(4).__class__(rng.integers(0, 11, (4, t))) for t in (6, 3))
    a, b = CapturedRows(network, long, "loss"), CapturedRows(network, short, "loss")
    assert close(a.dot(b), truth(case, network, long) @ truth(case, network, short).T)


class LargestTensor(TorchFunctionMode):
    """Records the size of the largest tensor that a torch function returns."""

    numbers = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


def test_memory_does_not_grow_with_examples_times_parameters():
    net = nn.Sequential(nn.Linear(400, 500), nn.ReLU(), nn.Linear(500, 10))
    rng = np.random.default_rng(0)
    examples = Examples(rng.standard_normal((1000, 400)), rng.integers(0, 10, 1000))
    network = Network(net, cross_entropy)
    rows = CapturedRows(network, examples, "loss")
    with LargestTensor() as largest:
        rows.dot(rows.take(np.arange(100)))
        rows.squares()
        rows.project(rng.standard_normal((network.size, 20)))
        rows.gram()
    assert largest.numbers < 1000 * network.size / 20


def test_a_compiled_net_is_inspected_as_the_net_inside():
    net = CASES[0].net().double().eval()
    compiled = torch.compile(net, backend="eager")
    network = Network(compiled, cross_entropy)
    assert network.names == tuple(name for name, _ in net.named_parameters())
    assert inspect(network, "loss", CASES[0].examples()).covered == 1.0


@pytest.mark.parametrize("reentrant", [True, False])
def test_rows_of_checkpointed_blocks_are_those_of_autograd(reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.out = nn.Linear(5, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.out(checkpoint(lambda t: torch.tanh(self.inner(t)), x, use_reentrant=reentrant))

    case = Case("checkpointed", Checkpointed, (5,))
    network, examples = case.network(), case.examples()
    assert close(CapturedRows(network, examples, "loss").dense(), truth(case, network, examples))


def test_scripted_nets_are_differentiated_one_example_at_a_time():
    case = Case("scripted", lambda: torch.jit.script(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))), (5,))
    network, examples = case.network(), case.examples()
    assert close(CapturedRows(network, examples, "loss").dense(), truth(case, network, examples))
    assert inspect(network, "loss", examples).covered == 0.0
    assert "Hooks see 0%" in inspect(network, "loss", examples).notes[0]


def test_rows_of_different_nets_cannot_be_multiplied():
    ours, theirs = (CapturedRows(c.network(), c.examples(), "loss") for c in CASES[:2])
    with pytest.raises(ValueError, match="same network"):
        ours.dot(theirs)


def test_taking_no_rows_is_refused():
    network = CASES[0].network()
    rows = CapturedRows(network, CASES[0].examples(), "loss")
    with pytest.raises(ValueError, match="at least one"):
        rows.take(np.array([], dtype=int))


@pytest.mark.sweep(3)
@pytest.mark.parametrize("limit", [0, 1 << 26])
def test_cached_gradients_give_the_same_products(setting, limit):
    _, _, (ours, dense), (theirs, dense_queries) = setting
    rows = ours.cached(limit)
    for _ in range(2):
        assert close(rows.gram(), dense @ dense.T)
        assert close(rows.dot(theirs), dense @ dense_queries.T)
        assert close(rows.squares(), (dense**2).sum(axis=1))
    assert (rows._cache is not None) == (limit > 0)


def test_passes_write_nothing_on_the_network():
    case = CASES[0]
    network = case.network()
    before = dict(vars(network))
    CapturedRows(network, case.examples(), "loss").gram()
    narrowed = network.narrowed(network.names[:1])
    assert vars(network) == before
    assert narrowed.names == network.names[:1] and narrowed.size < network.size
    assert inspections_of(network) and not inspections_of(narrowed)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("by_layer", [False, True])
def test_normalised_rows_are_gradients_divided_by_their_norms(setting, by_layer):
    case, network, (ours, _), _ = setting
    blocks = network.split(truth(case, network, ours.examples))
    groups = {name: name.rpartition(".")[0] if by_layer else "" for name in blocks}
    squares = {name: block.flatten(1).square().sum(1) for name, block in blocks.items()}
    for name, block in blocks.items():
        norm = sum(squares[other] for other in groups if groups[other] == groups[name]).sqrt()
        scale = torch.where(norm > 0, 1 / norm, 0.0)
        blocks[name] = block * scale.view(-1, *[1] * (block.ndim - 1))
    rows = ours.normalised(by_layer)
    assert close(rows.dense(), network.join(blocks))
    assert close(rows.take(np.array([2, 0])).dense(), network.join(blocks)[[2, 0]])


@pytest.mark.parametrize("quantity", ["loss", "measure"])
def test_directions_of_examples_that_a_net_in_single_precision_fits_almost_exactly_are_not_rounding(quantity):
    x, y, net = 3.6 * torch.eye(4, 6) + 0.1, torch.arange(4), nn.Linear(6, 4)
    with torch.no_grad():
        net.weight.copy_(5 * torch.eye(4, 6))
    network, examples = Network(net, cross_entropy), Examples(x.numpy(), y.numpy())
    p = (x.double() @ net.weight.double().T + net.bias.double()).softmax(1).detach()
    assert (1 - p.max(1).values < 1e-6).all()
    error = p - torch.eye(4)
    gradients = torch.cat([(error[:, :, None] * x.double()[:, None]).flatten(1), error], 1)
    sign = 1 if quantity == "loss" else -1
    rows = CapturedRows(network, examples, quantity).normalised().dense()
    assert np.allclose(rows, sign * gradients / gradients.norm(dim=1, keepdim=True), atol=1e-6)
    assert network.dtype == net.weight.dtype == torch.float32
    with torch.no_grad():
        net.bias.add_(torch.arange(4.0))
    assert not np.allclose(CapturedRows(network, examples, quantity).normalised().dense(), rows, atol=1e-3)


def test_a_batch_is_freed_before_the_next_one_is_captured(monkeypatch):
    rng = np.random.default_rng(0)
    train, queries = (Examples(rng.normal(size=(n, 3)).astype(np.float32), rng.integers(0, 2, n)) for n in (12, 2))
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    fitted = uw.Influence(curvature=uw.EKFAC()).fit(uw.TorchModel(net, cross_entropy), train)
    captured, prepare = [], CapturedBatch.prepare

    def watched(batch):
        assert all(earlier() is None for earlier in captured)
        prepared = prepare(batch)
        captured.append(weakref.ref(prepared))
        return prepared

    monkeypatch.setattr(captured_rows, "MAX_BATCH_EXAMPLES", 4)
    monkeypatch.setattr(CapturedBatch, "prepare", watched)
    fitted.attribute(queries)
    assert len(captured) == 3


def test_batches_of_short_and_of_long_sequences_are_joined():
    """Gradients of long sequences are materialised before many products, those of short ones are not."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    ids, size = rng.integers(1, 7, (12, 9)), [2] * 6 + [9] * 6
    for row, length in enumerate(size):
        ids[row, length:] = 0
    net = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.Tanh()).double()

    def collate(examples):
        x = torch.as_tensor(examples.x)
        return x[:, : int((x > 0).sum(1).max())]

    def loss(net, x):
        return ((x > 0)[..., None] * net(x)).sum((1, 2)).square()

    network = uw.TorchModel(net, loss, collate=collate).network
    rows = CapturedRows(network, uw.Examples(ids), "loss")
    rows.max_batch_examples = 6
    dense = rows.dense()
    np.testing.assert_allclose(rows.dot(rows), dense @ dense.T, rtol=1e-12)
