"""Deletion diagnostics of GLMs of statsmodels, and leave-one-out of three families with all their links."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import upweight as uw

sm = pytest.importorskip("statsmodels.api")
pytestmark = pytest.mark.filterwarnings("ignore")
RNG = np.random.default_rng(1)
ROWS = 24
X = sm.add_constant(RNG.uniform(0.2, 1, (ROWS, 2)))
ETA = X @ [0.4, 0.5, 0.3]
FAMILIES, LINKS = sm.families, sm.families.links
MAKE = {
    "inverse Gaussian": FAMILIES.InverseGaussian,
    "Tweedie 1.1": lambda link: FAMILIES.Tweedie(link, var_power=1.1),
    "Tweedie 1.5": lambda link: FAMILIES.Tweedie(link, var_power=1.5),
    "Tweedie 2.5": lambda link: FAMILIES.Tweedie(link, var_power=2.5),
    "negative binomial": lambda link: FAMILIES.NegativeBinomial(link, alpha=0.5),
}
LINK = {
    "log": (LINKS.Log, np.exp(ETA)),
    "identity": (LINKS.Identity, ETA),
    "square root": (lambda: LINKS.Power(power=0.5), ETA**2),
    "inverse": (LINKS.InversePower, 1 / ETA),
    "inverse square": (LINKS.InverseSquared, ETA**-0.5),
    "inverse square root": (lambda: LINKS.Power(power=-0.5), ETA**-2),
    "negative binomial": (LINKS.NegativeBinomial, np.exp(ETA)),
}
NO_FIT = {  # links that a family does not take, or that statsmodels finds no optimum with
    ("inverse Gaussian", "square root"), ("inverse Gaussian", "inverse square root"),
    ("negative binomial", "inverse square"),
}  # fmt: skip
EVERY_RUN = {
    ("inverse Gaussian", "log"), ("inverse Gaussian", "inverse square"), ("Tweedie 1.5", "log"),
    ("Tweedie 1.5", "square root"), ("negative binomial", "log"), ("negative binomial", "negative binomial"),
}  # fmt: skip


def targets(family: str, mean: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(2)
    if family == "negative binomial":
        return rng.negative_binomial(2, 2 / (2 + 4 * mean)).astype(float)
    return rng.gamma(4, mean / 4)


def fit(family: str, link: str, rows: Any) -> Any:
    y = targets(family, LINK[link][1])
    return sm.GLM(y[rows], X[rows], family=MAKE[family](LINK[link][0]())).fit(tol=1e-12, maxiter=300)


def losses(results: Any, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Half the deviance under a log link, which scikit-learn has too; else half the squared error."""
    mean = results.predict(x)
    is_counterpart = isinstance(results.family.link, LINKS.Log) and not hasattr(results.family, "alpha")
    return 0.5 * (results.family.resid_dev(y, mean) ** 2 if is_counterpart else (y - mean) ** 2)


@pytest.mark.parametrize(
    ("family", "link"),
    [
        pytest.param(family, link, marks=[] if (family, link) in EVERY_RUN else [pytest.mark.slow])
        for family in MAKE
        for link in LINK
        if (link != "negative binomial" or family == link) and (family, link) not in NO_FIT
    ],
)
def test_leave_one_out_of_every_link_is_that_of_statsmodels(family, link):
    results, y = fit(family, link, np.arange(ROWS)), targets(family, LINK[link][1])
    train = uw.Examples(X, y)
    assert results.converged
    scores = uw.LeaveOneOut().fit(uw.explainable(results, train), train).attribute(train.take(np.arange(3))).values
    full = losses(results, y[:3], X[:3])
    truth = np.full((3, ROWS), np.nan)
    for i in range(ROWS):
        without = fit(family, link, np.delete(np.arange(ROWS), i))
        if without.converged:
            truth[:, i] = losses(without, y[:3], X[:3]) - full
    shown = np.isfinite(truth)
    assert shown.mean() > 0.9
    np.testing.assert_allclose(scores[shown], truth[shown], rtol=1e-5, atol=1e-5 * np.abs(truth[shown]).max())


WITH_COUNTERPART = {  # families with the links that scikit-learn has too, whose models are in closed form
    "Gaussian": (FAMILIES.Gaussian, lambda: targets("gamma", ETA)),
    "binomial": (FAMILIES.Binomial, lambda: (np.random.default_rng(3).random(ROWS) < 0.5).astype(float)),
    "Poisson": (FAMILIES.Poisson, lambda: np.random.default_rng(2).poisson(np.exp(2 * ETA)).astype(float)),
    "gamma": (lambda: FAMILIES.Gamma(LINKS.Log()), lambda: targets("gamma", np.exp(ETA))),
    **{
        name: (partial(MAKE[name], LINKS.Log()), lambda: targets("gamma", np.exp(ETA)))
        for name in ("inverse Gaussian", "Tweedie 1.1", "Tweedie 1.5", "Tweedie 2.5")
    },
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", WITH_COUNTERPART)
def test_cooks_distance_of_every_family_is_that_of_statsmodels(name, weighted):
    family, y = WITH_COUNTERPART[name][0](), WITH_COUNTERPART[name][1]()
    weights = np.random.default_rng(4).integers(1, 4, ROWS).astype(float) if weighted else None
    results = sm.GLM(y, X, family=family, var_weights=weights).fit(tol=1e-13, maxiter=300)
    train = uw.Examples(X, y, weights=weights)
    fitted = uw.Influence().fit(uw.explainable(results, train), train)
    theirs = results.get_influence(observed=False)
    np.testing.assert_allclose(fitted.cooks_distance(), theirs.cooks_distance[0], rtol=1e-9)
    np.testing.assert_allclose(fitted.leverage("expected"), theirs.hat_matrix_diag, rtol=1e-9)
    # By the observed information it is the length of the Newton step; theirs mixes both informations there.
    information, score = (
        np.asarray(of(results.params, scale=1.0)) for of in (results.model.hessian_factor, results.model.score_factor)
    )
    inverse = np.linalg.inv(X.T @ (information[:, None] * X))
    h = information * np.einsum("ni,ij,nj->n", X, inverse, X)
    squares = score**2 * np.einsum("ni,ij,nj->n", X, inverse, X) / (1 - h) ** 2
    np.testing.assert_allclose(fitted.cooks_distance("observed"), squares / (X.shape[1] * results.scale), rtol=1e-8)
    np.testing.assert_allclose(fitted.leverage(), h, rtol=1e-8)


@pytest.mark.parametrize(("family", "link"), sorted(EVERY_RUN - {(name, "log") for name in WITH_COUNTERPART}))
def test_deletion_diagnostics_of_other_links_are_refused(family, link):
    y = targets(family, LINK[link][1])
    train = uw.Examples(X, y)
    with pytest.raises(TypeError, match=r"needs a model that is Differentiable.*lists other methods"):
        uw.Influence().fit(uw.explainable(fit(family, link, np.arange(ROWS)), train), train)
