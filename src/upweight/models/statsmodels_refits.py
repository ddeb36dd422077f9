"""Models of statsmodels as estimators whose `fit` fits the model anew, from where the given fit ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin

from upweight.core.parameter_measurement import Coefficients
from upweight.linear.separation import is_separated
from upweight.models.statsmodels_checks import family_name, has_converged

MORE_COLUMNS = {"MixedLM": "groups", "PHReg": "status"}  # model → its argument in the last column of the examples
ROBUST = ("HC0", "HC1", "HC2", "HC3")  # covariances that a refit gives without more than the rows
# Refits end at changes of the parameters that are far below the effect of one row, which is about 1/n of their size.
IRLS = {"tol_criterion": "params", "atol": 1e-12, "rtol": 1e-9, "maxiter": 1000}
NEWTON = {"method": "newton", "tol": 1e-10, "maxiter": 200}
BFGS = {"maxiter": 1000, "gtol": 1e-8}  # of the negative binomial model, whose α Newton steps take below 0
LINKS_ONTO_THE_LINE = ("Logit", "Probit", "CLogLog", "LogLog", "Cauchy")
ROBUST_STEPS = 1000  # steps of a robust fit after which it has not converged


class StatsmodelsEstimator(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A model of statsmodels with the interface of scikit-learn; it predicts means (probabilities of 1 for Probit).

    Args:
        model_class: the class of the model, called with (targets, design matrix, **settings).
        settings: further settings of the model.
        fit_settings: settings of its `fit`.
    """

    def __init__(self, model_class: Any, settings: Any = None, fit_settings: Any = None) -> None:
        self.model_class = model_class
        self.settings = settings
        self.fit_settings = fit_settings

    def fit(self, x: Any, y: Any) -> StatsmodelsEstimator:
        """Fit the model to a design matrix and targets."""
        design, more = self._split(np.asarray(x))
        model = self.model_class(np.asarray(y), design, **more, **(self.settings or {}))
        self.results_ = model.fit(**(self.fit_settings or {}))
        _require_converged(self.results_)
        return self

    def predict(self, x: Any) -> NDArray[np.float64]:
        """The predicted means, (m,); of survival the logarithms of hazards, of mixed models means without effects."""
        design, _ = self._split(np.asarray(x))
        if self.model_class.__name__ in MORE_COLUMNS:
            return np.asarray(design @ np.asarray(self.results_.params)[: design.shape[1]], dtype=np.float64)
        return np.asarray(self.results_.predict(design, transform=False), dtype=np.float64)

    @property
    def has_no_loss(self) -> bool:
        """Whether it predicts something else than the targets: hazards, of times."""
        return bool(self.model_class.__name__ == "PHReg")

    def _split(self, x: NDArray[Any]) -> tuple[NDArray[Any], dict[str, Any]]:
        """The design matrix, and the other arguments of the model that stand in the last columns of the inputs."""
        more = MORE_COLUMNS.get(self.model_class.__name__)
        return (x, {}) if more is None else (x[:, :-1], {more: x[:, -1]})

    def coefficients(self, names: Sequence[str] | None) -> Coefficients:
        """The coefficients of the columns of the design matrix, with their p-values."""
        width = self.results_.model.exog.shape[1]
        values, p_values = (
            np.asarray(part, dtype=np.float64) for part in (self.results_.params, self.results_.pvalues)
        )
        columns = tuple(f"x{j}" for j in range(width)) if names is None else tuple(names)[:width]
        return Coefficients(
            values[None, :width], np.zeros(1), columns, (0,), has_intercept=False, p_values=p_values[None, :width]
        )


class WeightedStatsmodelsEstimator(StatsmodelsEstimator):
    """Weighted least squares of statsmodels. Rows of weight 0 are absent, also from the degrees of freedom."""

    def fit(self, x: Any, y: Any, sample_weight: Any = None) -> WeightedStatsmodelsEstimator:
        """Fit the model to a design matrix, targets and weights."""
        weights = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        used = weights > 0
        model = self.model_class(np.asarray(y)[used], np.asarray(x)[used], weights=weights[used])
        self.results_ = model.fit(**(self.fit_settings or {}))
        return self


def fit_settings(results: Any, is_tested: bool) -> dict[str, Any]:
    """The settings of `fit` with which a refit reaches the same kind of optimum; `is_tested` adds those of p-values."""
    name = type(results.model).__name__
    settings: dict[str, Any] = {}
    from_optimum = {"start_params": np.asarray(results.params, dtype=np.float64)}
    if "discrete" in type(results.model).__module__:
        settings |= {"disp": 0, **(BFGS if name == "NegativeBinomial" else {**from_optimum, **NEWTON})}
    if name == "GLM":
        settings |= {**from_optimum, **IRLS}
    if name == "RLM":
        settings |= {part: results.fit_options[part] for part in ("scale_est", "conv")} | {"maxiter": ROBUST_STEPS}
    if name == "MixedLM":
        settings["reml"] = bool(getattr(results, "reml", True))
    robust = getattr(results, "cov_type", None)
    if is_tested and robust in ROBUST:
        settings |= {"cov_type": robust, "use_t": bool(results.use_t)}
    return settings


def _require_converged(results: Any) -> None:
    """Raise ValueError for a fit that did not reach its optimum, whose coefficients mean nothing."""
    name, used = type(results.model).__name__, getattr(results, "fit_history", {}).get("iteration", 0)
    if has_converged(results) and not outcomes_are_separated(results) and not (name == "RLM" and used >= ROBUST_STEPS):
        return
    raise ValueError(
        f"expected a fit of {name} that reaches the maximum of its likelihood, got one that did not on these rows: "
        "they may separate the outcomes or not determine all coefficients, or the link leaves the range of the mean; "
        "use fewer columns, another link, or a penalty (an estimator of scikit-learn)"
    )


def outcomes_are_separated(results: Any) -> bool:
    """Whether the outcomes of a binomial model are separated, with a link onto all real numbers."""
    model = results.model
    if type(model).__name__ == "GLM":
        if family_name(model) != "Binomial" or type(model.family.link).__name__ not in LINKS_ONTO_THE_LINE:
            return False
        used = np.asarray(model.freq_weights) > 0
    elif type(model).__name__ in ("Logit", "Probit"):
        used = np.ones(len(model.endog), dtype=bool)
    else:
        return False
    return is_separated(model.exog[used], model.endog[used], np.asarray(results.predict())[used])
