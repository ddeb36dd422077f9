"""Clones of scikit-learn estimators: the same settings, trained on other examples."""

from __future__ import annotations

from typing import Any


def retrain_clone(estimator: Any, x: Any, y: Any, weights: Any, seed: int | None, **changed: Any) -> Any:
    """A clone of the estimator, fitted to these examples with the changed settings.

    If `weights` is None, all examples have the same weight. The seed is used if the estimator has no seed of its own.
    """
    clone = unfitted_clone(estimator, seed, **changed)
    return clone.fit(x, y) if weights is None else clone.fit(x, y, sample_weight=weights)


def unfitted_clone(estimator: Any, seed: int | None, **changed: Any) -> Any:
    """A clone of the estimator that is not fitted. Changed settings that the estimator does not have are left out."""
    from sklearn.base import clone

    new = clone(estimator)
    settings = new.get_params()
    if settings.get("random_state", 0) is None:
        changed["random_state"] = seed
    return new.set_params(**{name: value for name, value in changed.items() if name in settings})
