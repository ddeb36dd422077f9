"""What gradients were in the later half of a training, against matrices written out in float64."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from curved_nets import examples, model
from scipy.stats import spearmanr
from torch import nn

import upweight as uw
from upweight.core.rows import DenseRows
from upweight.curvature import gauss_newton

TIME = 0.5


def timed(here, time=TIME):
    other = uw.TorchModel(here.network.net, here.network.loss, objective=uw.Objective("mean", l2=0.01))
    other.training_time = lambda train: time
    return other


def slopes(net, x, y, share):
    """Jᵀ(softmax(share z) − y) of every example, by autograd."""
    rows = []
    for one, label in zip(torch.as_tensor(x), y, strict=True):
        z = net(one[None])[0]
        residual = torch.softmax(share * z.detach(), 0)
        residual[label] -= 1.0
        found = torch.autograd.grad((z * residual).sum(), list(net.parameters()))
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("recipe", [uw.GaussNewton(), uw.Hessian(), uw.EKFAC()], ids=str)
def test_scores_are_the_formula(recipe):
    here = timed(model("mlp", l2=0.01))
    train, queries = examples(25), examples(3, seed=9)
    net = here.network.net
    fitted = uw.Influence(curvature=recipe).fit(here, train)
    shift = 2 / TIME * len(train)
    matrix = fitted.curvature.matvec(np.eye(here.network.size))
    assert fitted.diagnostics["damping"] == pytest.approx(2 / TIME)
    inverse = np.linalg.inv(matrix)
    now, then = slopes(net, train.x, train.y, 1.0), slopes(net, train.x, train.y, 0.75)
    share = here.loss_rows(train).dense() - now  # the regulariser's, which stays
    rows = now + share + shift * (then - now) @ inverse
    asked = here.measure_rows(queries).dense()
    expected = -asked @ inverse @ rows.T
    assert np.allclose(fitted.attribute(queries).values, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())
    own = -here.measure_rows(train).dense() @ inverse @ rows.T
    assert np.allclose(fitted.self_influence().values, np.diag(own), rtol=1e-6)
    ids = train.ids[:4].tolist()
    group = fitted.remove({"four": ids}, queries, form="first").values[:, 0]
    assert np.allclose(group, expected[:, :4].sum(axis=1), rtol=1e-6)


def test_the_dual_form_gives_the_same(monkeypatch):
    here, train, queries = timed(model("mlp", l2=0.01)), examples(25), examples(3, seed=9)
    expected = uw.Influence().fit(here, train).attribute(queries).values
    monkeypatch.setattr(gauss_newton, "MAX_DENSE_PARAMETERS", 0)
    fitted = uw.Influence().fit(here, train)
    assert "dual" in fitted.diagnostics["solver"]
    found = fitted.attribute(queries).values
    assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()  # it leaves out some of the output curvature
    once = fitted.curvature.solve(here.measure_rows(queries)).rows
    lazy, plain = (fitted.curvature.solve(rows).rows.dense() for rows in (once, DenseRows(once.dense())))
    assert np.abs(lazy - plain).max() <= 1e-6 * np.abs(plain).max()


def test_quadratic_losses_and_given_dampings_keep_their_gradients():
    train, queries = examples(25), examples(3, seed=9)
    net = nn.Linear(12, 3).double()
    squared = timed(uw.TorchModel(net, lambda net, batch: ((net(batch.x) - 1.0) ** 2).sum(dim=1)))
    assert uw.Influence().fit(squared, train).earlier is None
    given = uw.Influence(damping=2 / TIME).fit(timed(model("mlp", l2=0.01)), train)
    assert given.earlier is None
    assert uw.Influence().fit(timed(model("mlp", l2=0.01)), train).earlier is not None
    assert given.attribute(queries).values.shape == (3, 25)


def test_a_training_that_stopped_early_is_predicted_better_than_from_its_last_gradients():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 8))
    y = rng.integers(0, 4, 160)
    x = (centres[y] + 0.8 * rng.normal(size=(160, 8))).astype(np.float32)
    train, queries = uw.Examples(x[:120], y[:120]), uw.Examples(x[120:], y[120:])

    def loss(net, batch):
        return nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")

    training = uw.Training(lr=0.1, epochs=8, batch_size=20, momentum=0.9, schedule="linear", weight_decay=1e-3)
    here = uw.TorchModel.trained(
        lambda _: nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)), loss, train, training=training
    )
    kept = np.ones((40, 120))
    for row in kept:
        row[rng.choice(120, 12, replace=False)] = 0.0
    truth = uw.retrain(here, train, kept, [0] * 40, retraining=uw.Retraining(processes=1)).measure(queries)

    def agreement(influence):
        predicted = -influence.fit(here, train).attribute(queries).values @ (1 - kept).T
        return np.mean([spearmanr(p, t).statistic for p, t in zip(predicted, truth, strict=True)])

    plain = agreement(uw.Influence(damping=1 / training.time(120)))
    assert agreement(uw.Influence()) > plain + 0.01
