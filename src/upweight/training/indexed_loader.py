"""A data loader whose batches say which examples they hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from upweight.core.input_kinds import ids_of_subset, is_subset


def indexed(loader: DataLoader[Any]) -> DataLoader[Any]:
    """The same loader, whose batches are (ids, batch): ids (batch,) are the examples' positions in the data set.

        for ids, (inputs, labels) in uw.indexed(loader):
            …
            trajectory.record(net, optimiser, batch=ids)

    The loader may shuffle and have workers, a collate function and a sampler of its own; it draws the same random
    numbers and gives the same batches. Over a `Subset`, ids are the positions in the data set behind it, or those in
    the subset if it has an item twice, as those of `Examples.from_dataset(subset)`.

    Raises:
        TypeError: anything but a torch `DataLoader`, e.g. one that accelerate has prepared already.
        ValueError: a stream (`IterableDataset`), whose examples have no positions, or a loader whose batches have ids.
    """
    if type(loader) is not DataLoader:
        raise TypeError(
            f"expected a torch.utils.data.DataLoader, got {type(loader).__name__}; pass the plain loader, before it is "
            "wrapped or prepared, or record ids that your batches carry themselves"
        )
    if isinstance(loader.dataset, IterableDataset):
        raise ValueError(
            f"{type(loader.dataset).__name__} is a stream, whose examples have no positions that a score could be "
            "about; use a data set with len() and [i], or let its items carry ids of your own"
        )
    if isinstance(loader.dataset, _IndexedDataset):
        raise ValueError("expected a plain loader, got one whose batches have ids: it was passed to uw.indexed already")
    is_batched = loader.batch_sampler is not None
    batches = {"batch_sampler": loader.batch_sampler} if is_batched else {"batch_size": None, "sampler": loader.sampler}
    return DataLoader(
        _IndexedDataset(loader.dataset),
        collate_fn=_IndexedCollate(loader.collate_fn, is_batched),
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=_WorkerStart(loader.worker_init_fn),
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
        **batches,
    )


class _IndexedDataset(Dataset[Any]):
    """A data set whose items are (id, item)."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.is_behind = ids_of_subset(dataset) is not None  # whether ids are positions behind a subset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: Any) -> Any:
        return self._id(position), self.dataset[position]

    def __getitems__(self, positions: Sequence[Any]) -> list[Any]:
        if callable(getattr(self.dataset, "__getitems__", None)):
            items = self.dataset.__getitems__(list(positions))
            return [(self._id(at), item) for at, item in zip(positions, items, strict=True)]
        return [self[position] for position in positions]

    def _id(self, position: Any) -> Any:
        """The id at a position, or the ids at several (a sequence, a slice, an array); names stay as they are."""
        if isinstance(position, slice):
            position = range(len(self))[position]
        if hasattr(position, "tolist"):
            position = position.tolist()
        return _original(self.dataset, position) if self.is_behind else position


class _WorkerStart:
    """Starts a worker as the plain loader does: its code finds the user's data set in `get_worker_info()`."""

    def __init__(self, start: Callable[[int], None] | None) -> None:
        self.start = start

    def __call__(self, worker: int) -> None:
        info: Any = get_worker_info()
        object.__setattr__(info, "dataset", info.dataset.dataset)  # a plain assignment is forbidden there
        if self.start is not None:
            self.start(worker)


class _IndexedCollate:
    """Collates items, and puts their positions before the batch."""

    def __init__(self, collate: Callable[[Any], Any], is_batched: bool) -> None:
        self.collate, self.is_batched = collate, is_batched

    def __call__(self, items: Any) -> tuple[Tensor, Any]:
        if not self.is_batched:  # the sampler gave the positions of whole batches
            positions, batch = items
            return _as_positions(positions), self.collate(batch)
        positions, batch = zip(*items, strict=True)
        return _as_positions(positions), self.collate(list(batch))


def _as_positions(positions: Any) -> Tensor:
    """(batch,) whole numbers. Raises TypeError if a sampler gives other keys, such as names."""
    try:
        numbers = torch.as_tensor(positions).reshape(-1)
    except (TypeError, ValueError, RuntimeError):
        numbers = torch.empty(0)
    if not len(numbers) or numbers.is_floating_point() or numbers.dtype == torch.bool:
        example = next(iter(positions), None) if isinstance(positions, Sequence) else positions
        raise TypeError(
            f"expected a sampler that gives positions 0, 1, …, got {example!r}: this data set has other keys; let its "
            "items carry ids of your own, and pass these to trajectory.record(batch=…)"
        )
    return numbers


def _original(dataset: Any, position: Any) -> Any:
    """The position, or the positions, in the data set behind a subset (of a subset …)."""
    if isinstance(position, Sequence):
        return [_original(dataset, each) for each in position]
    while is_subset(dataset):
        dataset, position = dataset.dataset, dataset.indices[position]
    return int(position)
