"""Separated outcomes are found, whatever the solver said, and others are not."""

import numpy as np
import pytest

import upweight as uw
from upweight.linear.separation import is_separated

RNG = np.random.default_rng(0)
X = np.c_[np.ones(60), RNG.normal(size=(60, 2))]
OVERLAPPING = (X[:, 1] + RNG.normal(size=60) > 0).astype(float)
SEPARABLE = (X[:, 1] > 0).astype(float)
RARE = (RNG.random(60) < 0.2).astype(float)
CASES = {
    "overlapping": (X, OVERLAPPING),
    "overlapping, with a column twice": (np.c_[X, X[:, 1]], OVERLAPPING),
    "separable": (X, SEPARABLE),
    "all but ties": (np.c_[X, RARE], np.maximum(OVERLAPPING, RARE)),  # a 1 wherever the last column has one
    "one class": (X, np.ones(60)),
}
SEPARATED = ("separable", "all but ties", "one class")


def far_along(design, outcomes):
    """Probabilities after forty Newton steps of a logistic regression, which the separated ones spend in growing."""
    coefficients = np.zeros(design.shape[1])
    for _ in range(40):
        p = 1 / (1 + np.exp(-np.clip(design @ coefficients, -30, 30)))
        hessian = design.T @ (design * (p * (1 - p))[:, None])
        coefficients += np.linalg.pinv(hessian, rcond=1e-14) @ (design.T @ (outcomes - p))
    return 1 / (1 + np.exp(-np.clip(design @ coefficients, -30, 30)))


@pytest.mark.parametrize("name", CASES)
def test_separation_is_found_where_it_is(name):
    design, outcomes = CASES[name]
    assert is_separated(design, outcomes, far_along(design, outcomes)) == (name in SEPARATED)


def test_steep_fits_of_overlapping_outcomes_are_not_separated():
    steep = 40 * X[:, 1]
    outcomes = (steep > 0).astype(float)
    for nearest in (steep[steep > 0].min(), steep[steep < 0].max()):
        outcomes[steep == nearest] = nearest < 0
    design = X[:, :2]
    assert not is_separated(design, outcomes, 1 / (1 + np.exp(-steep)))


@pytest.mark.sweep(3)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "start"),
    [("overlapping", None), *((name, start) for name in ("separable", "all but ties") for start in (None, 2.0))],
)
def test_a_separated_model_of_statsmodels_is_refused_from_any_start(name, start):
    sm = pytest.importorskip("statsmodels.api")
    design, outcomes = CASES[name]
    family = sm.families.Binomial(sm.families.links.Probit())
    from_where = None if start is None else np.linspace(start, 1.0, design.shape[1])
    results = sm.GLM(outcomes, design, family=family).fit(start_params=from_where)
    train = uw.examples_of(results)
    if name in SEPARATED:
        with pytest.raises(ValueError, match="got outcomes that the columns separate"):
            uw.explainable(results, train)
        return
    scores = uw.LeaveOneOut(processes=1).fit(uw.explainable(results, train), train).attribute(train.take([0]))
    others = np.arange(60) != 7
    refit = sm.GLM(outcomes[others], design[others], family=family).fit(tol=1e-12, maxiter=500)
    losses = [(outcomes[0] - fit.predict(design[:1])[0]) ** 2 / 2 for fit in (results, refit)]
    assert scores.values[0, 7] == pytest.approx(losses[1] - losses[0], rel=1e-4)
