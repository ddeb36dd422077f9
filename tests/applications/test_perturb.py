"""Perturbation influence against finite differences of real refits, in closed form and through networks."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC
from torch import nn

import upweight as uw
from support.network_families import cross_entropy, mlp

TIGHT = {"tol": 1e-10, "max_iter": 10_000}


def wine(classes=3):
    x, y = load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(np.flatnonzero(y < classes))
    return x[order], y[order]


def wide():
    """More columns than examples: pixels and their squares, of which the model sees Gram coordinates."""
    x, y = load_digits(n_class=2, return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return np.hstack([x, x**2 / 8])[order] / 16, y[order]


def split(x, y, n=60, m=3):
    ids = [f"e{i}" for i in range(n + m)]
    return uw.Examples(x[:n], y[:n], ids=ids[:n]), uw.Examples(x[n : n + m], y[n : n + m], ids=ids[n:])


def moved(train, place, column, step):
    x = train.x.copy()
    x[place, column] += step
    return uw.Examples(x, train.y, ids=train.ids, weights=train.weights)


def refitted_slope(model, train, queries, place, column, step):
    """Central difference of real refits."""
    ready = model.hypothetical(new_inputs=True)
    ends = [ready.retrain(moved(train, place, column, s), np.ones(len(train))) for s in (step, -step)]
    return (ends[0].measure(queries) - ends[1].measure(queries)) / (2 * step)


CASES = {
    "logistic behind a scaler": lambda: (make_pipeline(StandardScaler(), LogisticRegression(**TIGHT)), *wine(2)),
    "softmax behind a projection": lambda: (
        make_pipeline(StandardScaler(), PCA(6, whiten=True), LogisticRegression()),
        *wine(),
    ),
    "selected columns": lambda: (make_pipeline(MinMaxScaler(), SelectKBest(k=8), LogisticRegression()), *wine()),
    "ridge": lambda: (make_pipeline(MinMaxScaler(), Ridge()), *wine()),
    "poisson": lambda: (make_pipeline(StandardScaler(), PoissonRegressor(alpha=0.1)), *wine()),
    "squared hinge": lambda: (make_pipeline(StandardScaler(), LinearSVC(**TIGHT)), *wine(2)),
    "wider than long": lambda: (LogisticRegression(C=0.5, **TIGHT), *wide()),
    "balanced classes": lambda: (
        make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", **TIGHT)),
        *wine(),
    ),
}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", CASES)
def test_gradients_agree_with_refits_on_moved_inputs(name):
    estimator, x, y = CASES[name]()
    train, queries = split(x, y)
    model = uw.explainable(estimator.fit(train.x, train.y), train)
    perturbation = uw.perturb(model, train, queries, k=2)
    assert perturbation.described == "inputs" and perturbation.unit == uw.Unit.EFFECT
    for i, place in enumerate(train.positions(perturbation.example_ids)):
        for column in np.argsort(-np.abs(perturbation.gradients[:, i]).max(axis=0))[:3]:
            truth = refitted_slope(model, train, queries, place, column, 1e-4 * max(1.0, x[:, column].std()))
            np.testing.assert_allclose(
                perturbation.gradients[:, i, column], truth, rtol=2e-3, atol=1e-6 * np.abs(truth).max()
            )


def test_weights_are_part_of_the_slope():
    x, y = wine(2)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    train, queries = split(x, y)
    weights = np.random.default_rng(1).uniform(0.5, 3, len(train))
    train = uw.Examples(train.x, train.y, ids=train.ids, weights=weights)
    model = uw.explainable(LogisticRegression(**TIGHT).fit(train.x, train.y, sample_weight=weights), train)
    perturbation = uw.perturb(model, train, queries, examples=["e4"])
    truth = refitted_slope(model, train, queries, 4, 2, 1e-4)
    np.testing.assert_allclose(perturbation.gradients[:, 0, 2], truth, rtol=2e-3)


def test_an_early_stop_is_followed_to_the_optimum():
    x, y = wine(2)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    train, queries = split(x, y)
    stopped, arrived = (LogisticRegression(tol=tol, max_iter=10_000).fit(train.x, train.y) for tol in (1e-2, 1e-10))
    first, second = (uw.perturb(uw.explainable(e, train), train, queries, k=3) for e in (stopped, arrived))
    np.testing.assert_allclose(first.gradients, second.gradients, rtol=1e-4, atol=1e-9)


def test_after_an_encoder_features_are_its_columns():
    x, y = np.array([["a", "x"], ["b", "y"], ["a", "y"], ["b", "x"]] * 10), np.array([0, 1, 0, 1, 1] * 8)
    train = uw.Examples(x, y)
    encoder = OneHotEncoder(sparse_output=True)
    model = uw.explainable(make_pipeline(encoder, LogisticRegression(**TIGHT)).fit(x, y), train)
    perturbation = uw.perturb(model, train, train.take([0]), examples=[3])
    assert perturbation.names == ("x0_a", "x0_b", "x1_x", "x1_y")
    assert "columns that enter LogisticRegression" in perturbation.diagnostics["warnings"][-1]
    named = [f.name for f in perturbation.features(0, 3, k=4)]
    assert set(named[:2]) == {"x0_b", "x1_x"}, "a dummy that the row does not have contributes nothing"
    assert [f.contribution for f in perturbation.features(0, 3, k=4)][2:] == [0.0, 0.0]


def test_words_are_columns_too():
    texts = ["good film", "bad film", "good plot", "bad wit"] * 6
    train = uw.Examples(texts, np.array([1, 0, 1, 0] * 6))
    model = uw.explainable(make_pipeline(TfidfVectorizer(), LogisticRegression(**TIGHT)).fit(texts, train.y), train)
    perturbation = uw.perturb(model, train, train.take([1]), examples=[0])
    assert {f.name for f in perturbation.features(1, 0, k=2)} == {"good", "film"}


def test_the_prediction_of_a_move_is_that_of_its_refit():
    estimator, x, y = CASES["logistic behind a scaler"]()
    train, queries = split(x, y)
    model = uw.explainable(estimator.fit(train.x, train.y), train)
    perturbation = uw.perturb(model, train, queries, k=2)
    step = 0.02 * x.std(axis=0) * np.random.default_rng(0).standard_normal(x.shape[1])
    identifier = perturbation.example_ids[0].item()
    after = train.x.copy()
    after[train.positions([identifier])[0]] += step
    refit = model.hypothetical(True).retrain(uw.Examples(after, train.y), np.ones(len(train)))
    truth = refit.measure(queries) - model.retrain(train, np.ones(len(train))).measure(queries)
    np.testing.assert_allclose(perturbation.predicted({identifier: step}), truth, rtol=0.05)


def test_reach_ranks_the_training_examples():
    estimator, x, y = CASES["softmax behind a projection"]()
    train, queries = split(x, y)
    model = uw.explainable(estimator.fit(train.x, train.y), train)
    perturbation = uw.perturb(model, train, queries, examples=train.ids.tolist())
    np.testing.assert_allclose(perturbation.reach, np.abs(perturbation.gradients).sum(axis=2))
    few = uw.perturb(model, train, queries, k=4)
    assert (
        few.example_ids.tolist() == train.ids[np.argsort(-perturbation.reach.max(axis=0), kind="stable")[:4]].tolist()
    )


def test_only_the_named_are_looked_into(monkeypatch):
    estimator, x, y = CASES["softmax behind a projection"]()
    train, queries = split(x, y)
    model = uw.explainable(estimator.fit(train.x, train.y), train)
    every = uw.perturb(model, train, queries, examples=train.ids.tolist())
    looked = []
    gradients = type(model).input_gradients
    monkeypatch.setattr(
        type(model), "input_gradients", lambda self, some, v: looked.append(len(some)) or gradients(self, some, v)
    )
    named = train.ids[[7, 3]].tolist()
    perturbation = uw.perturb(model, train, queries, examples=named)
    assert looked == [2] and perturbation.example_ids.tolist() == named
    np.testing.assert_allclose(perturbation.reach, every.reach[:, [7, 3]])


def frozen_then_linear():
    """A convex head on a frozen nonlinear body: pixels go through both, and the head has an exact optimum."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 3)).double()
    net[0].requires_grad_(False)
    return net


