import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

import upweight as uw
from upweight.core.model import Differentiable
from upweight.gradients.predictions import measurements, predictions
from upweight.models.pytorch.torch_model import TorchModel

X, Y = load_wine(return_X_y=True)
X = StandardScaler().fit_transform(X)[:, :5]
TRAIN = uw.Examples(X[::2], Y[::2], weights=np.linspace(0.5, 1.5, 89))
QUERIES = uw.Examples(X[1::2][:8], Y[1::2][:8], labels={0: "barolo", 1: "grignolino", 2: "barbera"})


def cross_entropy(net, batch):
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def margin(net, batch):
    z = net(batch.x)
    others = z.scatter(1, batch.y[:, None], -torch.inf)
    return z.gather(1, batch.y[:, None])[:, 0] - others.logsumexp(1)


def estimator():
    return LogisticRegression(C=0.5, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(
        TRAIN.x, TRAIN.y, TRAIN.weights
    )


def softmax_net(theta):
    net = nn.Linear(5, len(theta), bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.as_tensor(theta))
    return net


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def test_a_net_predicts_as_the_estimator_with_the_same_parameters():
    fitted = estimator()
    predictions = TorchModel(softmax_net(fitted.coef_), cross_entropy).predict(QUERIES)
    assert np.allclose(predictions.probabilities, fitted.predict_proba(QUERIES.x))
    assert predictions.classes == ("barolo", "grignolino", "barbera")
    assert predictions.predicted == tuple(predictions.classes[c] for c in fitted.predict(QUERIES.x))


def binary_loss(net, batch):
    return F.binary_cross_entropy_with_logits(net(batch.x)[:, 0], batch.y, reduction="none")


def binary_margin(net, batch):
    return net(batch.x)[:, 0] * (2 * batch.y - 1)


@pytest.mark.parametrize("measure", [None, binary_margin])
def test_a_logistic_net_equals_the_linear_model_in_closed_form(measure):
    train = uw.Examples(TRAIN.x, (TRAIN.y == 1) * 1.0, weights=TRAIN.weights)
    queries = uw.Examples(QUERIES.x, (QUERIES.y == 1) * 1.0)
    fitted = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-10).fit(train.x, train.y, train.weights)
    closed = uw.explainable(fitted, train, measure=None if measure is None else uw.Margin())
    model = TorchModel(softmax_net(fitted.coef_), binary_loss, measure, objective=uw.Objective("sum", l2=2.0))
    assert isinstance(model, Differentiable)
    assert np.allclose(model.parameters, closed.parameters)
    assert np.allclose(model.loss_rows(train).dense(), closed.loss_rows(train).dense())
    assert np.allclose(model.measure_rows(queries).dense(), closed.measure_rows(queries).dense(), atol=1e-8)
    assert np.allclose(model.measure(queries), closed.measure(queries))
    assert model.gradient_norm(train) == pytest.approx(closed.gradient_norm(train), abs=1e-8)
    assert model.gradient_norm(train) < 1e-6
    shifts = np.random.default_rng(0).standard_normal((3, 5))
    assert np.allclose(model.measure_shifted(queries, shifts), closed.measure_shifted(queries, shifts))


def test_a_mean_objective_gives_every_row_its_share_of_the_regulariser():
    fitted = estimator()
    l2 = 2.0 / TRAIN.weights.sum()  # the same optimum with a mean objective
    model = TorchModel(softmax_net(fitted.coef_), cross_entropy, objective=uw.Objective("mean", l2))
    plain = TorchModel(softmax_net(fitted.coef_), cross_entropy, objective="sum").loss_rows(TRAIN).dense()
    rows = model.loss_rows(TRAIN)
    assert np.allclose(rows.dense(), plain + TRAIN.weights[:, None] * l2 * model.parameters)
    assert np.abs(rows.dense().sum(axis=0)).max() < 1e-6
    assert model.gradient_norm(TRAIN) < 1e-6
    other = uw.Examples(TRAIN.x, np.random.default_rng(0).permutation(TRAIN.y))
    assert model.gradient_norm(other) > 0.3


