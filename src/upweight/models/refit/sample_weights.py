"""How example weights reach the `fit` of an estimator: as sample weights, as copies of rows, or by leaving rows out."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.input_kinds import take_rows
from upweight.models.pipeline import last_step
from upweight.models.refit.seeds import seeded_clone, seeded_globally

Array = NDArray[np.float64]
KEYWORD = "sample_weight"


def weight_keyword(estimator: Any) -> str | None:
    """The keyword by which `fit` takes sample weights; None if it, or an estimator inside it, takes none."""
    from sklearn.utils.validation import has_fit_parameter

    final = last_step(estimator)
    if final is not estimator:
        inner = weight_keyword(final)
        return None if inner is None else f"{estimator.steps[-1][0]}__{inner}"
    parts = _estimators_inside(estimator)
    if any(weight_keyword(part) is None for part in parts):
        return None
    if hasattr(estimator, "refit") and parts:  # a search hands keywords of fit on to the estimator inside
        return weight_keyword(parts[0])
    if any(weight_keyword(part) != KEYWORD for part in parts):
        return None
    hands_on = bool(estimator.get_params(deep=False).get("estimators")) and _takes_any_keyword(estimator.fit)
    return KEYWORD if hands_on or has_fit_parameter(estimator, KEYWORD) else None


def _takes_any_keyword(fit: Any) -> bool:
    return any(part.kind is part.VAR_KEYWORD for part in inspect.signature(fit).parameters.values())


def _estimators_inside(estimator: Any) -> list[Any]:
    """The estimators among the settings that are trained on the examples."""
    settings = estimator.get_params(deep=False)
    single = [settings.get(name) for name in ("estimator", "base_estimator", "regressor", "final_estimator")]
    listed = [pair[1] for pair in settings.get("estimators") or [] if isinstance(pair, tuple) and len(pair) > 1]
    return [part for part in [*single, *listed] if hasattr(part, "fit") and hasattr(part, "get_params")]


def fit_clone(estimator: Any, train: Examples, weights: Array, seed: int) -> tuple[Any, list[str]]:
    """A clone of the estimator, fitted with these weights (n,) times the examples' own, and what `fit` warned of.

    Examples of weight 0 are left out. Other weights than 1 are sample weights. If `fit` takes none, and all weights are
    whole numbers, they are copies of rows.

    Raises:
        ValueError: `fit` fails on these examples, or takes no sample weights and they are not whole numbers.
    """
    rows = np.flatnonzero(weights)
    total = weights[rows] * (1.0 if train.weights is None else train.weights[rows])
    rows, total = rows[total > 0], total[total > 0]
    keywords: dict[str, Any] = {}
    if train.weights is not None or (total != 1).any():
        keyword = weight_keyword(estimator)
        if keyword is not None:
            keywords[keyword] = total
        elif (total == np.round(total)).all():
            rows = np.repeat(rows, total.astype(np.intp))
        else:
            raise ValueError(
                f"expected whole numbers as weights, since fit of this {type(last_step(estimator)).__name__} takes no "
                f"sample weights, got e.g. {total[total != np.round(total)][0]:.4g}; remove or copy examples instead"
            )
    given = train.with_column()
    x, y = take_rows(given.x, rows), None if given.y is None else given.y[rows]
    clone = seeded_clone(estimator, seed)
    with warnings.catch_warnings(record=True) as caught, seeded_globally(seed):
        warnings.simplefilter("always")
        try:
            fitted = clone.fit(x, y, **keywords)
        except Exception as error:  # an estimator may raise anything
            raise ValueError(
                f"this {type(last_step(estimator)).__name__} cannot be trained on {len(rows):,} of the examples: "
                f"{type(error).__name__}: {error}"
            ) from error
    return fitted, list(dict.fromkeys(str(warning.message).splitlines()[0] for warning in caught))
