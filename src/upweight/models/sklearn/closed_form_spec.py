"""FormSpec: how one fitted estimator is recomputed, in terms that are the same for all closed forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.weights import sample_weights
from upweight.linear.features import Features
from upweight.linear.losses.loss import LinearLoss
from upweight.models.sklearn.outputs_by_weights import Array, ClosedForm

FormMaker = Callable[[Any, NDArray[Any], Array], ClosedForm]  # (matrix, targets, weights) → form


@dataclass(frozen=True)
class FormSpec:
    """How one fitted estimator is recomputed.

    Attributes:
        loss: what is measured by default.
        make: (matrix (n, columns), targets, sample weights) → the closed form.
        takes_weights: whether `fit` takes sample weights.
        is_sparse: whether a sparse matrix is taken as it is.
        takes_missing: whether the estimator takes missing values.
        keeps_rows: whether a removed example stays in its place with weight 0, because the order of examples matters.
        fixed_settings: settings that the fit chose, which stay.
        notes: warnings for the reader of the scores.
    """

    loss: LinearLoss
    make: FormMaker
    takes_weights: bool = True
    is_sparse: bool = False
    takes_missing: bool = False
    keeps_rows: bool = False
    fixed_settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MakeForm:
    """(matrix, examples) → the closed form on these training examples."""

    spec: FormSpec

    def __call__(self, matrix: Any, train: Examples) -> ClosedForm:
        """The closed form. Raises ValueError for missing values, unless the estimator takes them."""
        assert train.y is not None
        if not self.spec.is_sparse and hasattr(matrix, "toarray"):
            matrix = matrix.toarray()
        if not self.spec.takes_missing:
            Features(matrix if np.ndim(matrix) != 1 else matrix[:, None], 0.0)  # refuses NaN, infinities and text
        classes = self.spec.loss.classes
        targets = np.asarray(train.y, np.float64) if classes is None else self.spec.loss.class_positions(train.y)
        return self.spec.make(matrix, targets, sample_weights(train))