def test_a_model_with_other_parameters_is_a_copy():
    net = mlp()
    model = TorchModel(net, cross_entropy, objective=uw.Objective("mean", l2=0.1))
    before = copy.deepcopy(net.state_dict())
    shift = np.random.default_rng(0).standard_normal(model.parameters.size)
    moved = model.with_parameters(model.parameters + shift)
    assert np.allclose(moved.parameters, model.parameters + shift)
    assert np.allclose(moved.measure(QUERIES), model.measure_shifted(QUERIES, shift[None])[:, 0])
    assert not np.allclose(moved.measure(QUERIES), model.measure(QUERIES))
    assert moved.objective == model.objective
    assert all(torch.equal(net.state_dict()[k], before[k]) for k in before)
    assert model.identity()["parameters"] != moved.identity()["parameters"]


def test_measurements_and_predictions_do_not_depend_on_the_batch_size():
    model = TorchModel(mlp(), cross_entropy)
    assert np.allclose(measurements(model.network, TRAIN, batch_examples=7), model.measure(TRAIN))
    assert predictions(model.network, TRAIN, batch_examples=7).predicted == model.predict(TRAIN).predicted


@pytest.mark.parametrize("form", ["loss", "measured", "hidden", "twice"])
def test_a_question_measures_and_predicts_in_one_pass_if_the_loss_tells_both(form):
    net, calls = mlp(), []
    losses = {
        "loss": cross_entropy,
        "measured": cross_entropy,
        "hidden": lambda net, b: cross_entropy(lambda x: net[2](net[1](net[0](x))), b),
        "twice": lambda net, b: cross_entropy(net, b) + 0.1 * cross_entropy(net, b),
    }
    measure = (lambda net, b: net(b.x)[:, 0]) if form == "measured" else None
    model = TorchModel(net, losses[form], measure=measure)
    expected = model.measure(QUERIES), model.predict(QUERIES)
    handle = net.register_forward_hook(lambda *_: calls.append(1))
    measured, predicted = model.measure_and_predict(QUERIES)
    handle.remove()
    assert len(calls) == {"loss": 1, "measured": 2, "hidden": 0, "twice": 6}[form]
    np.testing.assert_allclose(measured, expected[0], rtol=1e-12)
    assert predicted.predicted == expected[1].predicted
    scores = uw.GradDot().fit(model, TRAIN).attribute(QUERIES)
    np.testing.assert_allclose(scores.measured, expected[0], rtol=1e-12)
    assert scores.predictions.predicted == expected[1].predicted


def test_a_prediction_that_the_loss_hides_is_none_and_not_minus_the_loss():
    torch.manual_seed(0)
    net = nn.Linear(5, 1).double()
    target = uw.Examples(X[:6], X[:6, 0])
    model = TorchModel(net, lambda net, b: (net(b.x)[:, 0] - b.y) ** 2)
    expected = net(torch.as_tensor(X[:6]))[:, 0].tolist()
    assert np.allclose(model.predict(target).predicted, expected)
    hidden = TorchModel(net, lambda net, b: (b.x @ net.weight[0] + net.bias - b.y) ** 2)
    assert hidden.predict(target).predicted == (None,) * 6
    assert np.allclose(hidden.loss_rows(target).dense(), model.loss_rows(target).dense())


def test_outputs_for_every_position_are_not_a_prediction_of_one_label():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5)).double()
    texts = uw.Examples(np.random.default_rng(0).integers(0, 5, (4, 6)))
    model = TorchModel(net, lambda net, b: -net(b.x).log_softmax(2).gather(2, b.x[..., None]).sum((1, 2)))
    assert model.predict(texts).predicted == (None,) * 4


def test_a_measurement_has_a_name_and_a_model_has_notes():
    net = mlp().train()
    net[0].requires_grad_(False)
    net.append(nn.Dropout(0.5))
    model = TorchModel(net, cross_entropy, margin)
    assert model.measurement == "margin"
    assert TorchModel(net, cross_entropy).measurement == "−loss"
    assert [note.split()[1] for note in model.notes] == ["frozen", "net"]
    assert net.training


