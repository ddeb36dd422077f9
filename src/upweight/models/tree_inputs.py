"""TreeInputs: the way from `Examples.x` to the inputs of a library of trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from upweight.core.input_kinds import columns_of
from upweight.models.input_checks import require_column_count, require_column_names, transform


@dataclass(frozen=True)
class TreeInputs:
    """Applies the steps of a pipeline and checks the columns.

    Attributes:
        steps: the steps before the estimator in a pipeline, or None.
        count: the number of columns that the estimator was fitted on; None if the library does not record it.
        names: the names of these columns; None if the estimator was fitted without names or after other steps.
    """

    steps: Any
    count: int | None
    names: tuple[str, ...] | None

    def __call__(self, x: Any) -> Any:
        """The estimator's inputs. Raises ValueError if they do not fit it."""
        if self.steps is not None and len(self.steps):
            x = transform(self.steps, x)
        given = columns_of(x)
        if self.names is not None and given is not None and _library_names(given) != _library_names(self.names):
            require_column_names(self.names, given)
        require_column_count(x.shape if hasattr(x, "shape") else np.shape(x), self.count)
        return x


def _library_names(names: Any) -> tuple[str, ...]:
    """Column names as libraries write them: with an underscore for every space."""
    return tuple(name.replace(" ", "_") for name in names)
