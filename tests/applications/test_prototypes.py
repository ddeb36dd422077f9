"""Prototypes, criticisms and quadratures against the definition, step by step, with all n × n kernel values."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics.pairwise import rbf_kernel

import upweight as uw
from upweight.applications.example_kernels import ExampleKernel, KernelRecipe, RBFBetween, finite_features
from upweight.applications.prototypes import nearest_accuracy
from upweight.core.progress import no_progress


def iris(rows: int = 40, weights: Any = None) -> tuple[Any, uw.Examples, uw.Examples]:
    x, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(150)
    train = uw.Examples(x[order[:rows]], y[order[:rows]], weights=weights)
    estimator = LogisticRegression(max_iter=1000, tol=1e-10).fit(train.x, train.y, sample_weight=train.weights)
    return uw.explainable(estimator, train), train, uw.Examples(x[order[rows:]], y[order[rows:]])


def distance(matrix: np.ndarray, weights: np.ndarray, chosen: list[int]) -> float:
    """MMD² between the data and the chosen examples."""
    n, k = matrix[np.ix_(chosen, chosen)], len(chosen)
    return float(weights @ matrix @ weights - 2 * (weights @ matrix[:, chosen]).mean() + n.sum() / k**2)


@pytest.mark.parametrize("within_classes", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_each_prototype_brings_the_mean_nearest_to_that_of_the_data(within_classes: bool, weighted: bool) -> None:
    weights = np.random.default_rng(1).integers(0, 3, 40).astype(float) if weighted else None
    model, train, _ = iris(weights=weights)
    result = uw.prototypes(model, train, k=6, kernel=uw.RBFKernel(width=1.5, within_classes=within_classes))
    matrix = rbf_kernel(train.x, gamma=1 / (2 * 1.5**2))
    if within_classes:
        matrix *= train.y[:, None] == train.y[None]
    shares = np.ones(40) if weights is None else weights
    shares = shares / shares.sum()
    chosen: list[int] = []
    for _ in range(6):
        rest = [i for i in range(40) if i not in chosen and shares[i] > 0]
        chosen.append(min(rest, key=lambda i: (round(distance(matrix, shares, [*chosen, i]), 12), i)))
    assert train.positions(result.ids.tolist()).tolist() == chosen
    expected = [shares @ matrix @ shares - distance(matrix, shares, chosen[: m + 1]) for m in range(6)]
    np.testing.assert_allclose(result.values, expected, atol=1e-12)
    witness = matrix @ shares - matrix[:, chosen].mean(axis=1)
    critics: list[int] = []
    for _ in range(6):
        rest = [i for i in range(40) if i not in [*chosen, *critics] and shares[i] > 0]
        gain = {i: abs(witness[i]) + log_residual(matrix, critics, i) for i in rest}
        critics.append(max(rest, key=lambda i: (round(gain[i], 10), -i)))
    assert train.positions(result.criticism_ids.tolist()).tolist() == critics
    np.testing.assert_allclose(result.witness, witness[critics], atol=1e-12)


def log_residual(matrix: np.ndarray, chosen: list[int], i: int) -> float:
    inside = matrix[np.ix_(chosen, chosen)]
    projected = matrix[i, chosen] @ np.linalg.solve(inside, matrix[chosen, i]) if chosen else 0.0
    return float(np.log(matrix[i, i] - projected))


def test_the_quadrature_spans_the_queries_best_in_every_step() -> None:
    model, train, queries = iris()
    result = uw.prototypes(model, train, queries, k=5)
    gradients = model.measure_rows(train).dense()
    inverse = np.linalg.pinv(model.curvature(train, None, None).matvec(np.eye(gradients.shape[1])))
    matrix = gradients @ inverse @ gradients.T
    target = gradients @ inverse @ model.measure_rows(queries).dense().mean(axis=0)
    chosen: list[int] = []
    for step in range(5):
        rest = [i for i in range(40) if i not in chosen]
        gain = {i: spanned(matrix, target, [*chosen, i]) for i in rest}
        chosen.append(max(rest, key=lambda i: gain[i]))
        np.testing.assert_allclose(result.values[step], gain[chosen[-1]], rtol=1e-6)
    assert train.positions(result.ids.tolist()).tolist() == chosen
    weights = np.linalg.solve(matrix[np.ix_(chosen, chosen)], target[chosen])
    np.testing.assert_allclose(result.weights, weights, rtol=1e-5)


def spanned(matrix: np.ndarray, target: np.ndarray, chosen: list[int]) -> float:
    return float(target[chosen] @ np.linalg.solve(matrix[np.ix_(chosen, chosen)], target[chosen]))


def firsts(model: Any, train: uw.Examples, queries: uw.Examples) -> list[int]:
    """The position of the example that the quadrature chooses first, for each query alone."""
    chosen = [uw.prototypes(model, train, queries.take([q]), k=1).ids.tolist() for q in range(len(queries))]
    return [int(train.positions(ids)[0]) for ids in chosen]


def strongest(recipe: uw.Attributor, model: Any, train: uw.Examples, queries: uw.Examples) -> list[int]:
    """The position of the strongest example by the method, for each query."""
    return np.abs(recipe.fit(model, train).attribute(queries).values).argmax(axis=1).tolist()


def test_the_quadrature_takes_the_first_by_loss_relative_influence() -> None:
    model, train, queries = iris()
    queries = queries.take(range(30))
    assert firsts(model, train, queries) == strongest(uw.RelatIF(), model, train, queries)
    of_steps = uw.RelatIF(relative="parameters")  # divides by the length of the step, not by that in the Fisher metric
    assert firsts(model, train, queries) != strongest(of_steps, model, train, queries)
    assert firsts(model, train, queries) != strongest(uw.Influence(correction=None), model, train, queries)
    between = uw.FisherKernel().between(model, train)
    relative = uw.RelatIF().fit(model, train).attribute(queries).values.mean(axis=0)
    gains = between.mean_to(queries) ** 2 / between.diagonal
    np.testing.assert_allclose(gains / gains.max(), relative**2 / (relative**2).max(), rtol=1e-6)
    assert uw.prototypes(model, train, queries, k=1).values[0] == pytest.approx(gains.max())


def test_where_the_curvature_is_a_multiple_of_the_identity_and_all_diagonals_are_equal_all_orders_are_one() -> None:
    x = np.array(np.meshgrid(*[[-1.0, 1.0]] * 4)).reshape(4, -1).T
    x = np.column_stack([x, x.prod(axis=1)])  # half of a factorial design: no row is another one's negative
    train = uw.Examples(x, x[:, 0] * x[:, 1])  # orthogonal to all columns, so that all residuals have the same size
    model = uw.explainable(Ridge(1.0, fit_intercept=False).fit(train.x, train.y), train)
    rng = np.random.default_rng(0)
    queries = uw.Examples(rng.normal(size=(12, 5)), rng.normal(size=12))
    diagonal = uw.FisherKernel().between(model, train).diagonal
    np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-12)
    chosen = firsts(model, train, queries)
    assert len(set(chosen)) > 3
    for recipe in (uw.Influence(correction=None), uw.RelatIF(), uw.RelatIF(relative="parameters")):
        assert chosen == strongest(recipe, model, train, queries)


@pytest.mark.parametrize("is_sparse", [False, True])
def test_means_in_blocks_and_single_precision_are_those_of_the_matrix(is_sparse: bool) -> None:
    model, train, queries = iris()
    if is_sparse:
        train = uw.Examples(sparse.csr_matrix(train.x), train.y)
        estimator = LogisticRegression(max_iter=1000, tol=1e-10).fit(train.x, train.y)
        model, queries = uw.explainable(estimator, train), uw.Examples(sparse.csr_matrix(queries.x), queries.y)
    features = finite_features(model, train)
    between = RBFBetween(model, train, features, 2.0, within_classes=False, max_values=49)
    dense, dense_queries = (np.asarray(x.todense()) if is_sparse else x for x in (train.x, queries.x))
    matrix = rbf_kernel(dense, gamma=1 / 8)
    np.testing.assert_allclose(between.mean(no_progress), matrix.mean(axis=1), atol=1e-12)
    expected = rbf_kernel(dense, dense_queries, gamma=1 / 8).mean(axis=1)
    np.testing.assert_allclose(between.mean_to(queries), expected, atol=1e-12)
    single = RBFBetween(model, train, features, 2.0, within_classes=False, single_from=10)
    np.testing.assert_allclose(single.mean(no_progress), matrix.mean(axis=1), atol=1e-5)


def test_a_permutation_of_the_examples_changes_nothing_but_ties() -> None:
    model, train, _ = iris()
    first = uw.prototypes(model, train, k=5)
    again = uw.prototypes(model, train.take(np.random.default_rng(3).permutation(40)), k=5)
    assert first.ids.tolist() == again.ids.tolist()
    assert first.criticism_ids.tolist() == again.criticism_ids.tolist()


def test_prototypes_classify_better_than_as_many_at_random() -> None:
    x, y = load_digits(return_X_y=True)
    train, queries = uw.Examples(x[:1000] / 16, y[:1000]), uw.Examples(x[1000:] / 16, y[1000:])
    model = uw.explainable(LogisticRegression(max_iter=1000).fit(train.x, train.y), train)
    result = uw.prototypes(model, train, k=50, criticisms=0)
    rng = np.random.default_rng(0)
    random = [nearest_accuracy(model, train.take(rng.choice(1000, 50, replace=False)), queries) for _ in range(10)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a label per prototype is no mistake of the user
        assert result.accuracy(model, queries) > max(random)
    assert sum(len(ids) for ids, _ in result.by_class().values()) == 50


def test_what_cannot_be_chosen_is_refused_in_a_sentence() -> None:
    model, train, queries = iris()
    with pytest.raises(ValueError, match="expected at most 40 prototypes and criticisms together"):
        uw.prototypes(model, train, k=30)
    with pytest.raises(ValueError, match="k"):
        uw.prototypes(model, train, k=0)
    with pytest.raises(ValueError, match="width"):
        uw.RBFKernel(width=0.0)
    with pytest.raises(ValueError, match="queries with labels"):
        uw.prototypes(model, train, uw.Examples(queries.x), kernel=uw.RBFKernel())
    x, y = load_iris(return_X_y=True)
    everything = uw.Examples(x, y)
    margin = uw.explainable(LogisticRegression(max_iter=1000).fit(x, y), everything, measure=uw.Margin())
    with pytest.raises(TypeError, match="gradients of the loss"):
        uw.prototypes(margin, everything, everything.take([0]))
    with pytest.raises(TypeError, match="prototypes needs"):
        uw.prototypes(object(), train)  # type: ignore[arg-type]


def test_numeric_targets_are_no_classes_and_fewer_prototypes_than_asked_are_said() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2))
    train = uw.Examples(x, x @ [1.0, 2.0] + rng.normal(size=30))
    model = uw.explainable(Ridge(1.0).fit(train.x, train.y), train)
    assert list(uw.prototypes(model, train, k=4).by_class())
    result = uw.prototypes(model, train, train.take([0, 1]), k=10)  # they span themselves
    assert len(result.ids) == 2
    assert "2 of 10 prototypes" in result.diagnostics["warnings"][0]


class _Matrix(ExampleKernel):
    """A kernel whose values are given."""

    def __init__(self, values):
        self.values, self.weights = values, np.full(len(values), 1 / len(values))

    @property
    def diagonal(self):
        return np.diag(self.values)

    def column(self, i):
        return self.values[:, i]

    def mean(self, progress):
        return self.values.mean(axis=1)

    def mean_to(self, queries):
        return self.values.mean(axis=1)


class _Given(KernelRecipe):
    def __init__(self, values):
        self.values = values

    def between(self, model, examples):
        return _Matrix(self.values)


@pytest.mark.parametrize("to_queries", [False, True])
@pytest.mark.parametrize("smallest", [-2.0, 0.0])
def test_a_kernel_with_a_negative_eigenvalue_is_refused_though_its_diagonal_is_positive(smallest, to_queries):
    rng = np.random.default_rng(0)
    train = uw.Examples(rng.normal(size=(12, 3)), np.arange(12) % 2)
    model = uw.explainable(LogisticRegression(tol=1e-8).fit(train.x, train.y), train)
    basis, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    values = (basis * np.r_[np.full(11, 1.0), smallest]) @ basis.T + 0.5 * (smallest < 0)
    assert np.diag(values).min() > 0
    queries = train.take(np.arange(2)) if to_queries else None
    if smallest < 0:
        with pytest.raises(ValueError, match="expected a kernel that is positive semi-definite"):
            uw.prototypes(model, train, queries, k=6, criticisms=4, kernel=_Given(values))
    else:
        assert len(uw.prototypes(model, train, queries, k=6, criticisms=4, kernel=_Given(values)).ids) == 6
