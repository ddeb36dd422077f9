"""The exponentials of a training's segments against dense matrices in float64."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.linalg import expm
from torch import nn

import upweight as uw
from upweight.core.rows import DenseRows
from upweight.curvature.limits import Limits
from upweight.curvature.segments import segments

N = 24
KINDS = ("SGD", "Adam", "AdamW")
BY_GROUP = ", decay by group"


def losses(net, batch):
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


BY_GROUP = " with decay by group"


def optimiser_of(kind, net):
    groups = net.parameters()
    if kind.endswith(BY_GROUP):
        groups = [{"params": [p for p in net.parameters() if p.ndim == 1], "weight_decay": 0.9}]
        groups += [{"params": [p for p in net.parameters() if p.ndim > 1]}]
    kind = kind.removesuffix(BY_GROUP)
    if kind == "SGD":
        return torch.optim.SGD(groups, lr=0.2, momentum=0.8, weight_decay=0.03)
    return getattr(torch.optim, kind)(groups, lr=0.02, weight_decay=0.05, eps=1e-3)


def decays_of(kind, model):
    """The weight decay of every number of the net, (p,)."""
    of_matrices = 0.03 if kind.startswith("SGD") else 0.05
    shapes = [model.network.shapes[name] for name in model.network.names]
    return np.concatenate(
        [
            np.full(int(np.prod(shape)), 0.9 if len(shape) == 1 and kind.endswith(BY_GROUP) else of_matrices)
            for shape in shapes
        ]
    )


@cache
def recorded(kind, folder):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    optimiser, trajectory = optimiser_of(kind, net), uw.Trajectory(folder, every=4)
    rng = np.random.default_rng(0)
    train = uw.Examples(rng.normal(size=(N, 4)), rng.integers(0, 3, N), weights=rng.uniform(0.5, 2, N))
    trajectory.save(net, optimiser)
    for _ in range(16):
        optimiser.zero_grad()
        value = losses(net, SimpleNamespace(x=torch.as_tensor(train.x), y=torch.as_tensor(train.y)))
        (torch.as_tensor(train.weights) * value).mean().backward()
        optimiser.step()
        trajectory.record(net, optimiser)
    return uw.TorchModel(net, losses, trajectory=trajectory), train


@pytest.fixture(params=[*KINDS, *(kind + BY_GROUP for kind in KINDS)])
def run(request, tmp_path_factory):
    return request.param, *recorded(request.param, tmp_path_factory.getbasetemp() / request.param)


def dense_gauss_newton(model, train):
    """Jᵀ Λ J / n, written out with autograd's Jacobians."""
    net = model.network.net
    total = 0.0
    for x, w in zip(torch.as_tensor(train.x), train.weights, strict=True):
        z = net(x[None])[0]
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(v, net.parameters(), retain_graph=True)]) for v in z
        ]
        p, jacobian = torch.softmax(z, 0), torch.stack(rows)
        total = total + w * jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
    return total.detach().numpy() / len(train)


def oracle(kind, model, train, group, covectors, block=slice(None)):
    """(P ∫e^{−sHP} ds u, e^{−τHP} u) from a matrix exponential and its integral, of these numbers of the net."""
    tau = sum(c.learning_rate_sum for c in group)
    average = sum(c.learning_rate_sum / tau * dense_gauss_newton(c.model(), train) for c in group)
    size, decay = len(average), np.diag(decays_of(kind, model))
    metric = np.eye(size)
    metrics = [(c, c.metric(model.network.names)) for c in group]
    if not kind.startswith("SGD"):
        weigh = sum(c.learning_rate_sum for c, m in metrics if m)
        flat = [(c, model.network.join({k: v[None] for k, v in m.items()})[0]) for c, m in metrics if m]
        metric = np.diag(sum(c.learning_rate_sum / weigh * p for c, p in flat))
    average, decay, metric = (matrix[block, block] for matrix in (average, decay, metric))
    size = len(average)
    # dδ = −(P (G + inside) + outside) δ; covectors use the transpose
    generator = (average + decay) @ metric if not kind.startswith("AdamW") else average @ metric + decay
    both = expm(np.block([[-generator * tau, np.eye(size) * tau], [np.zeros((size, 2 * size))]]))
    return covectors @ (metric @ both[:size, size:]).T, covectors @ both[:size, :size].T


@pytest.mark.sweep(3)
@pytest.mark.parametrize("dense_parameters", [3000, 0], ids=["eigenvalues", "chebyshev"])
def test_exact_segments_are_the_matrix_exponential(run, dense_parameters):
    kind, model, train = run
    covectors = np.random.default_rng(1).normal(size=(3, model.network.size))
    limits = Limits(dense_parameters=dense_parameters)
    for segment in segments(model.checkpoints(), train.weights, train, None, 2, limits=limits):
        response, before = segment.passed(DenseRows(covectors))
        expected = oracle(kind, model, train, segment.checkpoints, covectors)
        tolerance = 1e-9 if dense_parameters else 2e-4
        for rows, expected_rows in zip((response.dense(), before.dense()), expected, strict=True):
            assert np.abs(rows - expected_rows).max() <= tolerance * np.abs(expected_rows).max()


