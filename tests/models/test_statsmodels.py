"""Results of statsmodels: their data and names, scores that agree with fitting statsmodels anew, and refusals."""

import numpy as np
import pandas as pd
import pytest

import upweight as uw

sm = pytest.importorskip("statsmodels.api")
pytestmark = pytest.mark.filterwarnings("ignore")
RNG = np.random.default_rng(0)
ROWS = 60
X = sm.add_constant(RNG.normal(size=(ROWS, 2)))
MEAN = X @ [0.3, 0.8, -0.4]
Y = MEAN + RNG.normal(size=ROWS)
BINARY = (Y + RNG.normal(size=ROWS) > 0).astype(int)
COUNTS = RNG.poisson(np.exp(MEAN))
CLASSES = np.argmax(np.c_[np.zeros(ROWS), MEAN, -MEAN] + RNG.gumbel(size=(ROWS, 3)), axis=1)
POSITIVE = RNG.gamma(2.0, np.exp(MEAN) / 2)
WEIGHTS = RNG.integers(1, 4, ROWS).astype(float)
GLM, FAMILIES = sm.GLM, sm.families
EXACT = {
    "OLS": lambda y, x: sm.OLS(y, x).fit(),
    "GLS": lambda y, x: sm.GLS(y, x).fit(),
    "GLM Gaussian": lambda y, x: GLM(y, x).fit(),
    "Logit": lambda y, x: sm.Logit(y, x).fit(disp=0, tol=1e-12),
    "GLM Binomial": lambda y, x: GLM(y, x, family=FAMILIES.Binomial()).fit(tol=1e-12),
    "Poisson": lambda y, x: sm.Poisson(y, x).fit(disp=0, tol=1e-12),
    "GLM Gamma": lambda y, x: GLM(y, x, family=FAMILIES.Gamma(FAMILIES.links.Log())).fit(tol=1e-12, maxiter=500),
}
TARGETS = {"Logit": BINARY, "GLM Binomial": BINARY, "Poisson": COUNTS, "GLM Gamma": POSITIVE}
REFITTED = {
    "Probit": lambda y, x: sm.Probit(y, x).fit(disp=0),
    "RLM": lambda y, x: sm.RLM(y, x).fit(),
    "RLM with Huber's scale": lambda y, x: sm.RLM(y, x).fit(scale_est=sm.robust.scale.HuberScale()),
    "NegativeBinomial": lambda y, x: sm.NegativeBinomial(y, x).fit(disp=0),
    "GLM": lambda y, x: GLM(y, x, family=FAMILIES.Poisson(FAMILIES.links.Sqrt())).fit(),
}
REFITTED_TARGETS = {"Probit": BINARY, "NegativeBinomial": COUNTS, "GLM": COUNTS}


def output(results, x, name):
    """What the estimator that stands for the results gives as its output: log-odds, or the mean."""
    return x @ np.asarray(results.params) if name in ("Logit", "GLM Binomial") else np.asarray(results.predict(x))


FORMULAS = {"ols": ("y", Y), "logit": ("z", BINARY), "poisson": ("n", COUNTS), "probit": ("z", BINARY)}


