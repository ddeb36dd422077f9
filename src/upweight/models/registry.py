"""explainable: from a fitted estimator to a model that can be asked."""

from __future__ import annotations

from typing import Any, Literal

from upweight.core.examples import Examples


def explainable(
    estimator: Any,
    train: Examples,
    measure: Any = None,
    smoothing: float = 0.001,
    objective: Literal["sum", "mean"] | None = None,
) -> Any:
    """A model to fit attributors on.

    Args:
        estimator: a fitted scikit-learn estimator, or a Pipeline that ends in one. It is never changed.
        train: the examples it was fitted on, as passed to `fit` (weights included).
        measure: what to ask of a query: `Loss()` (default), `Margin()`, `Probability(of=…)`, or a function
            `f(outputs, labels) -> (m,)`.
        smoothing: temperature t of the smoothed hinge for support vector machines (Koh & Liang 2017, §4.2; their t
            is .001 too). Smaller is closer to retraining and slower.

    Raises:
        TypeError: an estimator that is not supported; the message lists those that are.
        ValueError: an unfitted estimator, data it was not fitted on, a penalty without a Hessian (l1), or an
            unknown objective.
    """
    from upweight.models import sklearn

    return sklearn.read(estimator, train, measure, smoothing, objective)
