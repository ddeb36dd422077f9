"""Corrected rows of networks against the dense (C − wᵢJᵢᵀΛᵢJᵢ)⁻¹: the Newton step of leaving one example out."""

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
import torch.nn.functional as F  # noqa: N812

import upweight as uw
from support.curved_nets import DUAL_FORM, MAKERS, cross_entropy, examples, fit, untrained
from upweight.curvature import ekfac


def parts(model, train) -> list[np.ndarray]:
    """Jᵢᵀ Λᵢ Jᵢ of every example, (p, p)."""
    network, out = model.network, []
    for example in train.batches(1):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            z = network.net(network.batch(example).x)[0]
            rows = [torch.autograd.grad(v, list(network.parameters().values()), retain_graph=True) for v in z]
        jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
        p = F.softmax(z.detach(), 0)
        out.append((jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian).numpy())
    return out


@pytest.mark.sweep(3)
@pytest.mark.parametrize("form", ["direct", "dual", "EK-FAC"])
@pytest.mark.parametrize("name", MAKERS)
def test_corrected_rows_are_newton_steps_of_leaving_one_out(name, form):
    limits = DUAL_FORM if form == "dual" else {}
    weights = np.random.default_rng(3).uniform(0.5, 2.0, 12)
    weights[4] = 0.0
    train = uw.Examples(examples(12).x, examples(12).y, weights=weights)
    model = untrained(name, l2=0.02)
    curvature = fit(model, train, uw.EKFAC() if form == "EK-FAC" else uw.GaussNewton(), 0.05, **limits)
    rows, q = model.loss_rows(train), model.measure_rows(examples(5, seed=9))
    whole, dense = curvature.matvec(np.eye(model.network.size)), rows.dense()
    weighted = [w * part for w, part in zip(weights, parts(model, examples(12)), strict=True)]
    leverages = np.array([np.linalg.eigvals(np.linalg.solve(whole, part)).real.max() for part in weighted])
    steps = np.stack([np.linalg.solve(whole - part, row) for part, row in zip(weighted, dense, strict=True)])
    expected = q.dense() @ steps.T
    # the parts do not sum to the factored C, so that a leverage may exceed 1 and is capped
    uncapped = leverages < (ekfac.MAX_FACTORED_LEVERAGE if form == "EK-FAC" else 1.0)
    assert uncapped.sum() > 6
    corrected = curvature.corrected(rows)
    scores = curvature.solve(q).rows.dot(corrected)
    tolerance = 1e-8 * np.abs(expected[:, uncapped]).max()
    np.testing.assert_allclose(scores[:, uncapped], expected[:, uncapped], atol=tolerance)
    positions = np.array([7, 2])
    part = curvature.solve(q).rows.dot(corrected.take(positions))
    np.testing.assert_allclose(part, scores[:, positions], atol=1e-10)
    assert np.isfinite(scores).all()
    assert np.abs(scores - curvature.solve(q).rows.dot(rows)).max() > 1e-3 * np.abs(scores).max()


def test_influence_corrects_effects_and_not_ranks():
    train, q, l2 = examples(25), examples(5, seed=9), 0.5
    x, y = train.x, train.x[:, :2] @ [1.0, -1.0]
    numbers, width = uw.Examples(x, y), x.shape[1]
    net = torch.nn.Linear(width, 1, bias=False).double()
    net.weight.data = torch.tensor(np.linalg.solve(2 * x.T @ x + 25 * l2 * np.eye(width), 2 * x.T @ y)[None])
    at_optimum = uw.TorchModel(net, lambda net, b: (net(b.x)[:, 0] - b.y) ** 2, objective=uw.Objective("mean", l2=l2))
    for recipe in (uw.GaussNewton(), uw.Hessian()):
        effects = uw.Influence(curvature=recipe).fit(at_optimum, numbers)
        assert effects.unit == uw.Unit.EFFECT
        assert effects.diagnostics["correction"] == "leverage"
    model = untrained("mlp", l2=l2)
    ranks = [uw.Influence(curvature=uw.GaussNewton(), damping=given).fit(model, train) for given in (0.1, "auto")]
    assert [(fitted.attribute(q).unit, fitted.diagnostics["correction"]) for fitted in ranks] == [("RANK", None)] * 2
    requested = uw.Influence(curvature=uw.EKFAC(), damping=0.1, correction="leverage").fit(model, train)
    assert requested.diagnostics["correction"] == "leverage"
    for recipe in (uw.Identity(), uw.GaussNewton(solver=uw.CG())):
        with pytest.raises(TypeError, match="needs a curvature that has leverages"):
            uw.Influence(curvature=recipe, correction="leverage").fit(model, train)


def test_rows_of_measurements_have_no_leverage():
    model, train = untrained("mlp"), examples(25)
    for recipe in (uw.EKFAC(), uw.GaussNewton()):
        assert model.curvature(train, recipe, 0.1).corrected(model.measure_rows(train)) is None


def test_for_one_linear_layer_it_is_the_correction_of_linear_models():
    torch.manual_seed(0)
    model = uw.TorchModel(torch.nn.Linear(12, 3).double(), cross_entropy, objective=uw.Objective("mean", l2=0.3))
    train, q = examples(25), examples(6, seed=9)
    exact = uw.Influence(curvature=uw.GaussNewton(), correction="leverage").fit(model, train)
    curvature = model.curvature(train, uw.GaussNewton(), 0.0)
    rows = model.loss_rows(train)
    whole = curvature.matvec(np.eye(model.network.size))
    steps = [np.linalg.solve(whole - part, row) for part, row in zip(parts(model, train), rows.dense(), strict=True)]
    expected = -model.measure_rows(q).dense() @ np.array(steps).T
    np.testing.assert_allclose(exact.attribute(q).values, expected, atol=1e-10)
