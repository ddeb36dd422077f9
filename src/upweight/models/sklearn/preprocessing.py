"""Preprocessing: the steps before a pipeline's last one, forwards, and backwards where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from upweight.core.input_kinds import columns_of, is_sparse

Array = NDArray[np.float64]
Back = Callable[[Any, Array], Array]  # (what went into the step, gradients of what came out) -> of what went in


@dataclass(frozen=True)
class PreprocessingSteps:
    """Everything before the last step, with the check that inputs fit it."""

    steps: Pipeline | None
    columns: int | None
    columns_named: tuple[str, ...] | None  # where the model was fitted on a frame without a pipeline

    def __call__(self, x: Any) -> Any:
        """The matrix that enters the last step. Raises ValueError for inputs that do not fit."""
        try:
            matrix = x if not self._all else self.steps.transform(x)  # type: ignore[union-attr]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"the pipeline cannot take these inputs ({error}); pass what goes into its first step, as to fit()"
            ) from error
        given = columns_of(matrix)
        if self.columns_named is not None and given is not None and tuple(given) != self.columns_named:
            raise ValueError(
                f"expected the columns {list(self.columns_named)[:8]} in this order, as in fit(), got {given[:8]}; "
                "reorder them"
            )
        matrix = matrix.to_numpy() if hasattr(matrix, "to_numpy") else matrix
        matrix = matrix.tocsr() if hasattr(matrix, "tocsr") else np.asarray(matrix)
        if self.columns is not None and (matrix.ndim != 2 or matrix.shape[1] != self.columns):
            raise ValueError(
                f"expected inputs with {self.columns} columns, as the model was fitted on, got shape {matrix.shape}; "
                "pass the raw inputs that go into the pipeline's first step"
            )
        return matrix

    @property
    def has_way_back(self) -> bool:
        """Whether every step is affine, selects columns, or brings a `pull_back(x, gradients)` of its own."""
        return all(back is not None for back in self._backs)

    @cached_property
    def names(self) -> tuple[str, ...] | None:
        """Of the columns, where they have any."""
        try:
            return tuple(str(name) for name in self.steps.get_feature_names_out())  # type: ignore[union-attr]
        except (AttributeError, ValueError, NotImplementedError):
            return None  # a step that does not name what it makes

    def raw(self, x: Any) -> NDArray[Any]:
        """The inputs as an array."""
        if is_sparse(x):
            return np.asarray(x.toarray())
        return np.asarray(x.to_numpy() if hasattr(x, "to_numpy") else x)

    def pull_back(self, x: Any, gradients: Array) -> Array:
        """Gradients (k, n, columns) through all steps, last one first: (k, n, …)."""
        entered = []
        for step in self._all:
            entered.append(x)
            x = x if step in ("passthrough", None) else step.transform(x)
        for back, before in zip(reversed(self._backs), reversed(entered), strict=True):
            assert back is not None
            gradients = back(before, gradients)
        return gradients

    @property
    def _all(self) -> list[Any]:
        return [] if self.steps is None else [step for _, step in self.steps.steps]

    @cached_property
    def _backs(self) -> list[Back | None]:
        return [_way_back(step) for step in self._all]


def _way_back(step: Any) -> Back | None:
    """How gradients go back through one step, None where they cannot."""
    if step in ("passthrough", None):
        return lambda x, gradients: gradients
    if hasattr(step, "pull_back"):
        return step.pull_back  # type: ignore[no-any-return]
    if isinstance(step, Pipeline):
        inner = PreprocessingSteps(step, None, None)
        return inner.pull_back if inner.has_way_back else None
    if hasattr(step, "get_support"):
        return lambda x, gradients: _spread(gradients, step.get_support())
    slope = _slope(step)
    if slope is None:
        return None
    return lambda x, gradients: gradients * slope if slope.ndim == 1 else gradients @ slope


def _spread(gradients: Array, kept: NDArray[np.bool_]) -> Array:
    out = np.zeros((*gradients.shape[:-1], len(kept)))
    out[..., kept] = gradients
    return out


def _slope(step: Any) -> Array | None:
    """∂out/∂in of an affine step: (columns,) where each column goes its own way, else (out, in); None for others."""
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
