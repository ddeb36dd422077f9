"""A saved fit keeps what was expensive: loading it makes no pass for the curvature, and gives the same scores."""

from __future__ import annotations

import numpy as np
import pytest

import upweight as uw

torch = pytest.importorskip("torch")

from support.network_families import Transformer, cnn, cross_entropy, digits, mlp  # noqa: E402
from upweight.curvature import registry  # noqa: E402

X, Y = digits()
TRAIN, QUERIES = uw.Examples(X[:60], Y[:60]), uw.Examples(X[60:66], Y[60:66], ids=[f"q{i}" for i in range(6)])
RECIPES = [
    uw.Influence(curvature=uw.KFAC()),
    uw.Influence(curvature=uw.EKFAC(), correction="leverage"),
    uw.Influence(curvature=uw.Diagonal()),
    uw.Influence(curvature=uw.EmpiricalFisher()),
    uw.Influence(curvature=uw.DataInf()),
    uw.Influence(curvature=uw.Identity()),
    uw.Influence(curvature=uw.GaussNewton(), damping=0.0, correction="leverage"),
    uw.Influence(curvature=uw.GaussNewton(solver=uw.Nystrom(rank=20)), damping=0.1),
    uw.Influence(curvature=uw.GaussNewton(solver=uw.Arnoldi(rank=10, steps=20)), damping=0.1),
    uw.Influence(curvature=uw.GaussNewton(solver=uw.CG()), damping=0.1),
    uw.Influence(curvature=uw.Hessian(), damping=0.1),
    uw.RelatIF(curvature=uw.EKFAC()),
]


def model(make=mlp, seed=0):
    torch.manual_seed(seed)
    return uw.TorchModel(make(), cross_entropy)


def saved(recipe, path, make=mlp):
    """A fit, saved after its first answer, with that answer."""
    fitted = recipe.fit(model(make), TRAIN)
    scores = fitted.attribute(QUERIES)
    fitted.save(path)
    return scores


@pytest.mark.sweep(3)
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{type(recipe).__name__} {recipe.curvature}"[:60])
def test_a_loaded_fit_computes_no_curvature_and_gives_equal_scores(recipe, tmp_path, monkeypatch):
    scores = saved(recipe, tmp_path / "fit.npz")

    def refuse(*arguments, **keywords):
        raise AssertionError("the curvature is computed again")

    monkeypatch.setattr(registry, "build", refuse)
    for name in ("kronecker_factors", "direction_batches", "correct_leverage", "label_expectation"):
        monkeypatch.setattr(f"upweight.curvature.ekfac.{name}", refuse)
    monkeypatch.setattr("upweight.curvature.solvers.direct._matrix_from_roots", refuse)
    monkeypatch.setattr("upweight.curvature.gauss_newton.correct_leverage", refuse)
    monkeypatch.setattr("upweight.gradients.captured_rows.CapturedRows.gram", refuse)
    loaded = recipe.load(tmp_path / "fit.npz", model(), TRAIN)
    again = loaded.attribute(QUERIES)
    np.testing.assert_allclose(again.values, scores.values, rtol=0, atol=1e-12 * np.abs(scores.values).max())
    assert again.unit == scores.unit
    assert again.diagnostics["damping"] == scores.diagnostics["damping"]
    assert again.diagnostics["damping_from"] == scores.diagnostics["damping_from"]


@pytest.mark.parametrize("make", [cnn, Transformer])
def test_factors_of_convolutions_norms_and_attention_are_kept(make, tmp_path):
    recipe = uw.Influence(curvature=uw.EKFAC())
    scores = saved(recipe, tmp_path / "fit.npz", make)
    again = recipe.load(tmp_path / "fit.npz", model(make), TRAIN).attribute(QUERIES)
    np.testing.assert_allclose(again.values, scores.values, rtol=0, atol=1e-12 * np.abs(scores.values).max())


def test_the_dual_form_of_a_wide_net_is_kept(tmp_path, monkeypatch):
    def wide():
        return torch.nn.Sequential(torch.nn.Linear(64, 50), torch.nn.Tanh(), torch.nn.Linear(50, 3))

    recipe = uw.Influence(curvature=uw.GaussNewton(), correction="leverage")
    scores = saved(recipe, tmp_path / "fit.npz", wide)
    assert "dual form" in scores.diagnostics["solver"]
    monkeypatch.setattr("upweight.curvature.solvers.roots.Roots.gram", None)
    monkeypatch.setattr("upweight.curvature.solvers.roots.Roots._spectra", None)
    again = recipe.load(tmp_path / "fit.npz", model(wide), TRAIN).attribute(QUERIES)
    np.testing.assert_allclose(again.values, scores.values, rtol=0, atol=1e-12 * np.abs(scores.values).max())


def test_a_changed_bit_of_a_kept_factor_is_refused(tmp_path):
    recipe, path = uw.Influence(curvature=uw.EKFAC()), tmp_path / "fit.npz"
    saved(recipe, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        recipe.load(path, model(), TRAIN)


def test_factors_of_another_net_are_refused(tmp_path):
    recipe, path = uw.Influence(curvature=uw.EKFAC()), tmp_path / "fit.npz"
    saved(recipe, path)
    with pytest.raises(ValueError, match="made with other parameters"):
        recipe.load(path, model(seed=1), TRAIN)
