"""Numbers of rows in 32, 16, 8, 4 or 3 bits, with one scale for every vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Precision = Literal["float32", "float16", "int8", "int4", "int3"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
LARGEST = {"int8": 127, "int4": 7, "int3": 3}  # of the integers, which are symmetric
SCALE_BYTES = 4
# What separable terms of an inverse may leave out, in the norm of typical gradients.
SEPARATION = {"float32": 1e-7, "float16": 3e-4, "int8": 3e-3, "int4": 3e-2, "int3": 1e-2}
CUTS = (1.0, 0.8, 0.7, 0.6, 0.5, 0.4)  # shares of the largest number that may be the largest in three bits


def bytes_of(numbers: int, precision: Precision) -> int:
    """Bytes of the numbers of one vector, without its scale."""
    sizes = {"float32": 4 * numbers, "float16": 2 * numbers, "int8": numbers}
    return {**sizes, "int4": -(-numbers // 2), "int3": 3 * -(-numbers // 8)}[precision]


def scale_bytes(precision: Precision) -> int:
    """Bytes of the scale of a vector, or of a pair of vectors."""
    return 0 if precision == "float32" else SCALE_BYTES


def quantise(values: Floats, precision: Precision) -> dict[str, NDArray[Any]]:
    """Vectors (…, k) as `numbers` and, unless they stay in float32, one `scale` (…) for each.

    The largest number is exact, in three bits if that leaves the least error. int4 has two numbers in a byte, the first
    in the low half; int3 has eight numbers in three bytes, the first in the lowest bits.
    """
    values = np.ascontiguousarray(values, dtype=np.float32)
    if precision == "float32":
        return {"numbers": values}
    largest = np.abs(values).max(axis=-1, initial=0.0)
    steps = LARGEST.get(precision, 1)
    scale = np.where(largest > 0, largest / np.float32(steps), np.float32(1.0)).astype(np.float32)
    if precision == "int3":
        scale = _with_least_error(values, scale)
    scaled = values / scale[..., None]
    if precision == "float16":
        return {"numbers": scaled.astype(np.float16), "scale": scale}
    whole = np.clip(np.rint(scaled), -steps, steps).astype(np.int8)
    packed = {"int4": _pack, "int3": _pack_three_bits}.get(precision, np.asarray)(whole)
    return {"numbers": packed, "scale": scale}


def unpacked(
    arrays: Mapping[str, NDArray[Any]], count: int, precision: Precision
) -> tuple[NDArray[Any], Floats | None]:
    """(numbers (…, count) in a type that numpy multiplies, scale (…) or None) of quantised vectors."""
    numbers = arrays["numbers"]
    if precision in ("int4", "int3"):
        numbers = (_unpack if precision == "int4" else _unpack_three_bits)(numbers, count)
    return numbers, arrays.get("scale")


def _with_least_error(values: Floats, scale: Floats) -> Floats:
    """The scale of every vector, cut so that rounding in three bits leaves the least squared error."""
    best, least = scale, np.full(scale.shape, np.inf, np.float32)
    for cut in CUTS:
        tried = scale * np.float32(cut)
        scaled = values / tried[..., None]
        scaled -= np.clip(np.rint(scaled), -LARGEST["int3"], LARGEST["int3"])
        error = np.einsum("...k,...k->...", scaled, scaled) * np.float32(cut) ** 2
        best, least = np.where(error < least, tried, best), np.minimum(error, least)
    return best


def _pack_three_bits(whole: NDArray[np.int8]) -> NDArray[np.uint8]:
    missing = -whole.shape[-1] % 8
    shifted = np.pad(whole + 4, [(0, 0)] * (whole.ndim - 1) + [(0, missing)], constant_values=4).astype(np.uint8)
    v = [shifted[..., place::8] for place in range(8)]
    low = v[0] | v[1] << 3 | (v[2] & 3) << 6
    middle = v[2] >> 2 | v[3] << 1 | v[4] << 4 | (v[5] & 1) << 7
    high = v[5] >> 1 | v[6] << 2 | v[7] << 5
    return np.ascontiguousarray(np.stack([low, middle, high], axis=-1).reshape(*whole.shape[:-1], -1))


def _unpack_three_bits(packed: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    low, middle, high = (packed[..., place::3] for place in range(3))
    out = np.empty((*packed.shape[:-1], packed.shape[-1] // 3 * 8), np.int8)
    out[..., ::8], out[..., 1::8] = low & 7, low >> 3 & 7
    out[..., 2::8] = low >> 6 | (middle & 1) << 2
    out[..., 3::8], out[..., 4::8] = middle >> 1 & 7, middle >> 4 & 7
    out[..., 5::8] = middle >> 7 | (high & 3) << 1
    out[..., 6::8], out[..., 7::8] = high >> 2 & 7, high >> 5
    out -= 4
    return out[..., :count]


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
