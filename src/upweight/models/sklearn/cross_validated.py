"""Estimators that choose their regulariser by cross-validation, read as the estimator with the chosen setting."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import ElasticNet, Lasso, LassoLars, LogisticRegression, Ridge, RidgeClassifier

from upweight.core.model_reader import UnsupportedSettingsError

# Estimator that chooses → (class of the estimator with the choice, {chosen setting: attribute with its value}).
CHOSEN_FORMS = {
    "LogisticRegressionCV": (LogisticRegression, {"C": "C_", "l1_ratio": "l1_ratio_"}),
    "RidgeCV": (Ridge, {"alpha": "alpha_"}),
    "LassoCV": (Lasso, {"alpha": "alpha_"}),
    "LassoLarsCV": (LassoLars, {"alpha": "alpha_"}),
    "ElasticNetCV": (ElasticNet, {"alpha": "alpha_", "l1_ratio": "l1_ratio_"}),
    "RidgeClassifierCV": (RidgeClassifier, {"alpha": "alpha_"}),
}


def chosen_estimator(estimator: Any) -> tuple[Any, tuple[str, ...]]:
    """The fitted estimator with the chosen settings, and warnings for the reader of scores.

    An estimator that chooses nothing comes back as it is.

    Raises:
        ValueError: settings differ between classes or targets, or coefficients are means over folds.
    """
    name = type(estimator).__name__
    if name not in CHOSEN_FORMS or not hasattr(estimator, "coef_"):
        return estimator, ()
    kind, attributes = CHOSEN_FORMS[name]
    if not getattr(estimator, "refit", True):
        raise UnsupportedSettingsError(
            f"expected {name}(refit=True), got refit=False: its coefficients are means over folds, not the optimum "
            "of an objective; fit it with refit=True"
        )
    values = {setting: _chosen_value(estimator, setting, attribute) for setting, attribute in attributes.items()}
    chosen = {setting: value for setting, value in values.items() if value is not None}
    settings, known = estimator.get_params(), kind().get_params()
    plain = kind(**{setting: value for setting, value in {**settings, **chosen}.items() if setting in known})
    plain.__dict__.update(
        {attribute: value for attribute, value in vars(estimator).items() if attribute not in settings}
    )
    choice = " and ".join(f"{setting}={value:.4g}" for setting, value in chosen.items() if value)
    return plain, (f"{choice} was chosen by cross-validation and is held fixed: removals do not change the choice.",)


def _chosen_value(estimator: Any, setting: str, attribute: str) -> float | None:
    """The one value that was chosen for all classes or targets; None if nothing was chosen."""
    values = [value for value in np.ravel(getattr(estimator, attribute)).tolist() if value is not None]
    if len(set(values)) > 1:
        name = type(estimator).__name__
        raise UnsupportedSettingsError(
            f"expected one {setting} for all classes or targets, got {values[:4]} from {name}; fit one "
            f"{CHOSEN_FORMS[name][0].__name__} with one {setting} instead"
        )
    return float(values[0]) if values else None
