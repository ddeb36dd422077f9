"""LinearSpec: what one estimator says of its training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.objective import Objective
from upweight.linear.families import Family
from upweight.linear.gram_coordinates import Kernel

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LinearSpec:
    """What one estimator says of its training: the loss, the regulariser, the parameters on its own columns."""

    family: Family
    objective: Objective
    coefficients: Array  # (K, columns), internal coding
    intercepts: Array | None  # (K,), None without an intercept
    intercept_value: float = 1.0  # the value of the intercept's column
    penalised_intercept: bool = False
    kernel: Kernel | None = None
    support: tuple[Any, Array] | None = None  # support vectors and their (K, s) coefficients, for kernels
    counts_examples: bool = False  # the mean is over examples, whatever their weights
    hinge: bool = False  # trained on the hinge itself: retrained by the estimator
    notes: tuple[str, ...] = ()


def linear_spec_of(final: Any, objective: Objective, family: Family, **more: Any) -> LinearSpec:
    """The reading of an estimator with `coef_`, `intercept_` and `fit_intercept`."""
    coefficients = np.atleast_2d(np.asarray(final.coef_, dtype=np.float64))
    intercepts = np.broadcast_to(np.asarray(final.intercept_, dtype=np.float64), (len(coefficients),))
    has = bool(final.fit_intercept)
    return LinearSpec(family, objective, coefficients, intercepts if has else None, **more)


def refuse(condition: bool, what: str, instead: str) -> None:
    """Raise ValueError for a training objective without second derivatives, with a way out."""
    if condition:
        raise ValueError(f"{what} has no Hessian to invert; {instead}")
