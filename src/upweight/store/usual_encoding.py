"""What rows keep if nothing else is wanted: the encoding that keeps most in a fiftieth of the bytes of a gradient."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.network import Network
from upweight.store.codes import factors_by_weight
from upweight.store.encodings.coordinates import Coordinates
from upweight.store.encodings.encoding import Encoding
from upweight.store.encodings.logra import LoGra
from upweight.store.encodings.low_rank import LowRank
from upweight.store.plan import layouts_of

SHARE_OF_GRADIENT = 1 / 50  # of the bytes of a gradient in single precision that a row takes at most
ALWAYS_BYTES = 1024  # that a row may take of any net
ALWAYS_BYTES_OF_ALL = 2048  # likewise, if it then keeps all directions in eight bits
BYTES_OF_A_NUMBER = 4
DIRECTIONS_OF_PRODUCTS = 96  # of each side of a layer with several positions, in three bits: 3.5 kB of a layer
BYTES_OF_PRODUCTS = 3460  # of a layer with these directions
MOST_PAIRS, PAIRS = 16, 4  # of a layer with several positions
MOST_DIRECTIONS, FEWEST_DIRECTIONS, STEP = 128, 32, 4  # of pairs


def usual_encoding(network: Network, batch: CapturedBatch) -> Encoding:
    """What rows keep if nothing else is wanted.

    Of layers with one position `Coordinates()`. If some have several, the first of `_candidates` whose rows take a
    fiftieth of the bytes of a gradient (or a kilobyte); the last one if none does. Before them come all directions in
    eight bits, if they take no more than that (or two kilobytes) and no more for each layer than products in 96
    directions do.
    """
    layers = factors_by_weight(batch).values()
    if all(factors.s.shape[1] == 1 for factors in layers):
        return Coordinates()
    most = max(int(SHARE_OF_GRADIENT * BYTES_OF_A_NUMBER * network.size), ALWAYS_BYTES)
    largest_rank = max(min(shape[0], prod(shape[1:]) + 1) for shape in network.shapes.values() if shape)
    in_all_directions = LowRank(rank=largest_rank, precision="int8")
    if _bytes_of_row(network, batch, in_all_directions) <= min(
        max(most, ALWAYS_BYTES_OF_ALL), BYTES_OF_PRODUCTS * len(layers)
    ):
        return in_all_directions
    candidate: Encoding = Coordinates()
    for candidate in _candidates(max(factors.s.shape[2] for factors in layers) > MOST_DIRECTIONS):
        if _bytes_of_row(network, batch, candidate) <= most:
            break
    return candidate


def _candidates(has_many_outputs: bool) -> Iterator[Encoding]:
    """From many bytes to few.

    Products in 96 directions take half the time of pairs of factors. Of a ResNet pairs in 128 directions keep more than
    fewer pairs in all of them, and four pairs in few directions more than fewer pairs in many. Not so of a small
    language model: the output gradients of its head have no small directions among several hundred words.
    """
    yield LoGra(directions=DIRECTIONS_OF_PRODUCTS, precision="int3")
    if has_many_outputs:
        for rank in range(MOST_PAIRS, PAIRS - 1, -1):
            yield LowRank(rank=rank, precision="int4")
    for rank in range(MOST_PAIRS, PAIRS, -1):
        yield Coordinates(rank=rank, directions=MOST_DIRECTIONS)
    for directions in range(MOST_DIRECTIONS, FEWEST_DIRECTIONS - 1, -STEP):
        yield Coordinates(rank=PAIRS, directions=directions)
    for rank in range(PAIRS - 1, 0, -1):
        yield Coordinates(rank=rank, directions=FEWEST_DIRECTIONS)


def _bytes_of_row(network: Network, batch: CapturedBatch, encoding: Encoding) -> int:
    layouts, _ = layouts_of(network, batch, encoding)
    return sum(layout.bytes(encoding.precision) for layout in layouts.values())
