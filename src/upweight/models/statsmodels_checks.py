"""What results of statsmodels may not have, because neither a column nor a refit knows it."""

from __future__ import annotations

from typing import Any

import numpy as np

STOPPED_BY_ROUNDING = 2  # scipy's flag of a line search that finds no lower value


def require_plain(model: Any, name: str) -> None:
    """Raise ValueError for parts of a model that are not columns of its design matrix."""
    for part in ("offset", "exposure"):
        given = getattr(model, part, None)
        if given is not None and np.any(np.asarray(given) != 0):
            raise ValueError(
                f"expected {name} without {part}, got one, which is no column of the design matrix, so that neither "
                "queries nor refits would have it; write an estimator whose fit and predict take it from a column of "
                "X, and use uw.refittable(estimator, train)"
            )
    if getattr(getattr(model, "sigma", None), "ndim", 0) == 2:
        raise ValueError(f"expected {name} with independent errors, got a covariance of all errors; use WLS or OLS")
    trials = getattr(model, "n_trials", None)
    if trials is not None and np.any(np.asarray(trials) != 1):
        raise ValueError(
            f"expected {name} of single trials, got numbers of successes; pass one row per outcome (0 and 1), and "
            "their numbers as freq_weights"
        )
    if family_name(model) == "Binomial" and not np.isin(model.endog, (0, 1)).all():
        raise ValueError(
            f"expected {name} of outcomes 0 and 1, got shares; pass one row per outcome, and "
            "their numbers as freq_weights"
        )


def require_unconstrained(results: Any, name: str) -> None:
    """Raise ValueError for results of a penalised or constrained fit, which is not known to refits."""
    kind = type(getattr(results, "_results", results)).__name__
    how = "fit_regularized" if "Regularized" in kind or kind.startswith("L1") else None
    how = "fit_constrained" if getattr(results, "constraints", None) is not None else how
    if how is not None:
        raise ValueError(
            f"expected {name} results at the maximum of their likelihood, got those of {how}(), whose penalty or "
            "constraints are no part of the model; use fit(), or an estimator of scikit-learn with a penalty"
        )


def has_converged(results: Any) -> bool:
    """Whether the solver says that it reached its optimum, up to rounding, or says nothing about it."""
    told = getattr(results, "mle_retvals", None)
    if isinstance(told, dict) and "converged" in told:
        return bool(told["converged"]) or told.get("warnflag") == STOPPED_BY_ROUNDING
    return bool(getattr(results, "converged", True))


def family_name(model: Any) -> str | None:
    """The class of the family of a generalised linear model; None for another model."""
    family = getattr(model, "family", None)
    return None if family is None else type(family).__name__