@pytest.mark.sweep(3)
def test_source_is_the_unrolled_sum(run):
    kind, model, train = run
    queries = train.take(np.arange(5))
    scores = uw.SOURCE(segments=2).fit(model, train).attribute(queries)
    covectors, expected = model.measure_rows(queries).dense(), 0.0
    for segment in reversed(model.segments(train, None, 2)):
        response, covectors = oracle(kind, model, train, segment.checkpoints, covectors)
        gradients = sum(
            c.learning_rate_sum / segment.learning_rate_sum * c.model().loss_rows(train).dense()
            for c in segment.checkpoints
        )
        expected = expected - response @ gradients.T / N
    assert np.abs(scores.values - expected).max() <= 1e-9 * np.abs(expected).max()


@pytest.mark.sweep(2)
def test_source_of_a_module_is_the_unrolled_sum_in_its_block(run):
    kind, model, train = run
    queries, last = train.take(np.arange(5)), slice(15, None)
    scores = uw.SOURCE(segments=2, modules="2").fit(model, train).attribute(queries)
    covectors, expected = model.measure_rows(queries).dense()[:, last], 0.0
    for segment in reversed(model.segments(train, None, 2)):
        response, covectors = oracle(kind, model, train, segment.checkpoints, covectors, last)
        gradients = sum(
            c.learning_rate_sum / segment.learning_rate_sum * c.model().loss_rows(train).dense()[:, last]
            for c in segment.checkpoints
        )
        expected = expected - response @ gradients.T / N
    assert np.abs(scores.values - expected).max() <= 1e-9 * np.abs(expected).max()
    assert (uw.SOURCE(segments=2, modules="last").fit(model, train).attribute(queries).values == scores.values).all()
    with pytest.raises(ValueError, match="whole modules"):
        uw.SOURCE(modules={"2": [1]}).fit(model, train)


@pytest.mark.sweep(3)
def test_factored_eigenvalues_have_the_trace_of_the_mean(run):
    kind, model, train = run
    (segment,) = model.segments(train, uw.EKFAC(), 1)
    if not kind.startswith("SGD"):
        assert segment.passed(model.measure_rows(train))[0].dense().shape == (N, model.network.size)
        return
    trace = sum(float(layer.values.sum()) for layer in segment.spectrum.layers.values())
    tau = segment.learning_rate_sum
    mean = sum(c.learning_rate_sum / tau * np.trace(dense_gauss_newton(c.model(), train)) for c in segment.checkpoints)
    assert trace == pytest.approx(mean + decays_of(kind, model).sum(), rel=1e-6)


def test_a_short_training_is_a_sum_of_gradient_products(run):
    """Without curvature SOURCE is TracIn: here the learning rates are so small that e^{−τH} is 1."""
    kind, model, train = run
    if kind != "SGD":
        return
    moments = [SimpleNamespace(**vars(m), metric=m.metric) for m in model.checkpoints()]
    for moment in moments:
        moment.learning_rate_sum *= 1e-9
    (segment,) = segments(moments, train.weights, train, None, 1)
    rows = model.measure_rows(train)
    assert np.allclose(segment.passed(rows)[0].dense(), segment.learning_rate_sum * rows.dense(), rtol=1e-6, atol=1e-18)


def test_bad_segments_are_refused(run):
    _, model, train = run
    with pytest.raises(ValueError, match="expected 1 to 5 segments for a trajectory of 5 checkpoints, got 6"):
        uw.SOURCE(segments=6).fit(model, train)
    with pytest.raises(TypeError, match=r"expected curvature GaussNewton\(\) or EKFAC\(\)"):
        uw.SOURCE(curvature=uw.KFAC()).fit(model, train)
    with pytest.raises(ValueError, match="at least 1 segment"):
        uw.SOURCE(segments=0)


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_factored_segments_are_exact_for_one_example_of_two_classes(kind, tmp_path):
    """Every gradient is then one outer product, and so is Adam's metric."""
    torch.manual_seed(0)
    net = nn.Linear(4, 2).double()
    train = uw.Examples(np.random.default_rng(0).normal(size=(1, 4)), np.array([1]))
    decay = 0.0 if kind == "Adam" else 0.05
    make = getattr(torch.optim, kind)
    optimiser = make(net.parameters(), lr=0.1, weight_decay=decay, **({} if kind == "SGD" else {"eps": 1e-14}))
    trajectory = uw.Trajectory(tmp_path)
    for _ in range(4):
        optimiser.zero_grad()
        losses(net, SimpleNamespace(x=torch.as_tensor(train.x), y=torch.as_tensor(train.y))).mean().backward()
        optimiser.step()
        trajectory.record(net, optimiser)
    model = uw.TorchModel(net, losses, trajectory=trajectory)
    covectors = DenseRows(np.random.default_rng(1).normal(size=(3, model.network.size)))
    (exact,), (factored,) = (model.segments(train, recipe, 1) for recipe in (None, uw.EKFAC()))
    for rows, expected in zip(factored.passed(covectors), exact.passed(covectors), strict=True):
        assert np.abs(rows.dense() - expected.dense()).max() <= 1e-6 * np.abs(expected.dense()).max()
