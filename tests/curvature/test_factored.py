"""Factored and diagonal curvatures and the empirical Fisher, each against its dense matrix in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

import upweight as uw  # noqa: E402
from upweight.core.rows import DenseRows  # noqa: E402


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.LayerNorm(5), nn.Linear(5, 3)).double()


def cnn() -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Conv2d(1, 3, 2), nn.GELU(), nn.Conv2d(3, 2, 2, stride=2, bias=False), nn.Flatten(), nn.Linear(8, 3)
    return nn.Sequential(nn.Unflatten(1, (1, 6, 6)), *layers).double()


def softmax_regression() -> nn.Module:
    torch.manual_seed(2)
    return nn.Linear(4, 3).double()


def cross_entropy(net: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


NETS = {"mlp": (mlp, 4), "cnn": (cnn, 36), "softmax regression": (softmax_regression, 4)}


def problem(name: str, n: int = 9, l2: float = 0.01, weighted: bool = False) -> tuple[Any, uw.Examples, uw.Examples]:
    make, width = NETS[name]
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(n + 3, width)), rng.integers(0, 3, n + 3)
    weights = rng.uniform(0.5, 2.0, n) if weighted else None
    train, queries = uw.Examples(x[:n], y[:n], weights=weights), uw.Examples(x[n:], y[n:])
    return uw.TorchModel(make(), cross_entropy, objective=uw.Objective("mean", l2=l2)), train, queries


def gradients(model: Any, examples: uw.Examples) -> np.ndarray:
    network = model.network
    rows = []
    for example in examples.batches(1):
        loss = network.values("loss", network.batch(example), example.ids).sum()
        blocks = torch.autograd.grad(loss, list(network.parameters().values()))
        rows.append(torch.cat([block.flatten() for block in blocks]).numpy())
    return np.array(rows)


def gauss_newton(model: Any, examples: uw.Examples, weights: np.ndarray) -> np.ndarray:
    """Σ wᵢ Jᵢᵀ (diag(p) − p pᵀ) Jᵢ, one output of one example at a time."""
    network, total = model.network, 0.0
    for example, weight in zip(examples.batches(1), weights, strict=True):
        z = network.net(network.batch(example).x)[0]
        parameters = list(network.parameters().values())
        rows = [torch.autograd.grad(z[c], parameters, retain_graph=True) for c in range(len(z))]
        jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
        p = torch.softmax(z, 0).detach()
        total = total + weight * jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
    return total.numpy()


def checked_weights(train: uw.Examples) -> np.ndarray:
    return np.ones(len(train)) if train.weights is None else train.weights


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_the_dual_empirical_fisher_is_its_dense_inverse(name: str, weighted: bool) -> None:
    model, train, queries = problem(name, weighted=weighted)
    curvature = model.curvature(train, uw.EmpiricalFisher(), 0.05)
    g, w = gradients(model, train), checked_weights(train)
    dense = g.T @ (w[:, None] * g) + (0.01 + 0.05) * w.sum() * np.eye(g.shape[1])
    q = model.measure_rows(queries)
    expected = np.linalg.solve(dense, q.dense().T).T
    solved = curvature.solve(q)
    np.testing.assert_allclose(solved.rows.dense(), expected, atol=1e-10)
    rows = model.loss_rows(train)
    np.testing.assert_allclose(solved.rows.dot(rows), expected @ rows.dense().T, atol=1e-9)
    part = rows.take(np.array([4, 0, 7]))
    np.testing.assert_allclose(solved.rows.dot(part), expected @ part.dense().T, atol=1e-9)
    np.testing.assert_allclose(curvature.matvec(expected), q.dense(), atol=1e-9)
    assert solved.residual < 1e-10


@pytest.mark.parametrize("recipe", [uw.Identity(), uw.Diagonal(), uw.KFAC(), uw.EKFAC(), uw.EmpiricalFisher()], ids=str)
@pytest.mark.parametrize("name", NETS)
def test_solving_undoes_multiplying(name: str, recipe: Any) -> None:
    model, train, _ = problem(name)
    curvature = model.curvature(train, recipe, 0.1)
    vectors = np.random.default_rng(0).normal(size=(3, model.network.size))
    products = curvature.matvec(vectors)
    np.testing.assert_allclose(curvature.solve(DenseRows(products)).rows.dense(), vectors, atol=1e-8)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_ekfac_has_the_trace_and_the_rotated_diagonal_of_the_gauss_newton_matrix(name: str) -> None:
    model, train, _ = problem(name, l2=0.0, weighted=True)
    curvature = model.curvature(train, uw.EKFAC(), 0.0)
    dense = gauss_newton(model, train, checked_weights(train))
    size = model.network.size
    matrix = curvature.matvec(np.eye(size))
    np.testing.assert_allclose(np.trace(matrix), np.trace(dense), rtol=1e-9)
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    along = np.einsum("pi,pq,qi->i", vectors, dense, vectors)
    simple = np.isclose(np.diff(values, append=np.inf), 0) | np.isclose(np.diff(values, prepend=-np.inf), 0)
    np.testing.assert_allclose(values[~simple], along[~simple], atol=1e-8)


def test_kfac_of_one_example_and_two_classes_is_the_gauss_newton_matrix() -> None:
    torch.manual_seed(3)
    net = nn.Linear(4, 2).double()
    rng = np.random.default_rng(1)
    train = uw.Examples(rng.normal(size=(1, 4)), [1])
    model = uw.TorchModel(net, cross_entropy)
    dense = gauss_newton(model, train, np.ones(1))
    for recipe in (uw.KFAC(), uw.EKFAC()):
        np.testing.assert_allclose(model.curvature(train, recipe, 0.0).matvec(np.eye(10)), dense, atol=1e-12)


def test_the_diagonal_is_the_sum_of_squared_gradients() -> None:
    model, train, _ = problem("mlp", l2=0.0, weighted=True)
    expected = (checked_weights(train)[:, None] * gradients(model, train) ** 2).sum(axis=0)
    diagonal = model.curvature(train, uw.Diagonal(), 0.0).matvec(np.ones((1, model.network.size)))[0]
    np.testing.assert_allclose(diagonal, expected, rtol=1e-9)


def test_the_damping_is_chosen_and_reported() -> None:
    model, train, queries = problem("mlp", l2=0.0)
    scores = uw.Influence(curvature=uw.EKFAC()).fit(model, train).attribute(queries)
    assert scores.unit == uw.Unit.RANK
    assert scores.diagnostics["damping"] > 0
    assert "mean eigenvalue" in scores.diagnostics["damping_from"]
    damped = uw.Influence(curvature=uw.EKFAC(), damping=0.5).fit(model, train).attribute(queries)
    assert damped.diagnostics["damping"] == pytest.approx(0.5)
    assert damped.diagnostics["damping_from"] == "as given"


@pytest.mark.parametrize("recipe", [uw.Hessian(), uw.GaussNewton()], ids=str)
def test_without_added_damping_scores_of_a_convex_net_are_effects_near_its_optimum(recipe: Any) -> None:
    model, train, queries = problem("softmax regression", l2=1.0)
    untrained = uw.Influence(curvature=recipe).fit(model, train).attribute(queries)
    assert untrained.diagnostics["damping"] == pytest.approx(0.0)
    assert untrained.unit == uw.Unit.RANK
    to_optimum(model, train, l2=1.0)
    assert uw.Influence(curvature=recipe).fit(model, train).attribute(queries).unit == uw.Unit.EFFECT
    damped = uw.Influence(curvature=recipe, damping=0.5).fit(model, train).attribute(queries)
    assert damped.unit == uw.Unit.RANK


def to_optimum(model: uw.TorchModel, train: uw.Examples, l2: float) -> None:
    """Train the net to the optimum of its mean loss with l2."""
    network = model.network
    batch, parameters = network.batch(train), list(network.net.parameters())
    optimiser = torch.optim.LBFGS(parameters, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = network.loss(network.net, batch).mean() + l2 / 2 * sum((p**2).sum() for p in parameters)
        loss.backward()
        return loss

    optimiser.step(closure)


def test_other_examples_with_the_ids_of_training_examples_are_not_taken_for_them() -> None:
    model, train, queries = problem("mlp")
    curvature = model.curvature(train, uw.EmpiricalFisher(), 0.05)
    solved = curvature.solve(model.measure_rows(queries)).rows
    others = model.loss_rows(uw.Examples(queries.x, queries.y))  # ids 0, 1, 2, as in the training set
    np.testing.assert_allclose(solved.dot(others), solved.dense() @ others.dense().T, atol=1e-10)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("recipe", [uw.KFAC(), uw.EKFAC()], ids=str)
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_products_in_the_eigenbasis_equal_those_of_parameters(name: str, recipe: Any, l2: float) -> None:
    model, train, queries = problem(name, l2=l2, weighted=True)
    curvature = model.curvature(train, recipe, None)
    solved, rows = curvature.solve(model.measure_rows(queries)).rows, model.loss_rows(train)
    inverse = np.linalg.inv(curvature.matvec(np.eye(model.network.size)))
    expected = model.measure_rows(queries).dense() @ inverse
    for expected_rows in (0, 10**6):  # all layers use their eigenbasis, or none does
        solved.expected_rows = expected_rows
        np.testing.assert_allclose(solved.dot(rows), expected @ rows.dense().T, atol=1e-9)
        np.testing.assert_allclose(
            solved.take(np.array([2, 0])).dot(rows), expected[[2, 0]] @ rows.dense().T, atol=1e-9
        )
    assert not solved.joints  # layers that are rotated back are not held twice
    np.testing.assert_allclose(solved.dense(), expected, atol=1e-9)


@pytest.mark.parametrize("recipe", [uw.KFAC(), uw.EKFAC()], ids=str)
def test_a_norm_is_a_block_of_the_gauss_newton_matrix(recipe: Any) -> None:
    model, train, _ = problem("mlp", l2=0.0, weighted=True)
    matrix = model.curvature(train, recipe, 0.0).matvec(np.eye(model.network.size))
    dense, start = gauss_newton(model, train, checked_weights(train)), 0
    for tensor, parameter in model.network.parameters().items():
        where = slice(start, start + parameter.numel())
        start = where.stop
        if tensor.startswith("2."):  # the LayerNorm
            # up to directions that hold less than a millionth of the trace
            np.testing.assert_allclose(matrix[where, where], dense[where, where], atol=1e-5)


def test_the_damping_of_every_layer_is_a_share_of_its_mean_eigenvalue() -> None:
    model, train, _ = problem("mlp", l2=0.0)
    curvature = model.curvature(train, uw.EKFAC(), None)
    for name, values in curvature.eigenvalues():
        rank = min(values.numel(), len(train))
        assert curvature.dampings[name] == pytest.approx(0.1 * float(values.sum()) / rank)
    assert "layer by layer" in curvature.diagnostics["damping_from"]


class Idle(nn.Module):
    """A net with a layer that is never called and one whose output is multiplied by 0."""

    def __init__(self) -> None:
        super().__init__()
        self.unused, self.silent, self.head = nn.Linear(4, 2), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x) + 0.0 * self.silent(x)


@pytest.mark.parametrize("recipe", [uw.KFAC(), uw.EKFAC()], ids=str)
def test_layers_without_curvature_add_nothing_to_scores(recipe: Any) -> None:
    _, train, queries = problem("softmax regression")
    net = Idle().double()
    scores, expected = (
        uw.Influence(curvature=recipe).fit(uw.TorchModel(each, cross_entropy), train).attribute(queries).values
        for each in (net, net.head)
    )
    np.testing.assert_allclose(scores, expected, atol=1e-12)
