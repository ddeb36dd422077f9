"""Which examples a recorded step took, with the factors of their losses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.examples import Examples, Id

Batch = list[Id] | list[list[Id]]
"""The ids of the examples of a step, or of every batch that the step accumulated."""


def ids_of_step(step: int, batch: Any) -> Batch:
    """The ids that `record` was given. Raises ValueError for anything else."""
    if isinstance(batch, list | tuple) and batch and all(np.ndim(part) == 1 for part in batch):
        return [_ids_of_batch(step, part) for part in batch]
    return _ids_of_batch(step, batch)


def shares_of_step(step: int, shares: Any, batch: Any) -> list[float]:
    """The factors of the losses that `record` was given. Raises ValueError unless there is one for every example."""
    array, count = np.asarray(shares, dtype=np.float64), None if batch is None else batch_size(ids_of_step(step, batch))
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError(
            f"expected shares of step {step} as one finite number for each example in batch=, got {array.shape} "
            f"for {count} examples"
        )
    checked: list[float] = array.tolist()
    return checked


def flat_ids(batch: Batch) -> list[Id]:
    """The ids of the examples of a step, in the order in which it took them."""
    return [i for part in batch for i in (part if isinstance(part, list) else [part])]


def positions_of(train: Examples, ids: Batch) -> Any:
    """The positions of the examples of a step, or of each of its batches. Raises ValueError for unknown ids."""
    try:
        nested = isinstance(ids[0], list)
        return [train.positions(part) for part in ids] if nested else train.positions(ids)  # type: ignore[arg-type]
    except KeyError as error:
        raise ValueError(
            f"recorded steps took examples that the training set does not have ({error.args[0]}); `record` takes the "
            "ids of `Examples`, which are positions if none are given"
        ) from error


def batch_size(batch: Batch) -> int:
    """The number of examples in a step."""
    return sum(len(part) if isinstance(part, list) else 1 for part in batch)


def encode_batches(batches: Sequence[Batch]) -> Tensor:
    """The ids of the examples of each step as the bytes of a JSON text."""
    return torch.frombuffer(bytearray(json.dumps(batches).encode()), dtype=torch.uint8)


def decode_batches(stored: Tensor) -> list[Batch]:
    """The inverse of `encode_batches`."""
    batches: list[Batch] = json.loads(bytes(stored.numpy()))
    return batches


def decode_shares(shares: Tensor, batches: Tensor) -> list[NDArray[np.float64]]:
    """The shares of the examples of each step, (batch,)."""
    sizes = [batch_size(ids) for ids in decode_batches(batches)]
    return np.split(shares.numpy(), np.cumsum(sizes)[:-1])


def require_batches(batches: Any, steps: int) -> None:
    """Raise ValueError or TypeError unless these are the ids of this many steps."""
    if type(batches) is not list or len(batches) != steps:
        raise ValueError(f"expected the ids of {steps} batches")
    if not all(_are_ids(ids) or (type(ids) is list and all(map(_are_ids, ids))) for ids in batches):
        raise TypeError("expected ids of examples, which are whole numbers or texts")


def _ids_of_batch(step: int, batch: Any) -> list[Id]:
    array = np.asarray(batch)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iuU":
        raise ValueError(
            f"expected ids of examples for the batch of step {step}, whole numbers or texts, got {batch!r}"
        )
    ids: list[Id] = array.tolist()
    return ids


def _are_ids(value: Any) -> bool:
    return type(value) is list and all(type(i) in (int, str) for i in value)