@pytest.mark.parametrize("name", FORMULAS)
def test_results_of_a_formula_are_explained_by_its_design_matrix(name):
    target, y = FORMULAS[name]
    fit = getattr(pytest.importorskip("statsmodels.formula.api"), name)
    frame = pd.DataFrame({"a": X[:, 1], "group": np.arange(ROWS) % 3, target: y})
    results = fit(f"{target} ~ a + C(group)", frame).fit(**({} if name == "ols" else {"disp": 0}))
    train = uw.examples_of(results)
    model = uw.explainable(results, train, measure=lambda outputs, labels: outputs[:, -1])
    outputs = np.asarray(results.predict(frame))
    np.testing.assert_allclose(model.measure(train), np.log(outputs / (1 - outputs)) if name == "logit" else outputs)
    with pytest.raises(ValueError, match=r"Intercept, .*a, got inputs of shape .*examples_of"):
        uw.explainable(results, uw.Examples(frame[["a", "group"]], y))


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", EXACT)
def test_effects_on_a_prediction_are_those_of_fitting_statsmodels_without_the_row(name):
    y = TARGETS.get(name, Y)
    results = EXACT[name](y, X)
    train = uw.examples_of(results)
    model = uw.explainable(results, train, measure=lambda outputs, labels: outputs[:, -1])
    queries = train.take([1, 2])
    scores = uw.LeaveOneOut().fit(model, train).attribute(queries)
    for row in (0, 7):
        without = EXACT[name](np.delete(y, row), np.delete(X, row, axis=0))
        actual = output(results, queries.x, name) - output(without, queries.x, name)
        np.testing.assert_allclose(scores.values[:, row], actual, rtol=1e-4, atol=1e-7)


def test_a_multinomial_logit_has_the_probabilities_of_statsmodels_and_effects_of_its_refits():
    results = sm.MNLogit(CLASSES, X).fit(disp=0, tol=1e-12)
    train = uw.examples_of(results)
    model = uw.explainable(results, train, measure=uw.Probability(of=2))
    queries = train.take([3, 4])
    np.testing.assert_allclose(model.measure(queries), results.predict(queries.x)[:, 2], rtol=1e-6)
    scores = uw.LeaveOneOut().fit(model, train).attribute(queries)
    without = sm.MNLogit(CLASSES[1:], X[1:]).fit(disp=0, tol=1e-12)
    actual = results.predict(queries.x)[:, 2] - without.predict(queries.x)[:, 2]
    np.testing.assert_allclose(scores.values[:, 0], actual, rtol=1e-4, atol=1e-8)


def test_coefficients_are_measured_by_their_names_as_dfbeta_has_them():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=["const", "dose", "age"], index=[f"p{i}" for i in range(ROWS)])
    results = sm.OLS(pd.Series(Y, index=frame.index), frame).fit()
    train = uw.examples_of(results)
    assert train.ids[3] == "p3"
    model = uw.explainable(results, train, measure=uw.Coefficient("dose"))
    scores = uw.LeaveOneOut().fit(model, train).attribute()
    np.testing.assert_allclose(scores.values[0], results.get_influence().dfbeta[:, 1], rtol=1e-6, atol=1e-12)


def test_weights_of_least_squares_are_those_of_the_examples_and_missed_without_them():
    results = sm.WLS(Y, X, weights=WEIGHTS).fit()
    train = uw.examples_of(results)
    np.testing.assert_array_equal(train.weights, WEIGHTS)
    uw.explainable(results, train)
    with pytest.raises(ValueError, match="expected the data that LinearRegression was fitted on"):
        uw.explainable(results, train.replaced(weights=None))