def pixels():
    x, y = load_digits(n_class=3, return_X_y=True)
    return x / 16, y


def test_through_a_frozen_body_agrees_with_refits():
    x, y = pixels()
    train, queries = split(x, y)
    net, l2 = frozen_then_linear(), 0.01

    def trained(inputs):
        """The head at its optimum, by Newton steps on its 39 parameters."""
        with torch.no_grad():
            body = torch.cat([net[1](net[0](torch.as_tensor(inputs))), torch.ones(len(inputs), 1)], dim=1)

        def objective(head):
            losses = nn.functional.cross_entropy(body @ head.view(13, 3), torch.as_tensor(train.y))
            return losses + l2 / 2 * (head**2).sum()

        head = torch.zeros(39, dtype=torch.float64)
        for _ in range(8):
            slope = torch.autograd.functional.jacobian(objective, head)
            head = head - torch.linalg.solve(torch.autograd.functional.hessian(objective, head), slope)
        with torch.no_grad():
            net[2].weight.copy_(head.view(13, 3)[:12].T)
            net[2].bias.copy_(head.view(13, 3)[12])
        return uw.TorchModel(net, cross_entropy, objective=uw.Objective("mean", l2=l2))

    perturbation = uw.perturb(
        trained(train.x), train, queries, k=1, recipe=uw.Influence(curvature=uw.Hessian(), damping=0.0)
    )
    place = train.positions(perturbation.example_ids)[0]
    for column in np.argsort(-np.abs(perturbation.gradients[:, 0]).max(axis=0))[:2]:
        ends = []
        for step in (1e-3, -1e-3):
            ends.append(trained(moved(train, place, column, step).x).measure(queries))
        np.testing.assert_allclose(perturbation.gradients[:, 0, column], (ends[0] - ends[1]) / 2e-3, rtol=1e-4)


