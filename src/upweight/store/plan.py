"""The plan of a store, from a pilot of few examples: what rows keep, their bytes, and the time it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from upweight.core.amounts_in_words import bytes_in_words
from upweight.core.examples import Examples
from upweight.curvature.unfactored_parameters import MAX_ROTATED_AXIS
from upweight.gradients.capture import capture
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.inspection import inspect
from upweight.gradients.network import Network
from upweight.store.codes import factors_by_weight, lookups_of
from upweight.store.encodings.encoding import Encoding, Layout
from upweight.store.header import Header

PILOT_SHARE = 0.01  # of the examples that the pilot captures at most
MAX_PILOT_EXAMPLES = 512
COPIES_OF_GRADIENTS = 3  # captured, rotated and encoded ones
BYTES_OF_A_NUMBER = 4


@dataclass(frozen=True)
class StorePlan:
    """What building a store will take, before it starts. `str()` has it in sentences.

    Attributes:
        rows: training examples.
        bytes_per_row: of one of them.
        bytes: of all rows; the basis comes on top.
        shards: files of rows.
        coverage: share of the trainable numbers that rows are about.
        left_out: names of the parameters that rows do not keep.
        seconds: in which one process makes what is missing, estimated from a pilot; 0 if nothing is.
        encoding: in words.
        layouts: name of the weight or parameter → what a row keeps of it.
        finished: files of rows that are there already.
    """

    rows: int
    bytes_per_row: int
    bytes: int
    shards: int
    coverage: float
    left_out: tuple[str, ...]
    seconds: float
    encoding: str
    layouts: Mapping[str, Layout]
    finished: int = 0

    def __str__(self) -> str:
        lines = [
            f"{self.rows:,} rows of {self.bytes_per_row:,} bytes ({bytes_in_words(self.bytes)}) in {self.shards:,} "
            f"file{'s' * (self.shards != 1)}: {self.encoding}.",
            self._time(),
            f"Rows cover {self.coverage:.1%} of the trainable numbers.",
        ]
        if self.left_out:
            lines.append(f"Left out: {', '.join(self.left_out[:5])}{', …' if len(self.left_out) > 5 else ''}.")
        return "\n".join(lines)

    def _time(self) -> str:
        if not self.seconds:
            return "All files are there: nothing is left to build."
        there = f"{self.finished:,} of {self.shards:,} files of rows are there. " if self.finished else ""
        return f"{there}About {_duration(self.seconds)} to build{' the others' * bool(there)}, for one process."


def plan_of(header: Header, seconds: float, finished: int) -> StorePlan:
    """The plan behind a header, of which this many files of rows are there."""
    return StorePlan(
        rows=header.rows,
        bytes_per_row=header.bytes_per_row,
        bytes=header.rows * header.bytes_per_row,
        shards=header.shards("rows"),
        coverage=header.coverage,
        left_out=tuple(header.left_out),
        seconds=seconds,
        encoding=header.encoding.described,
        layouts=header.layouts,
        finished=finished,
    )


def pilot_size(examples: int) -> int:
    """How many examples a pilot captures."""
    return max(1, min(examples, MAX_PILOT_EXAMPLES, max(2, int(PILOT_SHARE * examples))))


def layouts_of(network: Network, batch: CapturedBatch, encoding: Encoding) -> tuple[dict[str, Layout], list[str]]:
    """(name → layout of every layer and parameter that is kept, names of the parameters that are left out).

    Args:
        network: whose gradients are kept.
        batch: of the pilot, which has the shapes of the layers.
        encoding: that is asked.

    Raises ValueError if the encoding is not for a layer.
    """
    layouts: dict[str, Layout] = {}
    in_layers: set[str] = set()
    for name, factors in factors_by_weight(batch).items():
        inputs = factors.a.shape[2] + (factors.bias is not None)
        try:
            layouts[name] = encoding.layer(factors.s.shape[2], inputs, factors.s.shape[1])
        except ValueError as error:
            raise ValueError(f"the layer of {name!r}: {error}") from error
        in_layers |= {name, *([factors.bias] if factors.bias is not None else [])}
    left_out = []
    for name in network.names:
        if name not in in_layers:
            shape = network.shapes[name]
            if len(shape) == 2 and max(shape) <= MAX_ROTATED_AXIS:
                layout = encoding.table(shape[0], shape[1], lookups_of(batch, name))
            else:
                layout = encoding.parameter(prod(shape))
            if layout is None:
                left_out.append(name)
            else:
                layouts[name] = layout
    return layouts, left_out


def batch_size(network: Network, train: Examples, memory: int | None = None) -> int:
    """Examples of one pass for rows, whose gradients take at most this many bytes.

    Raises ValueError if those of one example take more.
    """
    inspection = inspect(network, "loss", train)
    if memory is None:
        return inspection.batch_size
    of_example = COPIES_OF_GRADIENTS * BYTES_OF_A_NUMBER * max(1, inspection.floats)
    if of_example > memory:
        raise ValueError(
            f"the gradient of one example takes about {bytes_in_words(of_example)} while it is encoded, and "
            f"memory={memory:,} has no room for it; give more, or a smaller net"
        )
    return min(inspection.batch_size, memory // of_example)


def captured_pilot(network: Network, train: Examples) -> CapturedBatch:
    """The gradients of the pilot, or of as many of its examples as fit into one pass.

    They are the first example and others at equal distances, since the first ones may all be short.
    """
    inspection = inspect(network, "loss", train)
    count = min(pilot_size(len(train)), inspection.batch_size)
    return capture(network, "loss", train.take(np.arange(count) * len(train) // count), inspection)


def _duration(seconds: float) -> str:
    if seconds < 1.5:
        return "a second"
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
