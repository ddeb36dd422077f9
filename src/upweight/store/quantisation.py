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
# What may be left out of an inverse in the norm of its weights, and in those of products of rows: rounding changes the
# scores of a query by more, mostly.
SEPARATION = {
    "float32": (1e-7, 1e-7),
    "float16": (1e-4, 1e-4),
    "int8": (5e-3, 1.5e-3),
    "int4": (3.5e-2, 5.4e-2),
    "int3": (2.6e-2, 4e-2),
}
WORDS_AT_A_TIME = 1 << 13  # of 64 bits, so that all steps of decoding find them in the processor's cache
# Steps from 24 bits to eight bytes of three bits each: 12 and 12 bits, four times 6, eight times 3.
HALVES_APART = tuple(
    (np.uint64(shift), np.uint64(mask))
    for shift, mask in ((20, 0x00000FFF00000FFF), (10, 0x003F003F003F003F), (5, 0x0707070707070707))
)
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
    """Eight numbers of three bytes at a time, as the bytes of one word: its halves are moved apart three times."""
    flat = packed.reshape(-1)
    words = np.empty(len(flat) // 3, "<u8")
    moved = np.empty(min(len(words), WORDS_AT_A_TIME), "<u8")
    for start in range(0, len(words), WORDS_AT_A_TIME):
        word = words[start : start + WORDS_AT_A_TIME]
        content = flat[3 * start : 3 * (start + len(word)) + 1]  # three bytes are read as four
        if len(content) == 3 * len(word):
            content = np.append(content, np.uint8(0))
        word[:] = np.ndarray(len(word), "<u4", np.ascontiguousarray(content), 0, (3,))
        for shift, mask in HALVES_APART:
            np.left_shift(word, shift, out=moved[: len(word)])
            np.bitwise_or(word, moved[: len(word)], out=word)
            np.bitwise_and(word, mask, out=word)
    out = words.view(np.int8)
    out -= 4
    return out.reshape(*packed.shape[:-1], packed.shape[-1] // 3 * 8)[..., :count]


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