def test_double_backward_is_the_derivative_of_rows():
    """∂⟨row, v⟩/∂x of a whole net against central differences of its own rows, weights and batches included."""
    x, y = pixels()
    weights = np.random.default_rng(0).uniform(0.5, 2, 70)
    train = uw.Examples(x[:70], y[:70], weights=weights)
    torch.manual_seed(0)
    model = uw.TorchModel(mlp().double(), cross_entropy, objective=uw.Objective("mean", l2=0.01))
    v = np.random.default_rng(1).standard_normal((2, model.network.size))
    gradients = model.input_gradients(train, v)
    for place, column in ((0, 20), (68, 35)):
        ends = [model.loss_rows(moved(train, place, column, s)).take(np.array([place])).dense() for s in (1e-5, -1e-5)]
        np.testing.assert_allclose(gradients[:, place, column], ((ends[0] - ends[1]) / 2e-5 @ v.T)[0], rtol=1e-6)


@pytest.mark.parametrize("k", [0, -1])
def test_invalid_arguments_are_refused(k):
    train, queries = split(*wine(2))
    model = uw.explainable(make_pipeline(StandardScaler(), LogisticRegression(**TIGHT)).fit(train.x, train.y), train)
    with pytest.raises(ValueError, match="expected k of at least 1"):
        uw.perturb(model, train, queries, k=k)
    with pytest.raises(KeyError, match="no example has the id 'nobody'"):
        uw.perturb(model, train, queries, examples=["nobody"])
    with pytest.raises(ValueError, match=r"one number or an array of shape \(13,\)"):
        uw.perturb(model, train, queries, baseline=[1.0, 2.0])
    with pytest.raises(ValueError, match="expected the data that LogisticRegression was fitted on"):
        uw.perturb(model, uw.Examples(train.x, 1 - train.y), queries)
    with pytest.raises(TypeError, match="solves with its curvature"):
        uw.perturb(model, train, queries, recipe=uw.Chance())


def test_a_kernel_machine_cannot_be_perturbed():
    train, queries = split(*wine(2))
    model = uw.explainable(SVC(tol=1e-9).fit(train.x, train.y), train)
    with pytest.raises(TypeError, match="kernel machine"):
        uw.perturb(model, train, queries)


def test_whole_numbers_cannot_be_moved():
    net = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 2))
    train = uw.Examples(np.random.default_rng(0).integers(0, 5, (20, 3)), np.arange(20) % 2)
    with pytest.raises(TypeError, match="tensor `x` of real numbers"):
        uw.perturb(uw.TorchModel(net, cross_entropy, objective=uw.Objective("mean", l2=0.1)), train, train.take([0]))
