"""Positions of rows of gradients in the training set of an objective, whose products are known already."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.examples import Examples
from upweight.core.rows import Rows
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.captured_rows import CapturedRows


def training_positions(summed: SummedObjective, rows: Rows) -> NDArray[np.intp] | None:
    """Positions of these rows in the training set; None unless they are loss gradients of the same examples.

    Rows of weight 0 are not used in any product, so their position has no meaning.
    """
    if (
        not isinstance(rows, CapturedRows)
        or rows.quantity != "loss"
        or rows.slopes is not None
        or rows.network is not summed.network
    ):
        return None
    whole, positions = rows.origin
    if whole is summed.train:
        return positions
    return _positions_in(summed.train, rows)


def _positions_in(train: Examples, rows: CapturedRows) -> NDArray[np.intp] | None:
    """Positions in `train` of the examples of these rows, 0 for rows of weight 0; None if the examples differ.

    Equal ids are not enough, since the ids of queries may also be 0, 1, 2, …
    """
    counted = np.flatnonzero(rows.weights)
    examples = rows.examples if len(counted) == len(rows) else rows.examples.take(counted)
    positions = np.zeros(len(rows), dtype=np.intp)
    try:
        positions[counted] = train.positions(examples.ids)
    except KeyError:
        return None
    return positions if not len(counted) or _have_same_arrays(train.take(positions[counted]), examples) else None


def _have_same_arrays(left: Examples, right: Examples) -> bool:
    """Whether two sets of examples with the same ids hold the same arrays."""
    for a, b in ((left.x, right.x), (left.y, right.y)):
        if a is None and b is None:
            continue
        if not (isinstance(a, np.ndarray | Tensor) and isinstance(b, type(a)) and a.shape == b.shape):
            return False
        if not np.array_equal(np.asarray(a), np.asarray(b)):
            return False
    return True
