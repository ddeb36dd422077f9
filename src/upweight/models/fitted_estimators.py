"""Whether an estimator was fitted."""

from __future__ import annotations

from typing import Any

from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted


def not_fitted(name: str) -> ValueError:
    """The error for an estimator of this name that is not fitted."""
    return ValueError(f"this {name} is not fitted; call fit(x, y) on the training set first")


def require_fitted(estimator: Any, name: str) -> None:
    """Raise ValueError if an estimator with scikit-learn's interface is not fitted."""
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise not_fitted(name) from None
