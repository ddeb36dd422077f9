"""Linear surrogates: a weighted ridge regression of a model's outputs on a few interpretable features, as in LIME."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import require_count
from upweight.core.choices import require_choice

Array = NDArray[np.float64]
Selection = Literal["auto", "forward", "largest", "all"]
RIDGE = 1.0  # of the surrogate
SELECTION_RIDGE = 0.01  # of the fit on all features, by which the largest are chosen
MAX_FORWARD = 6  # features up to which "auto" selects forward
OUTPUT_ROUNDING = 1e-15  # difference between outputs, as a share of the largest, that is rounding
NEGLIGIBLE = 1e-12  # share of a feature's variance that the chosen ones leave, below which it adds nothing


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Neighbours of a query in interpretable features. The first one is the query itself.

    Attributes:
        rows: the features, (m, d).
        outputs: the outputs of the model for each neighbour, (m,).
        weights: how much each neighbour counts, (m,).
        names: of the features, (d,).

    Raises:
        ValueError: lengths disagree, numbers are not finite, or no weight is above 0.
    """

    rows: Array
    outputs: Array
    weights: Array
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        shapes = [np.shape(part) for part in (self.rows, self.outputs, self.weights)]
        m = len(self.outputs)
        if shapes != [(m, len(self.names)), (m,), (m,)]:
            raise ValueError(
                "expected rows (m, d), outputs (m,), weights (m,) and d names, got shapes "
                f"{', '.join(map(str, shapes))} and {len(self.names)} names"
            )
        for name in ("rows", "outputs", "weights"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"expected finite {name} of the neighbours, got NaN or infinite ones")
        if (self.weights < 0).any() or not self.weights.any():
            raise ValueError("expected weights of the neighbours that are not negative and not all zero")


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A linear model of a few interpretable features that imitates a model near a query.

    Attributes:
        names: of all features, (d,).
        features: positions of those that were chosen, (k,), the largest coefficient first.
        coefficients: of these, (k,), in the unit of the output.
        intercept: in the unit of the output.
        r2: the weighted R² on the neighbours that it was fitted to.
    """

    names: tuple[str, ...]
    features: NDArray[np.intp]
    coefficients: Array
    intercept: float
    r2: float

    @property
    def effects(self) -> dict[str, float]:
        """Name of a chosen feature → its coefficient, the largest first."""
        named = [self.names[j] for j in self.features.tolist()]
        return dict(zip(named, self.coefficients.tolist(), strict=True))

    def predict(self, rows: Array) -> Array:
        """The surrogate's outputs for neighbours with these features (m, d): (m,)."""
        return np.asarray(self.intercept + rows[:, self.features] @ self.coefficients)


def fit_surrogate(neighbourhood: Neighbourhood, features: int = 10, selection: Selection = "auto") -> Surrogate:
    """Fit a linear surrogate to a neighbourhood: LIME (Ribeiro, Singh & Guestrin 2016) on given neighbours.

    A ridge regression (α = 1, with intercept) on the chosen features, with the weights of the neighbours.

    Args:
        neighbourhood: the neighbours, the query first.
        features: how many features to choose.
        selection: "forward" takes the feature that raises the weighted R² of least squares most, one by one; "largest"
            those with the largest |coefficient × value of the query| in a ridge regression (α = 0.01) on all; "auto" is
            forward for at most 6 features and largest for more, as in LIME; "all" takes all.

    Raises:
        ValueError: `features` below 1, or another selection.
    """
    from sklearn.linear_model import Ridge

    require_count("features", features)
    chosen = _selected(neighbourhood, features, selection)
    rows, outputs, weights = neighbourhood.rows[:, chosen], neighbourhood.outputs, neighbourhood.weights
    ridge = Ridge(alpha=RIDGE).fit(rows, outputs, sample_weight=weights)
    order = np.argsort(-np.abs(ridge.coef_), kind="stable")
    return Surrogate(
        names=neighbourhood.names,
        features=chosen[order],
        coefficients=np.asarray(ridge.coef_[order], dtype=np.float64),
        intercept=float(ridge.intercept_),
        r2=weighted_r2(outputs, ridge.predict(rows), weights),
    )


def weighted_r2(outputs: Array, predictions: Array, weights: Array) -> float:
    """1 − Σ w (f − g)² / Σ w (f − mean f)²; NaN for constant outputs."""
    if is_constant(outputs):
        return float("nan")
    variation = float(weights @ (outputs - np.average(outputs, weights=weights)) ** 2)
    return 1.0 - float(weights @ (outputs - predictions) ** 2) / variation


def is_constant(outputs: Array) -> bool:
    """Whether outputs are the same to fifteen digits."""
    return bool(np.ptp(outputs) <= OUTPUT_ROUNDING * np.abs(outputs).max())


def _selected(neighbourhood: Neighbourhood, features: int, selection: Selection) -> NDArray[np.intp]:
    d = len(neighbourhood.names)
    require_choice("selection", selection, "auto", "forward", "largest", "all")
    if selection == "all":
        return np.arange(d)
    if selection == "forward" or (selection == "auto" and features <= MAX_FORWARD):
        return _forward(neighbourhood, min(features, d))
    return _largest(neighbourhood, features)


def _forward(neighbourhood: Neighbourhood, features: int) -> NDArray[np.intp]:
    """Greedy least squares: a pivoted Cholesky factorisation of the weighted covariance, a column at a time."""
    weights = neighbourhood.weights / neighbourhood.weights.sum()
    roots = np.sqrt(weights)
    rows = roots[:, None] * (neighbourhood.rows - weights @ neighbourhood.rows)
    outputs = roots * (neighbourhood.outputs - weights @ neighbourhood.outputs)
    variances, covariances = (rows**2).sum(axis=0), rows.T @ outputs
    if is_constant(neighbourhood.outputs):
        covariances[:] = 0.0
    residual, factors, chosen = variances.copy(), list[Array](), list[int]()
    for _ in range(features):
        independent = residual > NEGLIGIBLE * variances
        gains = np.where(independent, covariances**2 / np.where(independent, residual, 1.0), 0.0)
        gains[chosen] = -np.inf
        i = int(gains.argmax())
        chosen.append(i)
        if not independent[i]:
            continue
        column = rows.T @ rows[:, i]
        for factor in factors:
            column = column - factor[i] * factor
        column /= np.sqrt(residual[i])
        factors.append(column)
        covariances = covariances - covariances[i] / np.sqrt(residual[i]) * column
        residual = np.maximum(residual - column**2, 0.0)
    return np.array(chosen, dtype=np.intp)


def _largest(neighbourhood: Neighbourhood, features: int) -> NDArray[np.intp]:
    from sklearn.linear_model import Ridge

    ridge = Ridge(alpha=SELECTION_RIDGE)
    ridge.fit(neighbourhood.rows, neighbourhood.outputs, sample_weight=neighbourhood.weights)
    sizes = np.abs(ridge.coef_ * neighbourhood.rows[0])
    return np.asarray(np.argsort(-sizes, kind="stable")[:features])