@pytest.mark.parametrize("name", REFITTED)
def test_models_without_a_counterpart_are_fitted_anew_by_statsmodels(name):
    y = REFITTED_TARGETS.get(name, Y)
    results = REFITTED[name](y, X)
    train = uw.examples_of(results)
    model = uw.explainable(results, train)
    assert isinstance(model, uw.Refittable)
    queries = train.take([1, 2])
    scores = uw.ShortlistLeaveOneOut(refits=4, by="loss").fit(model, train).attribute(queries)
    row = int(np.flatnonzero(np.isfinite(scores.values[0]))[0])
    without = REFITTED[name](np.delete(y, row), np.delete(X, row, axis=0))
    losses = [0.5 * (np.asarray(r.predict(queries.x)) - y[[1, 2]]) ** 2 for r in (results, without)]
    np.testing.assert_allclose(scores.values[:, row], losses[1] - losses[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("results", "error", "match"),
    [
        (
            lambda: sm.Poisson(COUNTS, X, exposure=np.full(ROWS, 2.0)).fit(disp=0),
            ValueError,
            "Poisson without exposure",
        ),
        (lambda: sm.GLS(Y, X, sigma=np.eye(ROWS) + 0.1).fit(), ValueError, "covariance of all errors; use WLS"),
        (lambda: sm.Logit(BINARY, X).fit_regularized(disp=0, alpha=5.0), ValueError, "those of fit_regularized"),
        (lambda: sm.OLS(Y, X).fit_regularized(alpha=0.1), ValueError, "those of fit_regularized"),
        (
            lambda: GLM(COUNTS, X, family=FAMILIES.Poisson()).fit_constrained("x1=0.1"),
            ValueError,
            "those of fit_constrained",
        ),
        (lambda: GLM(BINARY * 0.8, X, family=FAMILIES.Binomial()).fit(), ValueError, "0 and 1, got shares"),
        (lambda: sm.OLS(Y, X), TypeError, "expected results of statsmodels, as fit"),
        (lambda: sm.QuantReg(Y, X).fit(), TypeError, "got QuantReg; wrap it as an estimator"),
    ],
)
def test_what_is_no_plain_model_is_refused_in_a_sentence(results, error, match):
    given = results()
    with pytest.raises(error, match=match):
        uw.explainable(given, uw.Examples(X, BINARY if "Binary" in type(given).__name__ else Y))


LOG = FAMILIES.links.Log
WEIGHTED = {
    "Gaussian": (FAMILIES.Gaussian, Y),
    "Binomial": (FAMILIES.Binomial, BINARY),
    "Poisson": (FAMILIES.Poisson, COUNTS),
    "Gamma": (lambda: FAMILIES.Gamma(LOG()), POSITIVE),
    "inverse Gaussian": (lambda: FAMILIES.InverseGaussian(LOG()), POSITIVE),
    "Tweedie": (lambda: FAMILIES.Tweedie(LOG(), var_power=1.5), POSITIVE),
}


@pytest.mark.parametrize("kind", ["freq_weights", "var_weights"])
@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_of_every_family_are_those_of_statsmodels(name, kind):
    """Weights 0 to 3; without a row all its copies go."""
    family, y = WEIGHTED[name]
    weights = np.arange(ROWS) % 4 * (1.0 if kind == "freq_weights" else 0.3)

    def fitted(kept):
        return GLM(y[kept], X[kept], family=family(), **{kind: weights[kept]}).fit(tol=1e-12, maxiter=300)

    everything = np.arange(ROWS)
    results = fitted(everything)
    train = uw.examples_of(results)
    scores = uw.Influence().fit(uw.explainable(results, train, measure=uw.Coefficient("x1")), train).attribute()
    for row in (0, 3, 6):
        truth = results.params[1] - fitted(np.delete(everything, row)).params[1]
        assert scores.values[0, row] == pytest.approx(truth, rel=2e-3, abs=1e-6)


PRECISE = np.linspace(0.5, 2, ROWS)
COUNTED = {
    "WLS": lambda kept: sm.WLS(Y[kept], X[kept], weights=WEIGHTS[kept]).fit(),
    "GLS": lambda kept: sm.GLS(Y[kept], X[kept], sigma=1 / WEIGHTS[kept]).fit(),
    "freq_weights": lambda kept: GLM(Y[kept], X[kept], freq_weights=WEIGHTS[kept]).fit(),
    "var_weights": lambda kept: GLM(Y[kept], X[kept], var_weights=WEIGHTS[kept]).fit(),
    "both": lambda kept: GLM(Y[kept], X[kept], freq_weights=WEIGHTS[kept], var_weights=PRECISE[kept]).fit(),
}


@pytest.mark.parametrize("name", COUNTED)
def test_only_freq_weights_count_observations_in_diagnostics_that_are_those_of_refits(name):
    everything = np.arange(ROWS)
    results = COUNTED[name](everything)
    train = uw.examples_of(results).replaced(ids=[f"row {i}" for i in everything])
    table = uw.Influence().fit(uw.explainable(results, train), train).summary_frame()
    covariance = results.cov_params()
    for row in (0, 7, 20):
        without = COUNTED[name](np.delete(everything, row))
        moved = results.params - without.params
        cook = moved @ np.linalg.solve(covariance, moved) / 3
        assert table["cooks_d"].iloc[row] == pytest.approx(cook, rel=1e-6)
        errors = np.sqrt(np.diag(covariance) * without.scale / results.scale)
        np.testing.assert_allclose(table.filter(like="dfb_").iloc[row], moved / errors, rtol=1e-6)


def test_weights_in_another_order_than_the_rows_of_the_results_are_refused():
    results = sm.WLS(Y, X, weights=WEIGHTS).fit()
    with pytest.raises(ValueError, match=r"WLS results in their order, .*examples_of"):
        uw.explainable(results, uw.examples_of(results).take(np.arange(ROWS)[::-1]))


@pytest.mark.parametrize("scale", [None, "X2", "dev", 2.5])
@pytest.mark.parametrize("name", ["Poisson", "Gamma"])
def test_the_dispersion_is_that_of_the_results(name, scale):
    family, y = WEIGHTED[name]
    results = GLM(y, X, family=family()).fit(tol=1e-12, scale=scale)
    train = uw.examples_of(results)
    fitted = uw.Influence().fit(uw.explainable(results, train), train)
    theirs = results.get_influence(observed=False)
    np.testing.assert_allclose(fitted.summary_frame()["standard_resid"], theirs.resid_studentized, rtol=1e-6)
    np.testing.assert_allclose(fitted.cooks_distance(), theirs.cooks_distance[0], rtol=1e-6)


@pytest.mark.parametrize("kind", ["Probit", pytest.param("GLM", marks=pytest.mark.slow)])
def test_a_refit_without_an_optimum_is_refused(kind):
    """Without row 3 the outcomes are separated, and the likelihood has no maximum."""
    x = sm.add_constant(np.linspace(-1, 1, 30))
    outcomes = (x[:, 1] > 0).astype(int)
    outcomes[3] = 1
    link = FAMILIES.Binomial(FAMILIES.links.Probit())
    results = sm.Probit(outcomes, x).fit(disp=0) if kind == "Probit" else GLM(outcomes, x, family=link).fit()
    train = uw.examples_of(results)
    scores = uw.LeaveOneOut().fit(uw.explainable(results, train), train).attribute(train.take([0]))
    assert np.flatnonzero(np.isnan(scores.values[0])).tolist() == [3]
    assert "reaches the maximum of its likelihood, got one that did not" in scores.diagnostics["warnings"][0]


def test_results_whose_solver_stopped_early_are_refused_as_such():
    results = GLM(COUNTS, X, family=FAMILIES.Poisson()).fit(maxiter=1)
    train = uw.examples_of(results)
    fitted = uw.Influence().fit(uw.explainable(results, train), train)
    with pytest.raises(ValueError, match="raise max_iter or lower tol"):
        fitted.attribute(train.take([0, 1]))


def test_examples_of_anything_but_results_are_refused():
    with pytest.raises(TypeError, match="expected results of statsmodels, as model"):
        uw.examples_of(X)


GROUPS = np.repeat(np.arange(12), ROWS // 12)
TIMES, STATUS = RNG.exponential(np.exp(-MEAN)), (RNG.random(ROWS) < 0.8).astype(int)


def frame(rows):
    """The columns of these rows by name."""
    return {"y": Y[rows], "a": X[rows, 1], "b": X[rows, 2]}


TESTED = {
    "OLS": (lambda rows: sm.OLS(Y[rows], X[rows]).fit(), 1),
    "Logit": (lambda rows: sm.Logit(BINARY[rows], X[rows]).fit(disp=0), 1),
    "RLM": (lambda rows: sm.RLM(Y[rows], X[rows]).fit(), 1),
    "WLS": (lambda rows: sm.WLS(Y[rows], X[rows], weights=WEIGHTS[rows]).fit(), 1),
    "OLS, robust": (lambda rows: sm.OLS(Y[rows], X[rows]).fit(cov_type="HC3"), 1),
    "GLM, robust": (lambda rows: GLM(COUNTS[rows], X[rows], family=FAMILIES.Poisson()).fit(cov_type="HC0"), 1),
    "OLS, formula": (lambda rows: sm.OLS.from_formula("y ~ a + b", frame(rows)).fit(), 1),
    "MixedLM, maximum likelihood": (
        lambda rows: sm.MixedLM(Y[rows] + GROUPS[rows] % 3, X[rows], groups=GROUPS[rows]).fit(reml=False),
        1,
    ),
    "PHReg, ties": (
        lambda rows: sm.PHReg(TIMES[rows].round(1) + 0.1, X[rows][:, 1:], status=STATUS[rows], ties="efron").fit(),
        0,
    ),
    "MixedLM": (lambda rows: sm.MixedLM(Y[rows] + GROUPS[rows] % 3, X[rows], groups=GROUPS[rows]).fit(), 1),
    "PHReg": (lambda rows: sm.PHReg(TIMES[rows], X[rows][:, 1:], status=STATUS[rows]).fit(), 0),
}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", TESTED)
def test_p_values_and_coefficients_of_refits_are_those_of_statsmodels_without_the_row(name):
    fit, column = TESTED[name]
    everything = np.arange(ROWS)
    results, without = fit(everything), fit(np.delete(everything, 7))
    train = uw.examples_of(results)
    measures = [(uw.PValue(column), "pvalues")]
    measures += [(uw.Coefficient(column), "params")] if name.startswith(("MixedLM", "PHReg")) else []
    for measure, attribute in measures:
        model = uw.explainable(results, train, measure=measure)
        few = train.take([0, 7])
        expected = np.asarray(getattr(results, attribute))[column]
        assert model.measure(few)[0] == pytest.approx(expected)
        again = model.retrain(train, (everything != 7).astype(float)).measure(model.parameter_query())
        assert again[0] == pytest.approx(np.asarray(getattr(without, attribute))[column], rel=1e-4, abs=1e-9)
    scores = uw.ShortlistLeaveOneOut(refits=4).fit(model, train).attribute()
    assert scores.values.shape == (1, ROWS)


def test_p_values_that_refits_do_not_have_are_refused():
    clustered = sm.OLS(Y, X).fit(cov_type="cluster", cov_kwds={"groups": GROUPS})
    with pytest.raises(ValueError, match=r"cov_type='cluster'.*HC0 to HC3"):
        uw.explainable(clustered, uw.examples_of(clustered), measure=uw.PValue(1))
    entered = sm.PHReg(TIMES, X[:, 1:], status=STATUS, entry=TIMES / 2).fit()
    with pytest.raises(ValueError, match="without entry times"):
        uw.examples_of(entered)


def test_survival_predicts_hazards_and_has_no_loss_and_other_models_have_no_p_values():
    results = TESTED["PHReg"][0](np.arange(ROWS))
    train = uw.examples_of(results)
    with pytest.raises(ValueError, match="so there is no loss"):
        uw.explainable(results, train)
    model = uw.explainable(results, train, measure=lambda outputs, labels: outputs[:, 0])
    np.testing.assert_allclose(model.measure(train.take([2])), X[[2], 1:] @ results.params)
    from sklearn.linear_model import LinearRegression

    plain = LinearRegression().fit(X, Y)
    with pytest.raises(TypeError, match="a p-value needs results of statsmodels"):
        uw.explainable(plain, uw.Examples(X, Y), measure=uw.PValue(1))
    mixed = sm.MixedLM(Y, X, groups=GROUPS, exog_re=X[:, :2]).fit()
    with pytest.raises(ValueError, match="random intercept of each group"):
        uw.examples_of(mixed)
