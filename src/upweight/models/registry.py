"""explainable: from a fitted estimator to a model that can be asked."""

from __future__ import annotations

import importlib
from typing import Any, Literal

from upweight.core.examples import Examples, require_examples
from upweight.core.weights import require_weight

# Where estimators come from → the file that reads them, imported when one is handed in.
LIBRARIES = ("lightgbm", "xgboost", "catboost")
TREES = ("GradientBoosting", "HistGradientBoosting", "RandomForest", "ExtraTrees")


def explainable(
    estimator: Any,
    train: Examples,
    measure: Any = None,
    smoothing: float = 0.001,
    objective: Literal["sum", "mean"] | None = None,
    *,
    loss: Any = None,
) -> Any:
    """A model to fit attributors on.

    Args:
        estimator: a fitted scikit-learn estimator or a booster of LightGBM, XGBoost or CatBoost, or a Pipeline that
            ends in one. It is never changed.
        train: the examples it was fitted on, as passed to `fit` (weights included).
        measure: what to ask of a query: `Loss()` (default), `Margin()`, `Probability(of=…)`, or a function
            `f(outputs, labels) -> (m,)`.
        smoothing: temperature t of the smoothed hinge for support vector machines (Koh & Liang 2017, §4.2; their t
            is .001 too). Smaller is closer to retraining and slower.
        loss: for a booster trained on an objective of your own, its loss (`upweight.trees.losses.Custom`).

    Raises:
        TypeError: an estimator that is not supported; the message lists those that are.
        ValueError: an unfitted estimator, data it was not fitted on, a penalty without a Hessian (l1), or an
            unknown objective.
    """
    require_examples(train, "train")
    require_weight(train)
    steps = getattr(estimator, "steps", None)
    final = steps[-1][1] if steps else estimator
    reader = _tree_reader(final)
    if reader is None:
        if loss is not None:
            raise TypeError("loss= is for boosters trained on an objective of your own; this estimator is none")
        from upweight.models import sklearn

        return sklearn.read(estimator, train, measure, smoothing, objective)
    from upweight.models.tree_reading import recognised

    if objective is not None:
        raise ValueError("objective= is for models with an l2 on their parameters; trees have none")
    if train.y is None:
        raise ValueError("the training set has no labels; pass Examples(x, y) with the y the model was fitted on")
    before = estimator[:-1] if steps and len(steps) > 1 else None
    return recognised(reader.read(final, train, measure, before, loss), train)


def _tree_reader(final: Any) -> Any:
    """The module that reads this kind of trees, None where it is no trees."""
    library = type(final).__module__.partition(".")[0]
    if library in LIBRARIES:
        return importlib.import_module(f"upweight.models.{library}")
    name = type(final).__name__.removesuffix("Classifier").removesuffix("Regressor")
    return importlib.import_module("upweight.models.sklearn_trees") if name in TREES else None
