"""Corrected rows of networks against (C − wᵢJᵢᵀΛᵢJᵢ)⁻¹ written out: the Newton step of leaving one example out."""

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
import torch.nn.functional as F  # noqa: N812
from curved_nets import MAKERS, cross_entropy, examples, model

import upweight as uw
from upweight.curvature import ekfac, gauss_newton
from upweight.curvature.solvers import roots


def parts(here, train) -> list[np.ndarray]:
    """Jᵢᵀ Λᵢ Jᵢ of every example, (p, p)."""
    network, out = here.network, []
    for one in train.batches(1):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            z = network.net(network.batch(one).x)[0]
            each = [torch.autograd.grad(v, list(network.parameters().values()), retain_graph=True) for v in z]
        jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in each])
        p = F.softmax(z.detach(), 0)
        out.append((jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian).numpy())
    return out


@pytest.mark.parametrize("form", ["direct", "dual", "EK-FAC"])
@pytest.mark.parametrize("name", MAKERS)
def test_corrected_rows_are_newton_steps_of_leaving_one_out(name, form, monkeypatch):
    if form == "dual":
        monkeypatch.setattr(gauss_newton, "MAX_DENSE_PARAMETERS", 1)
        monkeypatch.setattr(roots, "TRACE_SHARE", 1.0)
    weights = np.random.default_rng(3).uniform(0.5, 2.0, 12)
    weights[4] = 0.0
    train = uw.Examples(examples(12).x, examples(12).y, weights=weights)
    here = model(name, l2=0.02)
    curvature = here.curvature(train, uw.EKFAC() if form == "EK-FAC" else uw.GaussNewton(), 0.05)
    rows, q = here.loss_rows(train), here.measure_rows(examples(5, seed=9))
    whole, dense = curvature.matvec(np.eye(here.network.size)), rows.dense()
    mine = [w * part for w, part in zip(weights, parts(here, examples(12)), strict=True)]
    held = np.array([np.linalg.eigvals(np.linalg.solve(whole, part)).real.max() for part in mine])
    each = np.stack([np.linalg.solve(whole - part, row) for part, row in zip(mine, dense, strict=True)])
    expected = q.dense() @ each.T
    # the factors do not sum up to C: an example may seem to hold more than there is, and is bounded
    kept = held < (ekfac.MAX_FACTORED_LEVERAGE if form == "EK-FAC" else 1.0)
    assert kept.sum() > 6
    corrected = curvature.corrected(rows)
    found = curvature.solve(q).rows.dot(corrected)
    np.testing.assert_allclose(found[:, kept], expected[:, kept], atol=1e-8 * np.abs(expected[:, kept]).max())
    some = np.array([7, 2])
    np.testing.assert_allclose(curvature.solve(q).rows.dot(corrected.take(some)), found[:, some], atol=1e-10)
    assert np.isfinite(found).all()
    assert np.abs(found - curvature.solve(q).rows.dot(rows)).max() > 1e-3 * np.abs(found).max()


def test_influence_corrects_effects_and_leaves_ranks():
    here, train, queries = model("mlp", l2=0.5), examples(25), examples(5, seed=9)
    effects = uw.Influence(curvature=uw.GaussNewton()).fit(here, train)
    assert effects.attribute(queries).unit == uw.Unit.EFFECT
    assert effects.diagnostics["correction"] == "leverage"
    ranks = uw.Influence(curvature=uw.GaussNewton(), damping=0.1).fit(here, train)
    assert ranks.diagnostics["correction"] is None
    asked = uw.Influence(curvature=uw.EKFAC(), damping=0.1, correction="leverage").fit(here, train)
    assert asked.diagnostics["correction"] == "leverage"
    for recipe in (uw.Identity(), uw.GaussNewton(solver=uw.CG())):
        with pytest.raises(TypeError, match="knows no leverages"):
            uw.Influence(curvature=recipe, correction="leverage").fit(here, train)


def test_rows_of_measurements_have_no_leverage():
    here, train = model("mlp"), examples(25)
    for recipe in (uw.EKFAC(), uw.GaussNewton()):
        assert here.curvature(train, recipe, 0.1).corrected(here.measure_rows(train)) is None


def test_for_one_linear_layer_it_is_the_correction_of_linear_models():
    torch.manual_seed(0)
    here = uw.TorchModel(torch.nn.Linear(12, 3).double(), cross_entropy, objective=uw.Objective("mean", l2=0.3))
    train, q = examples(25), examples(6, seed=9)
    exact = uw.Influence(curvature=uw.GaussNewton()).fit(here, train)
    assert exact.unit == uw.Unit.EFFECT
    curvature = here.curvature(train, uw.GaussNewton(), 0.0)
    rows = here.loss_rows(train)
    whole = curvature.matvec(np.eye(here.network.size))
    each = [np.linalg.solve(whole - part, row) for part, row in zip(parts(here, train), rows.dense(), strict=True)]
    expected = -here.measure_rows(q).dense() @ np.array(each).T
    np.testing.assert_allclose(exact.attribute(q).values, expected, atol=1e-10)
