"""The finished files of rows: which shard holds which training examples, read and checked one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from upweight.store.encode_rows import decode_block
from upweight.store.encodings.encoding import Layout
from upweight.store.header import Header
from upweight.store.manifest import read_manifests
from upweight.store.quantisation import Precision
from upweight.store.row_blocks import Numbers, RowBlock
from upweight.store.shard_files import Receipt, read_file


@final
class Shard:
    """The arrays of one file."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], layouts: Mapping[str, Layout], precision: Precision) -> None:
        self._arrays, self._layouts, self._precision = arrays, layouts, precision
        self._by_name: dict[str, dict[str, NDArray[Any]]] = {name: {} for name in layouts}
        for key, array in arrays.items():
            self._by_name[key.rsplit("/", 2)[0]][key] = array

    def block(self, name: str, inside: slice | NDArray[np.intp]) -> RowBlock:
        """Rows of one block at these positions."""
        arrays = {key: array[inside] for key, array in self._by_name[name].items()}
        block = decode_block(name, arrays, self._layouts[name], self._precision)
        if self._precision == "float32" and isinstance(block, Numbers):
            return Numbers(block.values)
        return block


@final
class StoredShards:
    """All rows of a finished store; at most one file is in memory at a time.

    Raises ValueError if a file is missing or belongs to another build; when it is read, if it is damaged.
    """

    def __init__(self, folder: Path, header: Header, identity: str) -> None:
        self.folder, self.header = folder, header
        self._receipts = _receipts_of_rows(folder, header, identity)
        self._held: tuple[int, Shard] | None = None

    def parts(
        self, positions: NDArray[np.intp], max_rows: int
    ) -> Iterator[tuple[slice, Shard, slice | NDArray[np.intp]]]:
        """(slice of the positions, their shard, their rows in it), in order and at most `max_rows` at a time."""
        of_shard = positions // self.header.rows_per_shard
        starts = np.flatnonzero(np.diff(of_shard, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(positions)], strict=True):
            number = int(of_shard[start])
            shard = self.shard(number)
            for first in range(start, stop, max_rows):
                where = slice(first, min(first + max_rows, stop))
                inside = positions[where] - number * self.header.rows_per_shard
                is_range = bool((np.diff(inside) == 1).all())
                yield where, shard, slice(int(inside[0]), int(inside[-1]) + 1) if is_range else inside

    def shard(self, number: int) -> Shard:
        """One file, checked against the manifest."""
        held = self._held  # what another thread reads meanwhile may take its place
        if held is None or held[0] != number:
            held = self._held = None
            receipt = self._receipts[number]
            arrays, label = read_file(self.folder, receipt)
            size, facts = self.header.rows_per_shard, label["facts"]
            expected = (number * size, min(size, self.header.rows - number * size))
            if (facts["first"], facts["rows"]) != expected:
                raise ValueError(f"{receipt.file} holds other rows than the header of {self.folder} says")
            held = self._held = number, Shard(arrays, self.header.layouts, self.header.encoding.precision)
        return held[1]


def _receipts_of_rows(folder: Path, header: Header, identity: str) -> list[Receipt]:
    receipts = read_manifests(folder)
    count = header.shards("rows")
    missing = [number for number in range(count) if ("rows", number) not in receipts]
    if missing:
        raise ValueError(
            f"{folder} is not finished: {len(missing)} of {count} files of rows are missing, the first is number "
            f"{missing[0]}; build it again with the same call, which continues"
        )
    rows = [receipts["rows", number] for number in range(count)]
    for receipt in rows:
        if receipt.identity != identity:
            raise ValueError(
                f"{receipt.file} of {folder} belongs to another build: its identity differs from the header's"
            )
        if not (folder / receipt.file).exists():
            raise ValueError(f"{receipt.file} of {folder} is gone; build again, which makes only this file")
    return rows
