"""Weights in the automatic damping and in every curvature: as if rows were left out or repeated."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import upweight as uw
from support.curved_nets import DUAL_FORM, with_limits

RECIPES = [
    uw.GaussNewton(),
    uw.Hessian(),
    uw.EmpiricalFisher(),
    uw.Diagonal(),
    uw.KFAC(),
    uw.EKFAC(),
    uw.DataInf(),
    uw.Identity(),
]


def problem(n: int) -> tuple[Any, np.ndarray, np.ndarray, uw.Examples]:
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).double()
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(n, 5)) * rng.uniform(0.3, 3, (n, 1)), rng.integers(0, 3, n)
    model = uw.TorchModel(
        net, lambda net, b: F.cross_entropy(net(b.x), b.y, reduction="none"), objective=uw.Objective("mean", l2=1e-4)
    )
    return model, x, y, uw.Examples(x[:4] + 0.1, y[:4], ids=[-1, -2, -3, -4])


def weights_for(n: int, law: str) -> np.ndarray:
    weights = np.ones(n)
    if law == "absent":
        weights[: n // 8] = weights[n // 2 : n // 2 + n // 5] = 0.0
    else:
        weights[[3, n // 2]] = 10.0, 3.0
    return weights


@pytest.mark.sweep(3)
@pytest.mark.parametrize("law", ["absent", "copies"])
@pytest.mark.parametrize("n", [50, 320], ids=["all examples", "a sample of them"])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: type(r).__name__)
def test_the_automatic_damping_is_that_of_the_repeated_rows(recipe: Any, n: int, law: str) -> None:
    model, x, y, queries = problem(n)
    weights = weights_for(n, law)
    rows = np.repeat(np.arange(n), weights.astype(int))
    method = uw.Influence(curvature=recipe, correction=None)
    weighted = method.fit(model, uw.Examples(x, y, weights=weights)).attribute(queries)
    repeated = method.fit(model, uw.Examples(x[rows], y[rows])).attribute(queries)
    expected = np.stack([repeated.values[:, rows == i].sum(1) for i in range(n)], axis=1)
    assert np.abs(weighted.values - expected).max() <= 1e-9 * np.abs(expected).max()
    assert weighted.diagnostics["damping"] == pytest.approx(repeated.diagnostics["damping"], rel=1e-9)
    assert weighted.diagnostics["damping_from"] == repeated.diagnostics["damping_from"]


@pytest.mark.parametrize("law", ["absent", "copies"])
@pytest.mark.parametrize("correction", [None, "leverage"])
def test_weights_in_the_dual_form_are_copies(law: str, correction: Any) -> None:
    model, x, y, queries = problem(40)
    model = with_limits(model, **DUAL_FORM)  # the whole trace: a smaller share may split the copies of a row
    weights = weights_for(40, law)
    rows, single = np.repeat(np.arange(40), weights.astype(int)), weights == 1
    method = uw.Influence(curvature=uw.GaussNewton(), damping=0.02, correction=correction)
    weighted = method.fit(model, uw.Examples(x, y, weights=weights)).attribute(queries)
    repeated = method.fit(model, uw.Examples(x[rows], y[rows])).attribute(queries)
    assert "dual" in weighted.diagnostics["solver"] and weighted.diagnostics["correction"] == correction
    expected = repeated.values[:, np.isin(rows, np.flatnonzero(single))]
    assert np.abs(weighted.values[:, single] - expected).max() <= 1e-9 * np.abs(expected).max()
    assert (weighted.values[:, weights == 0] == 0).all()


@pytest.mark.parametrize("law", ["absent", "copies"])
def test_the_gradient_norm_is_that_of_the_repeated_rows(law: str) -> None:
    model, x, y, _ = problem(30)
    weights = weights_for(30, law)
    rows = np.repeat(np.arange(30), weights.astype(int))
    expected = model.gradient_norm(uw.Examples(x[rows], y[rows]))
    assert model.gradient_norm(uw.Examples(x, y, weights=weights)) == pytest.approx(expected, rel=1e-9)
