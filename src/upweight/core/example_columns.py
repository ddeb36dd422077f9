"""The columns of a data set (labels, ids, names, weights), converted to arrays and checked."""

from __future__ import annotations

from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray


def as_names(what: str, values: Any, n: int) -> NDArray[Any]:
    """One name per example as an array. Raises ValueError if int and str are mixed, instead of converting silently."""
    array = np.asarray(values)
    if array.ndim != 1 or len(array) != n:
        raise ValueError(f"expected `{what}` to have one entry per example ({n}), got an array of shape {array.shape}")
    if array.dtype.kind in "OU" and all(isinstance(v, str) for v in values):
        return array.astype(str)
    if array.dtype == object and all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        array = array.astype(np.int64)  # a nullable column
    if array.dtype.kind not in "iufb" or (array.dtype == np.uint64 and array.max() > np.iinfo(np.int64).max):
        kinds = " and ".join(sorted({type(v).__name__ for v in values}))
        raise ValueError(
            f"expected `{what}` to be all 64-bit int or all str, got {kinds}; e.g. [str(i) for i in {what}]"
        )
    return array


def is_arrow_table(x: Any) -> bool:
    """Whether x is a table of pyarrow."""
    return hasattr(x, "to_pandas") and type(x).__module__.split(".")[0] == "pyarrow"


def as_column(name: str, values: Any, n: int) -> NDArray[Any]:
    """Labels, targets or weights as an array with one entry per example.

    Raises ValueError if the length is wrong or if values are missing, NaN or infinite.
    """
    array = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    if array.ndim == 0 or len(array) != n:
        got = "a single value" if array.ndim == 0 else f"{len(array)} values"
        raise ValueError(f"expected `{name}` to have one entry per example ({n}), got {got}")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype == object and any(map(is_missing, array.ravel())):
        raise ValueError(f"`{name}` has missing values; drop or fill them before explaining the model")
    if array.dtype == object and np.isscalar(array.flat[0]) and len({type(value) for value in array.ravel()}) == 1:
        array = np.array(array.tolist())  # a frame's texts and categories: the same values, in numpy's own kind
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array.reshape(n, -1)).all(axis=1))[0])
        raise ValueError(f"`{name}` is NaN or infinite at position {bad}; drop or fill it before explaining the model")
    return array


def is_missing(value: Any) -> bool:
    """Whether this is a missing value: None, NaN, or the NA of a library."""
    # A comparison with the NA of pandas is neither true nor false, so it is recognised by the name of its class.
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and isnan(value))


def as_weights(values: Any, n: int) -> NDArray[np.float64]:
    """Sample weights as float64 (n,). Raises ValueError if any is negative or all are zero."""
    weights = as_column("weights", values, n).astype(np.float64)
    if weights.ndim != 1:
        raise ValueError(f"expected one sample weight per example, shape ({n},), got shape {weights.shape}")
    if (weights < 0).any() or weights.sum() == 0:
        raise ValueError("expected non-negative sample weights that are not all zero; negative weights have no optimum")
    return weights


def as_ids(values: Any, n: int) -> NDArray[Any]:
    """Ids as an array of int64 or of str. Raises ValueError for any other type."""
    array = as_names("ids", values, n)
    if array.dtype.kind in "fb":
        raise ValueError(f"expected `ids` to be all int or all str, got {array.dtype}; e.g. [str(i) for i in ids]")
    return array.astype(np.int64) if array.dtype.kind in "iu" else array


def as_column_names(names: list[str] | None, x: Any) -> list[str] | None:
    """The names themselves. Raises ValueError if their number is not that of the columns of x."""
    shape = getattr(x, "shape", None)
    if names is not None and shape is not None and len(shape) == 2 and len(names) != shape[1]:
        raise ValueError(f"expected one name per column ({shape[1]}), got {len(names)}")
    return names
