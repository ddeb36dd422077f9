import pickle

import numpy as np
from sklearn.linear_model import LogisticRegression

import upweight as uw
from upweight.core.curvature_recipes import CG, Hessian
from upweight.linear import forecast
from upweight.linear.hessian_solver import HessianSolver


def fitted_model(columns=6, n=60):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, columns)), np.arange(n) % 2
    train = uw.Examples(x, y)
    return uw.explainable(LogisticRegression(tol=1e-10).fit(x, y), train), train


def test_a_long_factorisation_has_a_price_and_a_short_one_has_none(monkeypatch):
    model, train = fitted_model()
    assert model.forecast(uw.Influence(), train) is None
    monkeypatch.setattr(forecast, "SMALL_OPERATIONS", 0.0)
    price = model.forecast(uw.Influence(), train)
    assert set(price.parts) == {"Hessian", "factorisation", "leverages"} and price.bytes == 8 * 7**2
    assert "leverages" not in model.forecast(uw.Influence(correction=None), train).parts
    assert model.forecast(uw.Influence(curvature=Hessian(solver=CG())), train) is None
    assert model.forecast(uw.GradDot(), train) is None
    assert model.forecast(uw.Influence(), train, 5) is None


def test_what_is_left_of_rare_columns_is_announced_when_it_is_known(monkeypatch):
    model, train = fitted_model()
    monkeypatch.setattr(forecast, "SMALL_OPERATIONS", 0.0)
    assert model.forecast(uw.Influence(), train) is not None
    monkeypatch.setattr(forecast, "is_eliminable", lambda problem: True)
    assert model.forecast(uw.Influence(), train) is None


def test_scores_and_their_verification_take_one_factorisation(monkeypatch):
    factored, factor = [], HessianSolver._cholesky
    monkeypatch.setattr(HessianSolver, "_cholesky", lambda self, make: factored.append(self) or factor(self, make))
    model, train = fitted_model()
    fitted = uw.Influence().fit(model, train)
    retrained = model.retrain(train, np.r_[0.0, np.ones(59)])
    assert len(factored) == 1 and fitted.curvature is not None
    alone, _ = fitted_model()
    np.testing.assert_array_equal(retrained.theta, alone.retrain(train, np.r_[0.0, np.ones(59)]).theta)
    assert len(factored) == 2
    elsewhere, copied = pickle.loads(pickle.dumps((model, train)))
    elsewhere.retrain(copied, np.ones(60))
    assert len(factored) == 2  # the optimum went along
    assert uw.Influence().fit(elsewhere, copied).self_influence() is not None
