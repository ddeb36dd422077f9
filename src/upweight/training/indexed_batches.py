"""Batches that say which examples they hold: a data set and a collator that carry a number per example along."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from upweight.core.examples import Id
from upweight.training.micro_batches import terms_of


class IndexedDataset(Dataset[Any]):
    """A map-style data set whose items, dicts, have their position in one more column."""

    def __init__(self, dataset: Any, column: str) -> None:
        self.dataset, self.column = dataset, column

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: Any) -> Any:
        return self._with_position(self.dataset[position], int(position))

    def __getitems__(self, positions: Sequence[int]) -> list[Any]:
        if hasattr(self.dataset, "__getitems__"):
            items = self.dataset.__getitems__(list(positions))
        else:
            items = [self.dataset[position] for position in positions]
        return [self._with_position(item, int(at)) for item, at in zip(items, positions, strict=True)]

    def _with_position(self, item: Any, position: int) -> dict[str, Any]:
        if not isinstance(item, Mapping):
            raise TypeError(
                f"expected examples as dicts of the net's inputs, as transformers' Trainer takes them, got "
                f"{type(item).__name__} for example {position}"
            )
        if self.column in item:
            raise ValueError(
                f"the data set has a column {self.column!r} of its own; pass its name, attach(trainer, "
                f"ids={self.column!r}), or name the column of positions otherwise: TrajectoryCallback(…, ids='number')"
            )
        return {**item, self.column: position}


class IndexedCollator:
    """Collates all but the column of positions, and columns that the net does not take, and adds what it left out.

    The column of positions holds (rows, 3) then: position, and the terms of the loss of every row (`terms_of`).

    Args:
        collate: the collator of the user, which gets a list of dicts.
        column: the name of the column of positions.
        kept: the columns that `collate` gets; None for all.
    """

    def __init__(self, collate: Callable[[list[Any]], Any], column: str, kept: frozenset[str] | None) -> None:
        self.collate, self.column, self.kept = collate, column, kept

    def __call__(self, items: Sequence[Any]) -> Any:
        """The batch of these items, with their positions."""
        if not items or not isinstance(items[0], Mapping):
            return self.collate(list(items))
        positions = [item[self.column] for item in items if self.column in item]
        dropped = {self.column} if self.kept is None else set(items[0]) - self.kept
        batch = self.collate([{name: item[name] for name in item if name not in dropped} for item in items])
        if not positions:  # a batch for evaluation
            return batch
        if len(positions) != len(items):
            raise ValueError(f"expected a position in every example of a batch, got {len(positions)} of {len(items)}")
        # The Trainer takes the labels out of the batch for some losses, so the terms of the loss are counted here.
        batch[self.column] = torch.cat([torch.tensor(positions)[:, None], terms_of(batch, len(positions))], dim=1)
        return batch


def columns_of_forward(net: Any, label_names: Sequence[str]) -> frozenset[str]:
    """The names of the inputs that the Trainer passes to this net when it drops other columns."""
    inside = net.get_base_model() if hasattr(net, "get_base_model") else net  # the net inside peft's wrapper
    return frozenset(inspect.signature(inside.forward).parameters) | {"label", "label_ids", *label_names}


def ids_of_dataset(dataset: Any, ids: str | Sequence[Id] | NDArray[Any] | None) -> NDArray[Any] | None:
    """The id of every position; None if ids are the positions.

    Raises TypeError for a data set without positions, ValueError for ids that repeat or are too few.
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"expected a data set with positions (`len` and `[i]`), got {type(dataset).__name__}: an example of a "
            "stream has no name that a score could be about. Load it with streaming=False, or put an id of your own "
            "into a column that your collator keeps, with remove_unused_columns=False"
        )
    if ids is None:
        return None
    if isinstance(ids, str):
        names = getattr(dataset, "column_names", None)
        if names is not None and ids not in names:
            raise ValueError(f"the data set has no column {ids!r}; its columns are {', '.join(names)}")
        ids = [dataset[position][ids] for position in range(len(dataset))] if names is None else dataset[ids][:]
    array = np.asarray(ids)
    if array.shape != (len(dataset),) or array.dtype.kind not in "iuU" or len(np.unique(array)) < len(array):
        raise ValueError(
            f"expected one id for each of {len(dataset)} examples, unique whole numbers or texts, got {array.dtype} of "
            f"shape {array.shape}"
        )
    return array
