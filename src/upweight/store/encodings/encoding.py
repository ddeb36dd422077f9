"""The interface of an encoding, and the layout that it gives to one layer or parameter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from upweight.store.quantisation import Precision, bytes_of, scale_bytes

BYTES_OF_AN_ID = 2  # of a row of a table
SEVERAL = 2  # positions: an embedding is looked up several times by an example
MAX_DENSE_NUMBERS = 4096  # of a parameter of no layer (a norm, a lone bias) that are kept; a larger one is left out


@dataclass(frozen=True)
class Layout:
    """The code of one layer in a row, or of one parameter outside of layers.

    Attributes:
        form: "pairs" of factors, plain "numbers", "lookups" (rows of a table), or a "sketch" of random sums.
        left, right: directions of the output side and of the input side; of a parameter of no layer right is 1.
        rank: pairs of a row, or rows of the table.
        count: numbers of a sketch.
        several: whether the layer has several positions, so that its pairs are an approximation.
    """

    form: Literal["pairs", "numbers", "lookups", "sketch"]
    left: int
    right: int
    rank: int = 1
    count: int = 0
    several: bool = False

    def bytes(self, precision: Precision) -> int:
        """Bytes of one row."""
        if self.form == "pairs":
            sides = bytes_of(self.left, precision) + bytes_of(self.right, precision)
            return self.rank * (sides + scale_bytes(precision))
        if self.form == "lookups":
            return self.rank * (BYTES_OF_AN_ID + bytes_of(self.right, precision) + scale_bytes(precision))
        count = self.count if self.form == "sketch" else self.left * self.right
        return bytes_of(count, precision) + scale_bytes(precision)


@dataclass(frozen=True, kw_only=True)
class Encoding(ABC):
    """Which numbers of a training gradient a store keeps, and in how many bits.

    Args:
        precision: "float32", "float16", "int8", "int4" or "int3"; all but the first have one scale for each vector, or
            for each pair of them.
    """

    summary: ClassVar[str] = ""
    keeps_gradients: ClassVar[bool] = False  # rows are the gradients themselves, so that every curvature is possible

    precision: Precision = "int8"

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"expected precision to be one of {', '.join(get_args(Precision))}, got {self.precision!r}"
            )

    @abstractmethod
    def layer(self, outputs: int, inputs: int, positions: int) -> Layout:
        """The layout of a layer with a weight of outputs × inputs, called at this many positions of an example."""

    def parameter(self, size: int) -> Layout | None:
        """The layout of a parameter of no layer with this many numbers; None if it is left out."""
        return Layout("numbers", size, 1) if size <= MAX_DENSE_NUMBERS else None

    def table(self, rows: int, columns: int, lookups: int | None) -> Layout | None:
        """The layout of a parameter of no layer with two axes, such as an embedding; None if it is left out.

        Rows of such a table are not rotated. Those that an example looks up are kept as they are if that takes fewer
        bytes than the layout of a layer, so that no row is cut off.

        Args:
            rows, columns: the shape.
            lookups: how many rows an example looks up; None if its gradient is not made of lookups.
        """
        as_layer = self.layer(rows, columns, SEVERAL)
        if lookups is None or columns == 1 or as_layer.form == "sketch":
            return as_layer
        kept = Layout("lookups", rows, as_layer.right, lookups)
        return min(kept, as_layer, key=lambda layout: layout.bytes(self.precision))

    @property
    def described(self) -> str:
        """The encoding in a few words."""
        return f"{self.summary}, {self.precision}"


def require_directions(name: str, value: int) -> None:
    """Raise ValueError unless this is a whole number above 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"expected {name} of at least 1, got {value!r}; pass a whole number")


def fewest_numbers(outputs: int, inputs: int, rank: int) -> Layout:
    """Pairs of this rank, or the product multiplied out if that takes no more numbers."""
    if rank * (outputs + inputs) >= outputs * inputs:
        return Layout("numbers", outputs, inputs)
    return Layout("pairs", outputs, inputs, rank, several=True)
