"""The table of deletion diagnostics: columns and values of statsmodels, and textbook formulas and refits in numpy."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import (
    GammaRegressor,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    TweedieRegressor,
)
from sklearn.svm import LinearSVC

import upweight as uw

TIGHT = {"tol": 1e-13, "max_iter": 20_000}
N = 50
SHARED = ["cooks_d", "standard_resid", "hat_diag", "dffits_internal"]  # with statsmodels' generalised linear models
OWN = [*SHARED, "student_resid", "dffits", "resid_press"]


def table() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(N, 3)), columns=["a", "b", "c"])
    return x, 0.3 * x["a"].to_numpy() + 1


def frame_of(estimator: Any, x: Any, y: np.ndarray, weights: np.ndarray | None = None, **options: Any) -> pd.DataFrame:
    train = uw.Examples(x, y, weights=weights, ids=[f"r{i}" for i in range(len(x))])
    model = uw.explainable(estimator.fit(x, y, sample_weight=weights), train)
    return uw.Influence().fit(model, train).summary_frame(**options)


def test_the_table_of_least_squares_is_the_textbooks() -> None:
    x, mean = table()
    y = mean + np.random.default_rng(1).normal(size=N)
    frame = frame_of(LinearRegression(), x, y)
    assert sorted(frame.columns) == sorted([*(f"dfb_{name}" for name in ("a", "b", "c", "intercept")), *OWN])
    assert frame.index.tolist() == [f"r{i}" for i in range(N)]
    design = np.c_[x, np.ones(N)]
    inverse = np.linalg.inv(design.T @ design)
    h, residual = np.einsum("ni,ij,nj->n", design, inverse, design), y - design @ inverse @ design.T @ y
    for i in (0, 9):
        keep = np.arange(N) != i
        theta = np.linalg.lstsq(design[keep], y[keep], rcond=None)[0]
        rest = y[keep] - design[keep] @ theta
        s = np.sqrt(rest @ rest / (N - 1 - 4))
        row = frame.loc[f"r{i}"]
        assert row["resid_press"] == pytest.approx(y[i] - design[i] @ theta)
        assert row["student_resid"] == pytest.approx(residual[i] / (s * np.sqrt(1 - h[i])))
        assert row["dffits"] == pytest.approx(row["student_resid"] * np.sqrt(h[i] / (1 - h[i])))
        moved = inverse @ design.T @ y - theta
        expected = moved / (s * np.sqrt(np.diag(inverse)))
        np.testing.assert_allclose(row[["dfb_a", "dfb_b", "dfb_c", "dfb_intercept"]], expected, rtol=1e-8)
    s = np.sqrt(residual @ residual / (N - 4))
    np.testing.assert_allclose(frame["standard_resid"], residual / (s * np.sqrt(1 - h)), rtol=1e-8)
    np.testing.assert_allclose(frame["hat_diag"], h, rtol=1e-8)


@pytest.mark.parametrize("name", ["least squares", "Poisson", "gamma", "logistic", "inverse Gaussian", "log link"])
def test_the_table_is_that_of_statsmodels(name: str) -> None:
    sm = pytest.importorskip("statsmodels.api")
    x, mean = table()
    rng, log, families = np.random.default_rng(1), sm.families.links.Log(), sm.families
    skewed = rng.gamma(3, np.exp(mean) / 3)
    estimator, family, y = {
        "least squares": (LinearRegression(), None, mean + rng.normal(size=N)),
        "Poisson": (PoissonRegressor(alpha=0, **TIGHT), families.Poisson(), rng.poisson(np.exp(mean))),
        "gamma": (GammaRegressor(alpha=0, **TIGHT), families.Gamma(log), skewed),
        "logistic": (LogisticRegression(C=np.inf, **TIGHT), families.Binomial(), (rng.random(N) < 0.5).astype(int)),
        "inverse Gaussian": (TweedieRegressor(power=3, alpha=0, **TIGHT), families.InverseGaussian(log), skewed),
        "log link": (TweedieRegressor(power=0, link="log", alpha=0, **TIGHT), families.Gaussian(log), skewed),
    }[name]
    ours = frame_of(estimator, x, y)
    if family is None:
        theirs = sm.OLS(y, sm.add_constant(x)).fit().get_influence().summary_frame()
    else:
        fit = sm.GLM(y, sm.add_constant(x), family=family).fit(tol=1e-14, maxiter=300)
        theirs = fit.get_influence(observed=False).summary_frame()
    theirs = theirs.rename(columns={"dfb_const": "dfb_intercept"})
    assert set(theirs.columns) <= set(ours.columns)
    for column in theirs.columns:
        np.testing.assert_allclose(ours[column], theirs[column], rtol=2e-6, atol=1e-8, err_msg=column)


def test_copies_and_absent_rows_count_as_elsewhere() -> None:
    x, mean = table()
    y = np.random.default_rng(1).gamma(3, np.exp(mean) / 3)
    weights = (np.arange(N) % 5 > 0).astype(float)
    present = weights > 0
    for estimator in (GammaRegressor(alpha=0, **TIGHT), LinearRegression()):
        beside = frame_of(estimator, x, y, weights)
        alone = frame_of(estimator, x[present], y[present])
        np.testing.assert_allclose(beside[present], alone, rtol=1e-6)
        assert (beside.loc[~present, ["cooks_d", "hat_diag", "dffits", "dfb_a"]] == 0).all(axis=None)
        assert beside.loc[~present, ["standard_resid", "student_resid"]].isna().all(axis=None)
        np.testing.assert_allclose(
            beside.loc[~present, "resid_press"], (y - estimator.fit(x[present], y[present]).predict(x))[~present]
        )
    weights[1] = 3.0
    weighted = frame_of(LinearRegression(), x, y, weights)
    rest = present & (np.arange(N) != 1)
    refit = LinearRegression().fit(x[rest], y[rest])
    assert weighted["resid_press"].iloc[1] == pytest.approx(y[1] - refit.predict(x.iloc[[1]])[0])


def test_leave_one_out_residuals_with_l2_are_the_refits() -> None:
    rng = np.random.default_rng(0)
    for columns in (4, 80):  # the latter in Gram coordinates
        x, y = rng.normal(size=(N, columns)), rng.normal(size=N)
        frame = frame_of(Ridge(3.0), x, y)
        for i in (0, 30):
            keep = np.arange(N) != i
            refit = Ridge(3.0).fit(x[keep], y[keep])
            assert frame["resid_press"].iloc[i] == pytest.approx(y[i] - refit.predict(x[[i]])[0])
            squares = ((y - refit.predict(x))[keep] ** 2).sum()
            s = np.sqrt(squares / (N - 1 - frame["hat_diag"].sum()))
            h, residual = frame["hat_diag"].iloc[i], (y - Ridge(3.0).fit(x, y).predict(x))[i]
            assert frame["student_resid"].iloc[i] == pytest.approx(residual / (s * np.sqrt(1 - h)))
        assert np.isfinite(frame).all(axis=None)
        assert sum(column.startswith("dfb_") for column in frame) == columns + 1


def test_several_outputs_have_no_residual_columns() -> None:
    x, y = load_iris(return_X_y=True)
    frame = frame_of(LogisticRegression(**TIGHT), x, y)
    assert [column for column in frame if not column.startswith("dfb_")] == ["cooks_d", "hat_diag"]
    assert "dfb_1: x2" in frame and "dfb_2: intercept" in frame
    assert np.isfinite(frame).all(axis=None)


def test_a_row_of_leverage_one_is_nan_with_a_warning() -> None:
    x, mean = table()
    x["c"] = np.arange(N) == 3
    y = mean + np.random.default_rng(1).normal(size=N)
    with pytest.warns(UserWarning, match="'r3' has leverage 1") as caught:
        frame = frame_of(LinearRegression(), x.astype(float), y)
    assert caught[0].filename == __file__
    assert frame.drop(columns="hat_diag").loc["r3"].isna().all()
    assert np.isfinite(frame.drop(index="r3")).all(axis=None)
    assert frame.loc["r3", "hat_diag"] == pytest.approx(1.0)


def test_a_loss_that_is_no_likelihood_is_refused() -> None:
    x, mean = table()
    with pytest.raises(TypeError, match="need a likelihood, which squared hinge loss is not"):
        frame_of(LinearSVC(**TIGHT), x, (mean > 1).astype(int))
