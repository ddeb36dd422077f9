"""The plan of a store, from a pilot of few examples: what rows keep, their bytes, and the time it takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch

from upweight.core.amounts_in_words import bytes_in_words
from upweight.core.examples import Examples
from upweight.curvature.label_expectation import draws_per_example, expected_gradients
from upweight.curvature.summed_objective import SummedObjective
from upweight.curvature.unfactored_parameters import MAX_ROTATED_AXIS
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.inspection import capture, inspect
from upweight.gradients.network import Network
from upweight.gradients.outputs import NoOutputsError
from upweight.store.codes import factors_by_weight
from upweight.store.encodings.encoding import Encoding, Layout
from upweight.store.header import Header

PILOT_SHARE = 0.01  # of the examples that the pilot captures at most
MAX_PILOT_EXAMPLES = 512
ENCODING_SHARE = 0.5  # time to encode a batch over the time to capture it, beyond the pilot
PASSES_FOR_FACTORS = 2
COPIES_OF_GRADIENTS = 3  # captured, rotated and encoded ones
BYTES_OF_A_NUMBER = 4
POSITIONS_OF_A_TABLE = 2  # an embedding is looked up several times by an example


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
        seconds: estimate of the whole, from a pilot.
        encoding: in words.
        layouts: name of the weight or parameter → what a row keeps of it.
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

    def __str__(self) -> str:
        lines = [
            f"{self.rows:,} rows of {self.bytes_per_row:,} bytes ({bytes_in_words(self.bytes)}) in {self.shards:,} "
            f"file{'s' * (self.shards != 1)}: {self.encoding}.",
            f"About {_duration(self.seconds)} to build.",
            f"Rows cover {self.coverage:.1%} of the trainable numbers.",
        ]
        if self.left_out:
            lines.append(f"Left out: {', '.join(self.left_out[:5])}{', …' if len(self.left_out) > 5 else ''}.")
        return "\n".join(lines)


def plan_of(header: Header, seconds: float) -> StorePlan:
    """The plan behind a header."""
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
            layout = encoding.parameter(prod(shape))
            if layout is None and len(shape) == 2 and max(shape) <= MAX_ROTATED_AXIS:
                layout = encoding.layer(*shape, POSITIONS_OF_A_TABLE)
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


def estimated_seconds(summed: SummedObjective, train: Examples, sample: int) -> float:
    """Processor seconds of the whole build, from a pilot: passes for the factors of a sample, and one for the rows."""
    network, count = summed.network, pilot_size(len(train))
    pilot = train.take(range(count))
    captured_pilot(network, train)  # the first pass takes longer
    start = time.process_time()
    batch = captured_pilot(network, train)
    for factors in factors_by_weight(batch).values():
        torch.as_tensor(factors.s).sum()
    rows = (time.process_time() - start) / count * len(train) * (1 + ENCODING_SHARE)
    if sample == 0:
        return rows
    start = time.process_time()
    try:
        draws_per_example(summed)
        for _ in expected_gradients(summed, (pilot, summed.weights[:count])):
            pass
    except NoOutputsError:
        return rows
    return rows + PASSES_FOR_FACTORS * (time.process_time() - start) / count * sample


def captured_pilot(network: Network, train: Examples) -> CapturedBatch:
    """The gradients of the pilot, or of as many of its examples as fit into one pass."""
    inspection = inspect(network, "loss", train)
    return capture(network, "loss", train.take(range(min(pilot_size(len(train)), inspection.batch_size))), inspection)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
