"""Results of statsmodels as fitted estimators with the interface of scikit-learn, and the examples they come from.

Models that minimise what an estimator of scikit-learn minimises become that estimator with their coefficients. Others
become an estimator whose `fit` fits the model of statsmodels. statsmodels itself is never imported here.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, LogisticRegression, TweedieRegressor

from upweight.core.examples import Examples
from upweight.models.statsmodels_checks import family_name, has_converged, require_plain, require_unconstrained
from upweight.models.statsmodels_refits import (
    MORE_COLUMNS,
    StatsmodelsEstimator,
    WeightedStatsmodelsEstimator,
    fit_settings,
    outcomes_are_separated,
)

TIGHT = {"fit_intercept": False, "tol": 1e-9, "max_iter": 10_000}
TESTED = ("OLS", "WLS", "Logit", "Poisson")  # refitted by statsmodels itself for p-values
POWERS = {"Poisson": 1.0, "Gamma": 2.0, "InverseGaussian": 3.0}  # family with a log link → power of its variance
REFITTED = (
    "Probit",
    "RLM",
    "NegativeBinomial",
    "GLM",
    *MORE_COLUMNS,
)  # refitted by statsmodels itself if there is no estimator
P_TOLERANCE = 1e-4  # absolute difference of p-values up to which a refit has those of the results
PREDICTION_TOLERANCE = 1e-4  # relative difference of predictions up to which an estimator has the results' predictions


def are_results(candidate: Any) -> bool:
    """Whether this is a result of statsmodels, with the model that was fitted."""
    is_of_statsmodels = type(candidate).__module__.partition(".")[0] == "statsmodels"
    return is_of_statsmodels and hasattr(candidate, "params") and hasattr(candidate, "model")


def examples_of(results: Any) -> Examples:
    """The rows of the design matrix that results of statsmodels were fitted on, with targets, names and weights.

    Queries are rows of a design matrix with the same columns. Row labels of a data frame are the ids, if each is there
    once.

    Raises TypeError for anything but results of statsmodels.
    """
    if not are_results(results):
        raise TypeError(f"expected results of statsmodels, as model.fit() returns them, got {type(results).__name__}")
    model = results.model
    labels = getattr(model.data, "row_labels", None)
    ids = None if labels is None else np.asarray(labels)
    if ids is not None and (ids.dtype.kind not in "iuUO" or len(set(ids.tolist())) < len(ids)):
        ids = None
    y = np.asarray(model.endog)
    is_whole = type(model).__name__ in ("Logit", "Probit", "MNLogit") or family_name(model) == "Binomial"
    y = y.astype(np.int64) if is_whole and (y == np.round(y)).all() else y
    names, x = list(model.exog_names)[: model.exog.shape[1]], np.asarray(model.exog)
    more = MORE_COLUMNS.get(type(model).__name__)
    if more is not None:
        x, names = np.column_stack([x, _last_column(model, more)]), [*names, more]
    return Examples(x, y, ids=ids, names=names, weights=_weights(model))


def _last_column(model: Any, name: str) -> NDArray[np.float64]:
    """The groups of a mixed model, as numbers, or the status of survival. Raises ValueError for parts beyond these."""
    if name == "status":
        if getattr(model, "entry", None) is not None:
            raise ValueError("expected PHReg without entry times, got some, which belong to no column")
        if getattr(model, "surv", None) is not None and getattr(model.surv, "nstrat", 1) > 1:
            raise ValueError("expected PHReg without strata, got some, which belong to no column; fit without them")
        return np.asarray(model.status, dtype=np.float64)
    if model.exog_re.shape[1] != 1 or not (np.asarray(model.exog_re) == 1).all() or getattr(model, "k_vc", 0):
        raise ValueError(
            "expected MixedLM with a random intercept of each group, got other random effects; write an estimator with "
            "fit and predict, and use uw.refittable"
        )
    return np.unique(np.asarray(model.groups), return_inverse=True)[1].astype(np.float64)


def require_design(results: Any, train: Examples) -> None:
    """Raise ValueError for examples with other columns than the design matrix, such as the frame of a formula."""
    design = examples_of(results)
    shape = np.shape(train.x)
    if len(shape) != 2 or shape[1] != np.shape(design.x)[1]:
        raise ValueError(
            f"expected the rows of the design matrix, with the columns {', '.join(design.names or ())}, got inputs "
            f"of shape {shape}; pass train=uw.examples_of(results), and queries with the same columns"
        )


def as_estimator(results: Any, is_refitted: bool = False) -> tuple[Any, tuple[str, ...]]:
    """Results of statsmodels as a fitted estimator, and a note for the reader of scores.

    Raises:
        ValueError: there is an offset or exposure, an error covariance, trials, shares, a penalty or constraints, or
            predictions that differ.
        TypeError: results of another model.
    """
    model, name = results.model, type(results.model).__name__
    require_plain(model, name)
    require_unconstrained(results, name)
    train = examples_of(results)
    estimator = None if is_refitted else _counterpart(model, name)
    if estimator is None:
        return _refitted(results, train, name, is_refitted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the coefficients are replaced
        estimator.fit(train.x, train.y, sample_weight=train.weights)
    _take_coefficients(estimator, np.asarray(results.params, dtype=np.float64))
    if not has_converged(results) and hasattr(estimator, "max_iter"):
        estimator.n_iter_ = estimator.max_iter  # its solver did not stop by itself
    mean = estimator.predict_proba(train.x) if hasattr(estimator, "predict_proba") else estimator.predict(train.x)
    expected = np.asarray(results.predict(model.exog, transform=False))  # of a formula, these are its columns
    mean = mean[:, 1] if expected.ndim == 1 and mean.ndim == 2 else mean
    if not np.allclose(
        mean, expected, rtol=PREDICTION_TOLERANCE, atol=PREDICTION_TOLERANCE * float(np.abs(expected).max())
    ):
        raise ValueError(
            f"expected {name} results at the maximum of their likelihood, got predictions that {name} without further "
            "options does not give; fit it with fit(), without regularisation or constraints"
        )
    kind = type(estimator).__name__
    return estimator, (f"The {name} results of statsmodels are explained as a {kind} with their coefficients.",)


def _counterpart(model: Any, name: str) -> Any:
    """The unfitted estimator of scikit-learn that minimises the same; None if there is none."""
    link = type(getattr(getattr(model, "family", None), "link", None)).__name__
    family = family_name(model) if name == "GLM" else None
    if name in ("OLS", "WLS", "GLS") or (family == "Gaussian" and link == "Identity"):
        return LinearRegression(fit_intercept=False)
    if name in ("Logit", "MNLogit") or (family == "Binomial" and link == "Logit"):
        return LogisticRegression(C=np.inf, **TIGHT)
    family = "Poisson" if name == "Poisson" else family
    power = model.family.var_power if family == "Tweedie" else POWERS.get(str(family))
    if power is not None and (link == "Log" or name == "Poisson"):
        return TweedieRegressor(power=float(power), alpha=0.0, link="log", **TIGHT)
    return None


def _take_coefficients(estimator: Any, parameters: NDArray[np.float64]) -> None:
    """Replace the coefficients of a fitted estimator by those of the results."""
    if parameters.ndim == 2 and parameters.shape[1] > 1:  # MNLogit: the first class has no parameters
        parameters = np.vstack([np.zeros(len(parameters)), parameters.T])
    estimator.coef_ = parameters.reshape(estimator.coef_.shape)
    estimator.intercept_ = np.zeros_like(estimator.intercept_)


def _weights(model: Any) -> NDArray[np.float64] | None:
    """Weights of the rows in the likelihood; None if all are 1."""
    weights = np.ones(len(model.endog))
    if type(model).__name__ == "WLS":
        weights = np.asarray(model.weights, dtype=np.float64)
    elif type(model).__name__ == "GLS" and np.ndim(model.sigma) == 1:
        weights = 1.0 / np.asarray(model.sigma, dtype=np.float64)
    for part in ("freq_weights", "var_weights"):
        given = getattr(model, part, None)
        weights = weights if given is None else weights * np.asarray(given, dtype=np.float64)
    return None if (weights == 1).all() else weights


def _refitted(results: Any, train: Examples, name: str, is_tested: bool) -> tuple[Any, tuple[str, ...]]:
    """An estimator that fits the model of statsmodels anew, already fitted."""
    if name not in (*REFITTED, *(TESTED if is_tested else ())):
        raise TypeError(
            f"expected results of OLS, WLS, GLS, RLM, GLM, Logit, Probit, MNLogit, Poisson, NegativeBinomial, "
            f"MixedLM or PHReg, got {name}; wrap it as an estimator with fit and predict, and use uw.refittable"
        )
    is_weighted = name == "WLS"
    if train.weights is not None and not is_weighted:
        raise ValueError(f"expected {name} without weights, got some, which a refit cannot pass on; fit without them")
    if outcomes_are_separated(results):
        raise ValueError(
            f"expected {name} results at the maximum of their likelihood, got outcomes that the columns separate, for "
            "which there is none; use fewer columns, or a penalty (an estimator of scikit-learn)"
        )
    make = WeightedStatsmodelsEstimator if is_weighted else StatsmodelsEstimator
    estimator = make(type(results.model), _settings(results.model, name), fit_settings(results, is_tested))
    if is_tested:
        _require_p_values(clone(estimator), results, train, name)
    estimator.results_ = results
    note = f"{name} of statsmodels is fitted anew by refits; the loss is half the squared error of its mean."
    if name in MORE_COLUMNS:
        note = (
            f"{name} of statsmodels is fitted anew by refits; the last column of the examples holds its "
            f"{MORE_COLUMNS[name]}."
        )
    return estimator, (note,)


def _settings(model: Any, name: str) -> dict[str, Any]:
    """The settings of a model beside its data."""
    keywords = {"GLM": ("family",), "RLM": ("M",), "NegativeBinomial": ("loglike_method",), "PHReg": ("ties",)}
    return {key: getattr(model, key) for key in keywords.get(name, ()) if hasattr(model, key)}


def _require_p_values(estimator: Any, results: Any, train: Examples, name: str) -> None:
    """Raise ValueError if a refit on all rows has other p-values than the results."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were given when the results were made
        weights = {} if train.weights is None else {"sample_weight": train.weights}
        refitted = np.asarray(estimator.fit(train.x, train.y, **weights).results_.pvalues, dtype=np.float64)
    if not np.allclose(refitted, np.asarray(results.pvalues), rtol=0.01, atol=P_TOLERANCE, equal_nan=True):
        raise ValueError(
            f"expected {name} results with p-values that a refit on the same rows has, got others "
            f"(cov_type={getattr(results, 'cov_type', None)!r}); fit with fit(), at most with cov_type HC0 to HC3"
        )
