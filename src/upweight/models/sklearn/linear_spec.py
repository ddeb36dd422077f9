"""LinearSpec: how one fitted estimator describes its training, in terms that are the same for all linear models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model_reader import UnsupportedSettingsError
from upweight.core.objective import Objective
from upweight.linear.features import Features
from upweight.linear.gram_coordinates import Kernel
from upweight.linear.losses.loss import LinearLoss

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LinearSpec:
    """The loss, the regulariser, and the parameters on the estimator's own columns.

    Attributes:
        family: the loss.
        objective: how losses are put together, and the l2.
        coefficients: (K, columns), for the outputs of `family`.
        intercepts: (K,), None without an intercept.
        intercept_value: the value of the intercept's column.
        penalised_intercept: whether the regulariser includes the intercept.
        kernel: the kernel of a kernel machine.
        support: for a kernel, the support vectors and their coefficients (K, support vectors).
        counts_examples: whether the mean is over examples, whatever their weights.
        column_scale: (columns,) what the columns are multiplied with before the l2, which is then that of every column;
            one of scale 0 has no coefficient. None for ones.
        refit: retrains the estimator itself, as `LinearModel.refit`, if training minimised a loss that is not smooth.
        notes: warnings for the reader of scores.
    """

    family: LinearLoss
    objective: Objective
    coefficients: Array
    intercepts: Array | None
    intercept_value: float = 1.0
    penalised_intercept: bool = False
    kernel: Kernel | None = None
    support: tuple[Any, Array] | None = None
    counts_examples: bool = False
    column_scale: Array | None = None
    refit: Callable[[Features, NDArray[Any], Array], Array] | None = None
    notes: tuple[str, ...] = ()


# (fitted estimator, its input matrix, training set, temperature of the smoothed hinge) → spec
LinearSpecReader = Callable[[Any, Any, Examples, float], LinearSpec]


def linear_spec_of(estimator: Any, objective: Objective, family: LinearLoss, **more: Any) -> LinearSpec:
    """The spec of an estimator with `coef_`, `intercept_` and `fit_intercept`."""
    coefficients = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
    intercepts = np.broadcast_to(np.asarray(estimator.intercept_, dtype=np.float64), (len(coefficients),))
    return LinearSpec(family, objective, coefficients, intercepts if estimator.fit_intercept else None, **more)


def refuse_if(condition: bool, what: str, instead: str) -> None:
    """Raise UnsupportedSettingsError for an objective without second derivatives; the message names another one."""
    if condition:
        raise UnsupportedSettingsError(f"{what} has no Hessian to invert; {instead}")
