"""The steps before the last one of a pipeline: applied to inputs, and differentiated if every step allows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from upweight.core.input_kinds import as_array, columns_of, is_sparse
from upweight.models.input_checks import require_column_count, require_column_names, transform

Array = NDArray[np.float64]
Pullback = Callable[[Any, Array], Array]  # (input of a step, gradients of its output) → gradients of its input


@dataclass(frozen=True)
class PreprocessingSteps:
    """The steps before the last one, and the checks that inputs fit them.

    Attributes:
        steps: the pipeline without its last step, or None.
        columns: the number of columns that the last step was fitted on; None leaves it unchecked.
        columns_named: the names of these columns, if the model was fitted on a table without a pipeline.
    """

    steps: Pipeline | None
    columns: int | None
    columns_named: tuple[str, ...] | None

    def __call__(self, x: Any) -> Any:
        """The matrix that enters the last step. Raises ValueError for inputs that do not fit."""
        matrix = transform(self.steps, x) if self._steps else x
        given = columns_of(matrix)
        if self.columns_named is not None and given is not None:
            require_column_names(self.columns_named, given)
        matrix = matrix.tocsr() if hasattr(matrix, "tocsr") else as_array(matrix)
        if self.columns is not None:
            require_column_count(matrix.shape, self.columns)
        return matrix

    @property
    def has_pullback(self) -> bool:
        """Whether gradients go back through every step: each is affine, selects columns, or has its own `pull_back`."""
        return all(pullback is not None for pullback in self._pullbacks)

    @cached_property
    def names(self) -> tuple[str, ...] | None:
        """The names of the columns that enter the last step; None if they have none."""
        try:
            return tuple(str(name) for name in self.steps.get_feature_names_out())  # type: ignore[union-attr]
        except (AttributeError, TypeError, ValueError, NotImplementedError):  # TypeError: a step that does nothing
            return None

    def raw(self, x: Any) -> NDArray[Any]:
        """The inputs as an array."""
        if is_sparse(x):
            return np.asarray(x.toarray())
        return as_array(x)

    def pull_back(self, x: Any, gradients: Array) -> Array:
        """Gradients (k, n, columns) of the last step's input as gradients of x, (k, n, …)."""
        step_inputs = []
        for step in self._steps:
            step_inputs.append(x)
            x = x if step in ("passthrough", None) else step.transform(x)
        for pullback, step_input in zip(reversed(self._pullbacks), reversed(step_inputs), strict=True):
            assert pullback is not None
            gradients = pullback(step_input, gradients)
        return gradients

    @property
    def _steps(self) -> list[Any]:
        return [] if self.steps is None else [step for _, step in self.steps.steps]

    @cached_property
    def _pullbacks(self) -> list[Pullback | None]:
        return [_pullback_of(step) for step in self._steps]


def _pullback_of(step: Any) -> Pullback | None:
    """How gradients go back through one step; None if they cannot."""
    if step in ("passthrough", None):
        return lambda x, gradients: gradients
    if hasattr(step, "pull_back"):
        return step.pull_back  # type: ignore[no-any-return]
    if isinstance(step, Pipeline):
        inner = PreprocessingSteps(step, None, None)
        return inner.pull_back if inner.has_pullback else None
    if hasattr(step, "get_support"):
        return lambda x, gradients: _spread(gradients, step.get_support())
    slope = _slope(step)
    if slope is None:
        return None
    return lambda x, gradients: gradients * slope if slope.ndim == 1 else gradients @ slope


def _spread(gradients: Array, selected: NDArray[np.bool_]) -> Array:
    """Gradients of the selected columns as gradients of all columns: 0 for the others."""
    out = np.zeros((*gradients.shape[:-1], len(selected)))
    out[..., selected] = gradients
    return out


def _slope(step: Any) -> Array | None:
    """∂output/∂input of an affine step: (columns,) if it scales columns, else (outputs, inputs). None for others."""
    name = type(step).__name__
    if name == "StandardScaler":
        return np.ones(step.n_features_in_) if step.scale_ is None else 1.0 / step.scale_
    if name == "MinMaxScaler" and not step.clip:
        return np.asarray(step.scale_)
    if name == "MaxAbsScaler":
        return np.asarray(1.0 / step.scale_)
    if name == "RobustScaler":
        return np.ones(step.n_features_in_) if step.scale_ is None else 1.0 / step.scale_
    if name in ("PCA", "TruncatedSVD"):
        whitened = np.sqrt(step.explained_variance_)[:, None] if getattr(step, "whiten", False) else 1.0
        return np.asarray(step.components_ / whitened)
    return None
