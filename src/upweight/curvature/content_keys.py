"""Random numbers that an example has by its contents: equal for its copies, in any order and any batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.contents import UnidentifiedError
from upweight.core.examples import Examples
from upweight.core.identity import checksum

Keys = NDArray[np.uint64]
_GOLDEN, _FIRST, _SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def content_keys(examples: Examples) -> Keys:
    """One key per example from its input, (n,); from its id if the input has no comparable contents.

    Trailing zeros do not count, so that a sequence has the same key however far it is padded with them.
    """
    try:
        return np.array([checksum(_trimmed(item)) for item in _items(examples)], dtype=np.uint64)
    except UnidentifiedError:
        return np.array([checksum(i) for i in examples.ids.tolist()], dtype=np.uint64)


def random_numbers(keys: Keys, count: int, seed: int) -> Keys:
    """64 random bits for every key and each of `count` numbers, (n, count): splitmix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        state = _mixed(
            _mixed(keys + _GOLDEN * np.uint64(seed + 1))[:, None] + _GOLDEN * np.arange(count, dtype=np.uint64)
        )
    return np.asarray(state)


def random_signs(keys: Keys, count: int, seed: int) -> NDArray[np.int8]:
    """±1 for every key and each of `count` numbers, (n, count)."""
    return (2 * (random_numbers(keys, count, seed) >> np.uint64(63)).astype(np.int8) - 1).astype(np.int8)


def _mixed(state: Any) -> Any:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))


def _items(examples: Examples) -> Any:
    x = examples.x
    if isinstance(x, np.ndarray | Tensor | list | tuple):
        return x
    return (examples.take([i]).x for i in range(len(examples)))


def _trimmed(item: Any) -> Any:
    if isinstance(item, Tensor):
        item = item.detach().cpu()
        return _trimmed(item.numpy()) if item.dtype.is_floating_point is False else _trimmed(item.double().numpy())
    if isinstance(item, np.ndarray) and item.dtype.kind in "biuf":
        flat = item.reshape(-1)
        last = np.flatnonzero(flat[::-1])[:1]
        return flat[: len(flat) - int(last[0])] if len(last) else flat[:0]
    if isinstance(item, dict):
        return {name: _trimmed(value) for name, value in item.items()}
    return item
