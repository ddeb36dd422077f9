"""Batches for a network's loss, made from Examples, on the network's device and in its precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from upweight.core.examples import Examples
from upweight.core.input_kinds import as_array, is_sparse


@dataclass(frozen=True)
class Batch:
    """Inputs and targets of some examples.

    `x` is a tensor (n, …), or a dict, tuple or dataclass of tensors if the inputs have that form; `y` is a tensor or
    None.
    """

    x: Any
    y: Any = None


def collate(examples: Examples) -> Batch:
    """Stack inputs and targets into tensors on the CPU, without changing their precision; integer labels become int64.

    Labels that came as a column (n, 1) are one here too, as in the training loop that they come from.

    Raises:
        TypeError: the inputs are texts or the labels are words, which only the user can turn into numbers.
    """
    x = _stack(examples.x, "inputs")
    if examples.y is None:
        return Batch(x)
    y = _stack(examples.y.astype(np.int64) if examples.y.dtype.kind in "iu" else examples.y, "labels")
    return Batch(x, y[:, None] if examples.is_column else y)  # torch's losses take classes as int64


def _stack(values: Any, what: str) -> Any:
    if isinstance(values, Tensor):
        return values
    if is_sparse(values):
        values = values.toarray()
    if isinstance(values, list | tuple):
        return _stack_items(list(values), what)
    array = as_array(values) if hasattr(values, "to_numpy") else np.asarray(values)
    if array.dtype.kind not in "biufc":
        raise TypeError(
            f"the {what} are {array.dtype}, which a tensor cannot hold; encode them as numbers in the Examples, or "
            "pass TorchModel(..., collate=f) where f(examples) returns the batch that the loss takes"
        )
    native = np.require(array, array.dtype.newbyteorder("="), ["C", "W"])  # a layout that torch can share
    return torch.from_numpy(native)


def _stack_items(items: list[Any], what: str) -> Any:
    """Stack a list with one item per example into tensors, in the structure of the items."""
    first = items[0]
    if isinstance(first, Mapping):
        return {key: _stack_items([item[key] for item in items], what) for key in first}
    if is_dataclass(first) and not isinstance(first, type):
        stacked = {f.name: _stack_items([getattr(i, f.name) for i in items], what) for f in fields(first)}
        return replace(first, **stacked)
    if isinstance(first, tuple):
        return tuple(_stack_items([item[k] for item in items], what) for k in range(len(first)))
    if isinstance(first, Tensor):
        return torch.stack(items)
    return _stack(np.stack([np.asarray(item) for item in items]), what)


def map_tensors(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Apply `change` to every tensor of a nested structure; anything that is not a tensor stays as it is.

    Raises TypeError for an object of unknown structure.
    """
    if isinstance(tree, Tensor):
        return change(tree)
    if tree is None or isinstance(tree, str | bytes | int | float | np.ndarray | np.generic):
        return tree
    if isinstance(tree, dict):
        return {key: map_tensors(change, value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tensors(change, value) for value in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(map_tensors(change, value) for value in tree)
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace(tree, **{f.name: map_tensors(change, getattr(tree, f.name)) for f in fields(tree)})
    raise TypeError(f"cannot look inside a batch of type {type(tree).__name__}; use a dict, tuple or dataclass")


def is_integer_input(batch: Any) -> bool:
    """Whether the inputs of a batch are a tensor of integers, for example of images as bytes."""
    x = batch.x if isinstance(batch, Batch) else batch[0] if isinstance(batch, tuple) and batch else batch
    return isinstance(x, Tensor) and not (x.is_floating_point() or x.is_complex())


def describe(batch: Any) -> str:
    """The types and shapes of the values in a batch, in words."""
    if isinstance(batch, Mapping):
        values = [(str(name), value) for name, value in batch.items()]
    elif isinstance(batch, list | tuple):
        values = [(f"[{place}]", value) for place, value in enumerate(batch)]
    elif is_dataclass(batch):
        values = [(field.name, getattr(batch, field.name)) for field in fields(batch)]
    else:
        values = [("batch", batch)]
    return ", ".join(f"{name} {_describe_value(value)}" for name, value in values) or f"an empty {type(batch).__name__}"


def _describe_value(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} {tuple(value.shape)}"
    return f"({describe(value)})" if isinstance(value, Mapping | list | tuple) else f"a {type(value).__name__}"


def as_constant(tensor: Tensor) -> Tensor:
    """The tensor for use in a graph, which takes none that a caller's `torch.inference_mode()` made."""
    return tensor.clone() if tensor.is_inference() else tensor


def to_device(batch: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Move a batch to a device and its floating-point tensors to this precision; an object with `.to` moves itself."""

    def move(tensor: Tensor) -> Tensor:
        return as_constant(tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device))

    try:
        return map_tensors(move, batch)
    except TypeError:
        return batch.to(device) if hasattr(batch, "to") else batch
