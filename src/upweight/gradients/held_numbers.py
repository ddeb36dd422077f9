"""How many captured numbers are in memory at a time."""

from upweight.core.memory import numbers_within

# Captured numbers, in float32:
MAX_HELD_NUMBERS = 1 << 27  # of the side of a product that is held while the other streams past, 512 MB
MAX_STREAMED_NUMBERS = 1 << 24  # of the other side at a time, 64 MB: the held side is read once for each of these
MAX_CACHED_NUMBERS = 1 << 26  # of a whole set of rows that is cached, 256 MB


def held_numbers(most: int) -> int:
    """Captured numbers of the held side of a product."""
    return numbers_within(most, 1 / 4)


def streamed_numbers() -> int:
    """Captured numbers of the other side at a time."""
    return numbers_within(MAX_STREAMED_NUMBERS, 1 / 16)
