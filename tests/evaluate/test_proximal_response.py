"""The proximal Bregman response against dense solutions, the distance of functions, and the parts of the gap."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import upweight as uw
from upweight.evaluate.pbrf import Responses
from upweight.training.proximal_response import NetworkResponses

RNG = np.random.default_rng(0)
WEIGHTS = np.array([1, 2, 0, 1.5, *np.ones(26)])
DAMPING, L2 = 0.02, 0.01


def cross_entropy(net, batch):
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return uw.Examples(x[:150] / 16, y[:150]), uw.Examples(x[150:160] / 16, y[150:160])


@pytest.fixture(scope="module")
def small_net(digits):
    training = uw.Training(lr=0.1, momentum=0.9, epochs=6, batch_size=50)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 6), torch.nn.GELU(), torch.nn.Linear(6, 10)).double()
    return uw.TorchModel.trained(net, cross_entropy, digits[0], training=training)


@pytest.mark.parametrize("reduction", ["mean", "sum", "fixed"])
def test_the_response_of_least_squares_is_the_dense_solution(reduction):
    x, y = RNG.normal(size=(30, 4)), RNG.normal(size=30)
    train, queries = uw.Examples(x, y, weights=WEIGHTS), uw.Examples(x[:5] + 1, y[:5])
    net = torch.nn.Linear(4, 1, bias=False).double()
    total = WEIGHTS.sum()
    l2 = L2 * total if reduction == "sum" else L2
    model = uw.TorchModel(net, lambda net, b: (net(b.x)[:, 0] - b.y) ** 2, objective=uw.Objective(reduction, l2=l2))
    removals = [*uw.singles(train, [0, 1, 3]), uw.Removal("three", "group", (4, 5, 1))]
    truth = uw.pbrf(model, train, queries, removals, damping=DAMPING)

    ridge = l2 * {"mean": total, "sum": 1.0, "fixed": 30.0}[reduction] / total
    start = net.weight.detach().numpy()[0]
    expected = []
    for removal in removals:
        gone = WEIGHTS * np.isin(np.arange(30), removal.ids)
        share = ridge * gone.sum() / total if reduction == "mean" else 0.0
        matrix = 2 * (x.T * (WEIGHTS - gone)) @ x / total + (DAMPING + ridge - share) * np.eye(4)
        right = 2 * (x.T * WEIGHTS) @ x @ start / total - 2 * (x.T * gone) @ y / total + (DAMPING + ridge) * start
        moved = np.linalg.solve(matrix, right)
        expected.append((queries.x @ moved - queries.y) ** 2 - (queries.x @ start - queries.y) ** 2)
    np.testing.assert_allclose(truth.actual.T, expected, rtol=1e-5, atol=1e-8)
    assert truth.warnings == []


def test_influence_with_the_gauss_newton_matrix_is_its_derivative(digits, small_net):
    train, queries = digits
    light = train.replaced(weights=np.where(np.arange(150) < 4, 1e-3, 1.0))
    removals = uw.singles(light, range(4))
    truth = uw.pbrf(small_net, light, queries, removals, damping=DAMPING)
    recipe = uw.Influence(curvature=uw.GaussNewton(solver=uw.Direct()), damping=DAMPING, correction=None)
    predicted = truth.predicted(recipe.fit(small_net, light).attribute(queries))
    np.testing.assert_allclose(predicted, truth.actual, rtol=0.02, atol=0.01 * np.abs(truth.actual).max())


def test_without_a_removal_the_trained_net_stays_where_it_is(digits, small_net):
    train, queries = digits
    truth = uw.pbrf(small_net, train.replaced(weights=WEIGHTS.repeat(5)), queries, uw.singles(train, [10]))
    np.testing.assert_allclose(truth.actual, 0.0, atol=1e-12)  # the example has weight 0


def test_nothing_of_the_users_is_changed_and_the_answer_is_a_truth_of_this_model(digits, small_net, tmp_path):
    train, queries = digits
    before, state = small_net.parameters, torch.get_rng_state()
    truth = uw.pbrf(small_net, train, queries, uw.singles(train, [3, 7]), damping=DAMPING)
    assert np.array_equal(before, small_net.parameters) and torch.equal(state, torch.get_rng_state())
    truth.require(small_net, train, queries)
    truth.save(tmp_path / "truth")
    assert uw.Truth.load(tmp_path / "truth").facts["response"] == "proximal Bregman"


def test_too_few_steps_are_said(digits, small_net):
    train, queries = digits
    truth = uw.pbrf(small_net, train, queries, uw.singles(train, [3]), damping=1e-4, steps=1)
    assert any("not followed to their end in 1 steps" in warning for warning in truth.warnings)


def test_a_removal_whose_loss_outgrows_the_damping_is_left_out_by_name(digits, small_net):
    train, queries = digits
    half = uw.Removal("half", "group", tuple(range(75)))
    with pytest.raises(ValueError, match="none of the 1 removals has a response near the trained net at damping 1e-06"):
        uw.pbrf(small_net, train, queries, [half], damping=1e-6)
    light = train.replaced(weights=np.where(np.arange(150) == 149, 1e-6, 1.0))
    truth = uw.pbrf(small_net, light, queries, [half, *uw.singles(light, [149])], damping=1e-6)
    assert [removal.name for removal in truth.removals] == ["149"]
    assert any("'half' was left out: its response has no minimum" in warning for warning in truth.warnings)


@pytest.mark.parametrize(
    ("settings", "match"),
    [({"damping": 0.0}, "damping above 0, got 0.0"), ({"removals": []}, "removals of different names, got 0")],
)
def test_what_has_no_response_is_refused(digits, small_net, settings, match):
    train, queries = digits
    arguments = {"removals": uw.singles(train, [1]), "damping": 0.1} | settings
    with pytest.raises(ValueError, match=match):
        uw.pbrf(small_net, train, queries, arguments["removals"], damping=arguments["damping"])


def test_a_model_that_is_no_network_is_refused(digits):
    train, queries = digits
    linear = uw.explainable(LogisticRegression(max_iter=2000, tol=1e-8).fit(train.x, train.y), train)
    with pytest.raises(TypeError, match="pbrf needs a model that is Responsive, got LinearModel"):
        uw.pbrf(linear, train, queries, uw.singles(train, [1]))
    with pytest.raises(TypeError, match="needs a model that is Responsive"):
        uw.function_distance(linear, linear, queries)


ONE_NUMBER = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0))


def test_a_net_with_one_number_per_example_has_a_response_and_a_distance():
    """(n,) outputs, as of `net(x).squeeze(1)`, and the same net with (n, 1)."""
    x, y = RNG.normal(size=(30, 4)), RNG.normal(size=30)
    train, queries = uw.Examples(x, y), uw.Examples(x[:5] + 1, y[:5])
    flat = copy.deepcopy(ONE_NUMBER).double()
    models = [
        uw.TorchModel(flat, lambda net, b: (net(b.x) - b.y) ** 2),
        uw.TorchModel(flat[0], lambda net, b: (net(b.x)[:, 0] - b.y) ** 2),
    ]
    truths = [uw.pbrf(m, train, queries, uw.singles(train, [0, 1]), damping=DAMPING) for m in models]
    np.testing.assert_allclose(truths[0].actual, truths[1].actual, rtol=1e-6)
    other = uw.TorchModel(copy.deepcopy(ONE_NUMBER).double(), models[0].network.loss)
    other = other.with_parameters(models[0].parameters * 1.1)
    change = other.network.net(torch.as_tensor(x)) - flat(torch.as_tensor(x))
    expected = float(change.detach().square().mean())
    assert uw.function_distance(other, models[0], train) == pytest.approx(expected**0.5)
    assert uw.function_distance(other, models[0], train, "bregman") == pytest.approx(expected)


@pytest.mark.parametrize("is_cast", [False, True], ids=["plain loss", "loss in float32"])
def test_the_response_of_a_net_in_half_precision_is_that_of_its_weights(digits, is_cast):
    train, queries = digits
    x = torch.as_tensor(train.x).bfloat16().double().numpy()
    train, queries = train.replaced(x=x), queries.replaced(x=x[:10])
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 4), torch.nn.GELU(), torch.nn.Linear(4, 10)).bfloat16()

    def loss(net, batch):
        outputs = net(batch.x)
        return F.cross_entropy(outputs.float() if is_cast else outputs, batch.y, reduction="none")

    models = [uw.TorchModel(net, loss), uw.TorchModel(copy.deepcopy(net).double(), cross_entropy)]
    half, double = (uw.pbrf(m, train, queries, uw.singles(train, [0, 7]), damping=0.1).actual for m in models)
    np.testing.assert_allclose(half, double, rtol=0, atol=1e-3 * np.abs(double).max())


def test_an_example_without_weight_is_followed_to_its_end_at_once(digits, small_net):
    train, queries = digits
    truth = uw.pbrf(small_net, train.replaced(weights=WEIGHTS.repeat(5)), queries, uw.singles(train, [10, 11]))
    assert not truth.actual.any() and truth.warnings == []


def test_what_the_objective_leaves_out_is_said(digits):
    train, queries = digits
    settings = {"epochs": 1, "batch_size": 50, "lr": 0.01, "weight_decay": 0.1}
    biases = uw.ParameterGroup(parameters="*bias", weight_decay=0.0)
    for special, sentence in (
        ({"optimiser": "adamw"}, "AdamW's weight decay (0.1) moves the parameters directly"),
        ({"groups": [biases]}, "Weight decay differs between parameter groups"),
    ):
        net = torch.nn.Linear(64, 10).double()
        training = uw.Training(**settings, **special)
        model = uw.TorchModel.trained(net, cross_entropy, train, training=training)
        removals = uw.singles(train, [1])
        scores = uw.Influence(damping=DAMPING).fit(model, train).attribute(queries)
        here = {"damping": DAMPING, "retraining": uw.Retraining(processes=1)}
        gap = uw.influence_gap(model, train, queries, scores, removals, **here)
        for warnings in (uw.pbrf(model, train, queries, removals, damping=DAMPING).warnings, gap.warnings):
            assert any(warning.startswith(sentence) for warning in warnings)
    coupled = uw.TorchModel(net, cross_entropy, objective=uw.Objective("fixed", l2=0.1), training=training)
    assert any("differs between" in note for note in coupled.notes)


def test_the_parts_of_a_model_at_its_optimum_are_the_ones_that_apply(digits):
    """Softmax regression at the optimum: no warm start, nothing unfinished, and an exact solver."""
    train, queries = digits

    def train_fn(weights, seed):
        torch.manual_seed(seed)
        net = torch.nn.Linear(64, 10).double()
        inputs, labels, w = torch.as_tensor(train.x), torch.as_tensor(train.y), torch.as_tensor(weights)
        optimiser = torch.optim.LBFGS(
            net.parameters(), max_iter=2000, tolerance_grad=1e-11, tolerance_change=1e-16, line_search_fn="strong_wolfe"
        )

        def closure():
            optimiser.zero_grad()
            losses = F.cross_entropy(net(inputs), labels, reduction="none")
            value = (losses * w).sum() / 150 + 0.05 / 2 * sum(p.square().sum() for p in net.parameters())
            value.backward()
            return value

        optimiser.step(closure)
        return net

    objective = uw.Objective("fixed", l2=0.05)
    model = uw.TorchModel(train_fn(np.ones(150), 0), cross_entropy, objective=objective, training=train_fn)
    recipe = uw.Influence(curvature=uw.GaussNewton(solver=uw.Direct()), damping=DAMPING, correction=None)
    scores = recipe.fit(model, train).attribute(queries)
    removals = uw.singles(train, range(3))
    gap = uw.influence_gap(
        model, train, queries, scores, removals, damping=DAMPING, retraining=uw.Retraining(processes=1)
    )
    effect = np.abs(gap.effects["retraining"]).mean()
    assert gap.distances["warm start"] < 1e-4 * effect and gap.distances["solver"] < 1e-6 * effect
    assert gap.distances["non-convergence"] < 1e-4 * effect  # the trained net is the optimum of both objectives
    assert gap.largest in ("proximity", "linearisation") and gap.largest in repr(gap)
    assert gap.to_pandas().index.tolist()[0] == "retraining"
    assert gap.as_dict()["distances"] == gap.distances
    assert not any("times the linearised effects" in warning for warning in gap.warnings)
    unscaled, here = uw.GradDot().fit(model, train).attribute(queries), uw.Retraining(processes=1)
    other = uw.influence_gap(model, train, queries, unscaled, removals, damping=DAMPING, retraining=here)
    assert other.largest == "solver" and any("times the linearised effects" in warning for warning in other.warnings)
    with pytest.raises(ValueError, match="expected scores of exactly these queries, in this order"):
        uw.influence_gap(model, train, queries.take(np.arange(len(queries))[::-1]), scores, removals, damping=DAMPING)
    with pytest.raises(ValueError, match="these training examples have other inputs, labels or weights"):
        uw.influence_gap(model, train.replaced(x=train.x + 1), queries, scores, removals, damping=DAMPING)
    another = uw.TorchModel(torch.nn.Linear(64, 10).double(), cross_entropy, objective=objective, training=train_fn)
    with pytest.raises(ValueError, match=r"expected scores of this model, for which the measurement of .* is"):
        uw.influence_gap(another, train, queries, scores, removals, damping=DAMPING)
    unknown = uw.influence_gap(
        model,
        train,
        queries,
        dataclasses.replace(scores, measured=None),
        uw.singles(train, [0]),
        damping=DAMPING,
        retraining=uw.Retraining(processes=1),
    )
    assert "these scores do not say what their model measures" in unknown.warnings[0]
    assert not any("do not say" in warning for warning in gap.warnings)


def test_coordinates_of_the_curvature_shorten_the_search_and_keep_the_minimum(digits, small_net, monkeypatch):
    train, _ = digits
    evaluations = []
    evaluate = NetworkResponses._value_and_gradient

    def counted(self, *arguments):
        evaluations.append(1)
        return evaluate(self, *arguments)

    monkeypatch.setattr(NetworkResponses, "_value_and_gradient", counted)
    with_matrix = small_net.response_objective(train)
    without = NetworkResponses(small_net.network, train, np.ones(150), small_net.objective)
    for is_bregman, proximity, factor in ((True, DAMPING, 3), (False, 0.2, 1.5)):
        terms = Responses.terms(bregman=is_bregman, proximity=proximity)
        counts, shifts = [], []
        for objective in (with_matrix, without):
            evaluations.clear()
            start = None if terms.bregman else objective.minimise(np.empty(0, dtype=int), terms, 1000).shift
            shifts.append(objective.minimise(np.array([2]), terms, 1000, start).shift)
            counts.append(len(evaluations))
        assert factor * counts[0] < counts[1], counts
        np.testing.assert_allclose(shifts[0], shifts[1], rtol=0, atol=1e-3 * np.abs(shifts[1]).max())


def test_no_matrix_is_computed_after_the_last_step(digits, small_net, monkeypatch):
    train, _ = digits
    roots, compute = [], NetworkResponses._root
    monkeypatch.setattr(NetworkResponses, "_root", lambda self, *given: roots.append(1) or compute(self, *given))
    small_net.response_objective(train).minimise(np.array([3]), Responses.terms(bregman=True, proximity=1e-4), 1)
    assert len(roots) == 1