def test_arguments_that_do_not_define_an_objective_are_refused():
    for arguments, message in (
        ({"objective": "average"}, '"mean", "sum" or "fixed"'),
        ({"l2": -1.0}, "l2 ≥ 0"),
        ({"l2": float("nan")}, "l2 ≥ 0"),
        ({"objective": uw.Objective("sum", 1.0), "l2": 2.0}, "one l2"),
    ):
        with pytest.raises(ValueError, match=message):
            TorchModel(mlp(), cross_entropy, **arguments)
    with pytest.raises(TypeError, match="Module"):
        TorchModel(estimator(), cross_entropy)


def test_queries_without_labels_raise_an_error_that_names_labels():
    with pytest.raises(TypeError, match="labels"):
        TorchModel(mlp(), cross_entropy).measure(uw.Examples(X[:3]))


def test_a_net_that_stopped_early_is_explained_at_its_own_parameters():
    recipe = uw.Influence(curvature=uw.Identity())
    (warning,) = recipe.fit(TorchModel(mlp(), cross_entropy), TRAIN).diagnostics["warnings"]
    assert "where it stopped" in warning
    assert "Newton" not in warning


def test_a_net_that_was_trained_on_since_the_fit_is_refused(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double().eval()
    fitted = uw.GradDot().fit(TorchModel(net, cross_entropy), TRAIN)
    before = fitted.attribute(QUERIES).values
    net.train().eval()
    np.testing.assert_array_equal(fitted.attribute(QUERIES).values, before)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.ones(2, 5, dtype=torch.float64)).sum().backward()
    optimiser.step()
    for call in (
        fitted.attribute,
        fitted.top,
        lambda queries: fitted.self_influence(),
        lambda queries: fitted.save(tmp_path / "f"),
    ):
        with pytest.raises(ValueError, match="the model was changed, moved or copied since this fit"):
            call(QUERIES)


def test_the_older_keyword_l2_sets_the_l2_of_the_objective():
    net, summed = mlp(), uw.Training(epochs=1, lr=0.1, weight_decay=0.2, denominator="fixed")
    with pytest.warns(
        DeprecationWarning, match=r'uw.TorchModel: l2= is deprecated; write objective=uw.Objective\("mea'
    ):
        assert TorchModel(net, binary_loss, l2=0.2).objective == uw.Objective("mean", 0.2)
    with pytest.warns(DeprecationWarning):
        assert TorchModel(net, binary_loss, objective="sum", l2=0.2).objective == uw.Objective("sum", 0.2)
    with pytest.warns(DeprecationWarning):
        assert TorchModel(net, binary_loss, l2=0.2, training=summed).objective == uw.Objective("fixed", 0.2)
    with pytest.warns(DeprecationWarning), pytest.raises(ValueError, match="expected one l2"):
        TorchModel(net, binary_loss, objective=uw.Objective("mean", 0.2), l2=0.3)


@pytest.mark.parametrize("outputs", [3, 1])
@pytest.mark.parametrize("method", [uw.Influence(curvature=uw.EmpiricalFisher()), uw.GradDot()])
def test_the_only_example_of_a_class_is_marked(method, outputs):
    rng = np.random.default_rng(0)
    y = np.arange(30) % 2 if outputs == 3 else np.zeros(30)
    y[4] = outputs - 1 if outputs == 3 else 1.0
    train = uw.Examples(rng.normal(size=(30, 4)).astype(np.float32), y)
    torch.manual_seed(0)
    loss = cross_entropy if outputs == 3 else binary_loss
    model = TorchModel(nn.Linear(4, outputs), loss)

    def marks(train):
        warnings = method.fit(model, train).attribute(train.take([0])).diagnostics["warnings"]
        return [text for text in warnings if "one training example only" in text]

    assert len(marks(train)) == 1 and "4 of class" in marks(train)[0] and "retrained" not in marks(train)[0]
    assert marks(train.replaced(y=np.where(np.arange(30) < 3, y[4], y))) == []


def test_counts_are_not_classes():
    train = uw.Examples(np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), np.arange(20))
    model = TorchModel(nn.Linear(4, 1), lambda net, b: (net(b.x)[:, 0] - b.y).square())
    assert model.only_examples(train) == {}
