"""Estimators that choose their regulariser by cross-validation: read as what they chose, fitted to everything."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier

# What chooses → what it ends in, the setting that was chosen, and where the choice is kept.
CHOOSING = {
    "LogisticRegressionCV": (LogisticRegression, {"C": "C_", "l1_ratio": "l1_ratio_"}),
    "RidgeCV": (Ridge, {"alpha": "alpha_"}),
    "RidgeClassifierCV": (RidgeClassifier, {"alpha": "alpha_"}),
}


def chosen_estimator(final: Any) -> tuple[Any, tuple[str, ...]]:
    """(the estimator that the choice ended in, with the same parameters; what a reader should know of it).

    Estimators that choose nothing come back as they are.

    Raises:
        ValueError: no one setting for all classes or targets, or coefficients that are means over folds.
    """
    if type(final).__name__ not in CHOOSING or not hasattr(final, "coef_"):
        return final, ()
    kind, places = CHOOSING[type(final).__name__]
    if not getattr(final, "refit", True):
        raise ValueError(
            f"with refit=False the coefficients of {type(final).__name__} are means over folds, no "
            "optimum of anything; use refit=True"
        )
    chosen = {name: _one(final, name, getattr(final, place)) for name, place in places.items()}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    known = kind().get_params()
    plain = kind(**{name: value for name, value in {**final.get_params(), **chosen}.items() if name in known})
    given = final.get_params()
    plain.__dict__.update({name: value for name, value in vars(final).items() if name not in given})
    told = " and ".join(f"{name}={value:.4g}" for name, value in chosen.items() if value)
    return plain, (f"{told} was chosen by cross-validation and is held: nothing that is removed changes the choice.",)


def _one(final: Any, name: str, values: Any) -> float | None:
    found = [value for value in np.ravel(values).tolist() if value is not None]
    if len(set(found)) > 1:
        raise ValueError(
            f"{type(final).__name__} chose another {name} for every class or target ({found[:4]}); fit one "
            f"{CHOOSING[type(final).__name__][0].__name__} with one {name} instead"
        )
    return float(found[0]) if found else None
