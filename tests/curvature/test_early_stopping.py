"""Gradients of the later half of a training that stopped early, against dense matrices in float64."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from scipy.stats import spearmanr
from torch import nn

import upweight as uw
from support.curved_nets import examples, untrained, with_limits
from upweight.core.rows import DenseRows

TIME = 0.5


def timed(model, time=TIME):
    """The model, reporting this training time."""
    other = uw.TorchModel(model.network.net, model.network.loss, objective=uw.Objective("mean", l2=0.01))
    other.training_time = lambda train: time
    return other


def slopes(net, x, y, share):
    """Jᵀ(softmax(share z) − y) of every example, by autograd."""
    rows = []
    for example, label in zip(torch.as_tensor(x), y, strict=True):
        z = net(example[None])[0]
        residual = torch.softmax(share * z.detach(), 0)
        residual[label] -= 1.0
        gradients = torch.autograd.grad((z * residual).sum(), list(net.parameters()))
        rows.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("recipe", [uw.GaussNewton(), uw.Hessian(), uw.EKFAC()], ids=str)
def test_scores_are_the_formula(recipe):
    model = timed(untrained("mlp", l2=0.01))
    train, queries = examples(25), examples(3, seed=9)
    net = model.network.net
    fitted = uw.Influence(curvature=recipe).fit(model, train)
    shift = 2 / TIME * len(train)
    matrix = fitted.curvature.matvec(np.eye(model.network.size))
    assert fitted.diagnostics["damping"] == pytest.approx(2 / TIME)
    inverse = np.linalg.inv(matrix)
    final, earlier = slopes(net, train.x, train.y, 1.0), slopes(net, train.x, train.y, 0.75)
    share = model.loss_rows(train).dense() - final  # the regulariser's share, which does not change
    rows = final + share + shift * (earlier - final) @ inverse
    expected = -model.measure_rows(queries).dense() @ inverse @ rows.T
    assert np.allclose(fitted.attribute(queries).values, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())
    self_influence = np.diag(-model.measure_rows(train).dense() @ inverse @ rows.T)
    assert np.allclose(fitted.self_influence().values, self_influence, rtol=1e-6)
    ids = train.ids[:4].tolist()
    group = fitted.remove({"four": ids}, queries, form="first").values[:, 0]
    assert np.allclose(group, expected[:, :4].sum(axis=1), rtol=1e-6)


def test_the_dual_form_gives_the_same_scores():
    model, train, queries = timed(untrained("mlp", l2=0.01)), examples(25), examples(3, seed=9)
    expected = uw.Influence().fit(model, train).attribute(queries).values
    fitted = uw.Influence(curvature=uw.GaussNewton()).fit(with_limits(model, dense_parameters=0), train)
    assert "dual" in fitted.diagnostics["solver"]
    scores = fitted.attribute(queries).values
    assert np.abs(scores - expected).max() <= 0.02 * np.abs(expected).max()  # it omits some output curvature
    once = fitted.curvature.solve(model.measure_rows(queries)).rows
    lazy, plain = (fitted.curvature.solve(rows).rows.dense() for rows in (once, DenseRows(once.dense())))
    assert np.abs(lazy - plain).max() <= 1e-6 * np.abs(plain).max()


def test_quadratic_losses_and_given_dampings_keep_the_final_gradients():
    train, queries = examples(25), examples(3, seed=9)
    net = nn.Linear(12, 3).double()
    squared = timed(uw.TorchModel(net, lambda net, batch: ((net(batch.x) - 1.0) ** 2).sum(dim=1)))
    assert uw.Influence().fit(squared, train).early_stopping is None
    damped = uw.Influence(damping=2 / TIME).fit(timed(untrained("mlp", l2=0.01)), train)
    assert damped.early_stopping is None
    assert uw.Influence().fit(timed(untrained("mlp", l2=0.01)), train).early_stopping is not None
    assert damped.attribute(queries).values.shape == (3, 25)


def test_a_training_that_stopped_early_is_predicted_better_than_from_its_last_gradients():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 8))
    y = rng.integers(0, 4, 160)
    x = (centres[y] + 0.8 * rng.normal(size=(160, 8))).astype(np.float32)
    train, queries = uw.Examples(x[:120], y[:120]), uw.Examples(x[120:], y[120:])

    def loss(net, batch):
        return nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")

    training = uw.Training(lr=0.1, epochs=8, batch_size=20, momentum=0.9, schedule="linear", weight_decay=1e-3)
    model = uw.TorchModel.trained(
        lambda _: nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)), loss, train, training=training
    )
    subsets = np.ones((40, 120))
    for row in subsets:
        row[rng.choice(120, 12, replace=False)] = 0.0
    truth = uw.retrain(model, train, subsets, [0] * 40, retraining=uw.Retraining(processes=1)).measure(queries)

    def agreement(influence):
        predicted = -influence.fit(model, train).attribute(queries).values @ (1 - subsets).T
        return np.mean([spearmanr(p, t).statistic for p, t in zip(predicted, truth, strict=True)])

    plain = agreement(uw.Influence(damping=1 / training.time(120)))
    assert agreement(uw.Influence()) > plain + 0.01
