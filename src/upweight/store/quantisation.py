"""Numbers of rows in 32, 16, 8 or 4 bits, with one scale for every vector, so that its largest number is exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Precision = Literal["float32", "float16", "int8", "int4"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
LARGEST = {"int8": 127, "int4": 7}  # of the integers, which are symmetric
SCALE_BYTES = 4
# What separable terms of an inverse may leave out, in the norm of typical gradients. 3 % change neither LDS nor recall.
SEPARATION = {"float32": 1e-7, "float16": 3e-4, "int8": 3e-2, "int4": 3e-2}


def bytes_of(numbers: int, precision: Precision) -> int:
    """Bytes of one vector, with its scale."""
    if precision == "float32":
        return 4 * numbers
    return SCALE_BYTES + {"float16": 2 * numbers, "int8": numbers, "int4": -(-numbers // 2)}[precision]


def quantise(values: Floats, precision: Precision) -> dict[str, NDArray[Any]]:
    """Vectors (…, k) as `numbers` and, unless they stay in float32, one `scale` (…) for each.

    int4 has two numbers in a byte, the first in the low half.
    """
    values = np.ascontiguousarray(values, dtype=np.float32)
    if precision == "float32":
        return {"numbers": values}
    largest = np.abs(values).max(axis=-1, initial=0.0)
    steps = LARGEST.get(precision, 1)
    scale = np.where(largest > 0, largest / np.float32(steps), np.float32(1.0)).astype(np.float32)
    scaled = values / scale[..., None]
    if precision == "float16":
        return {"numbers": scaled.astype(np.float16), "scale": scale}
    whole = np.clip(np.rint(scaled), -steps, steps).astype(np.int8)
    return {"numbers": _pack(whole) if precision == "int4" else whole, "scale": scale}


def unpacked(
    arrays: Mapping[str, NDArray[Any]], count: int, precision: Precision
) -> tuple[NDArray[Any], Floats | None]:
    """(numbers (…, count) in a type that numpy multiplies, scale (…) or None) of quantised vectors."""
    numbers = arrays["numbers"]
    if precision == "int4":
        numbers = _unpack(numbers, count)
    return numbers, arrays.get("scale")


def _pack(whole: NDArray[np.int8]) -> NDArray[np.uint8]:
    odd = whole.shape[-1] % 2
    shifted = (whole + 8).astype(np.uint8)
    if odd:
        shifted = np.concatenate([shifted, np.full((*shifted.shape[:-1], 1), 8, np.uint8)], axis=-1)
    return np.ascontiguousarray(shifted[..., ::2] | (shifted[..., 1::2] << 4))


def _unpack(packed: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    out = np.empty((*packed.shape[:-1], 2 * packed.shape[-1]), np.int8)
    out[..., ::2] = packed & 15
    out[..., 1::2] = packed >> 4
    out -= 8
    return out[..., :count]
