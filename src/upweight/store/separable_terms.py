"""Separable terms: a matrix of factors as a sum of outer products, with which pairs are multiplied side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
HALVINGS = 8  # of the longer side, and of three quarters of it, at which it may be cut
HEIGHT_HALVINGS = 5  # of the shorter side, likewise, beyond which a part may be left out
COST_OF_A_TERM = 6  # products that adding up one more term takes the time of
CHEAPEST = 1e-150  # price of a product that keeps all, as a share of the sum of squares
STEPS = 40  # to the price at which the terms just keep to the tolerance


def separable_terms(factors: Array, tolerance: float, weights: tuple[Array, Array]) -> tuple[Floats, Floats]:
    """(u (r, p), v (r, q)) with factors ≈ Σ_j u_j v_jᵀ, with as few products as the tolerance allows.

    The longer side is cut where that saves products, and the end of the shorter one is left out where it hardly
    counts; the terms of a part are 0 outside it. An inverse hardly varies among the many directions of small
    eigenvalues, so that one or two terms are enough for them.

    Args:
        factors: (p, q).
        tolerance: share of the factors that may be left out, in the norm with these weights.
        weights: how much the factors of both sides count, above 0, in descending order.
    """
    if factors.shape[0] > factors.shape[1]:
        right, left = separable_terms(factors.T, tolerance, weights[::-1])
        return left, right
    of_left, of_right = weights
    weighted = of_left[:, None] * factors * of_right
    lefts, rights = [], []
    for part, rank in _cheapest(weighted, tolerance):
        u, sizes, v = np.linalg.svd(part.of(weighted), full_matrices=False)
        roots = np.sqrt(sizes[:rank])
        lefts.append(np.zeros((rank, len(of_left))))
        lefts[-1][:, : part.height] = (u[:, :rank] * roots / of_left[: part.height, None]).T
        rights.append(np.zeros((rank, len(of_right))))
        rights[-1][:, part.start : part.stop] = v[:rank] * roots[:, None] / of_right[part.start : part.stop]
    return np.concatenate(lefts).astype(np.float32), np.concatenate(rights).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Part:
    """Some columns of the weighted factors, down to some height, with the squares of its singular values.

    Attributes:
        start: of the columns.
        stop: of the columns.
        height: first row that is left out.
        squares: descending.
        below: sum of squares of the rows that are left out.
    """

    start: int
    stop: int
    height: int
    squares: Array
    below: float

    @property
    def cost(self) -> int:
        """Products that a term takes."""
        return self.height + self.stop - self.start + COST_OF_A_TERM

    def of(self, weighted: Array) -> Array:
        """Its numbers."""
        return weighted[: self.height, self.start : self.stop]

    def rank(self, price: float) -> int:
        """How many terms are worth this price of a product."""
        return int(np.count_nonzero(self.squares > price * self.cost))

    def loss(self, price: float) -> float:
        """What is left out, and the price of the terms that are not."""
        return float(np.minimum(self.squares, price * self.cost).sum()) + self.below

    def left_out(self, price: float) -> float:
        """Sum of squares of what is left out."""
        return float(self.squares[self.rank(price) :].sum()) + self.below


def _cheapest(weighted: Array, tolerance: float) -> list[tuple[_Part, int]]:
    """(part, how many of its terms), for the parts and terms that cost least within the tolerance.

    For any price of a product the best parts follow one from the other; the price is found by bisection.
    """
    parts = list(_parts(weighted))
    total = float((weighted**2).sum())
    cheap, dear = total * CHEAPEST, total  # prices of a product that keep much, and little
    chosen = _chosen(parts, weighted.shape[1], cheap)
    for _ in range(STEPS):
        price = float(np.sqrt(cheap * dear))
        candidate = _chosen(parts, weighted.shape[1], price)
        if sum(part.left_out(price) for part in candidate) <= tolerance**2 * total:
            cheap, chosen = price, candidate
        else:
            dear = price
    ranked = [(part, part.rank(cheap)) for part in chosen]
    return [(part, rank) for part, rank in ranked if rank] or [(chosen[0], 1)]


def _chosen(parts: Sequence[_Part], width: int, price: float) -> list[_Part]:
    """The parts that cover all columns with the least loss at this price."""
    best: dict[int, tuple[float, list[_Part]]] = {0: (0.0, [])}
    for part in parts:  # in ascending order of their ends
        loss = best[part.start][0] + part.loss(price)
        if part.stop not in best or loss < best[part.stop][0]:
            best[part.stop] = loss, [*best[part.start][1], part]
    return best[width][1]


def _parts(weighted: Array) -> Iterator[_Part]:
    """All parts that may be chosen, in ascending order of their ends."""
    height, width = weighted.shape
    cuts = [0, *_places(width, HALVINGS)]
    heights = _places(height, HEIGHT_HALVINGS)
    for stop in cuts[1:]:
        for start in cuts[: cuts.index(stop)]:
            for end in heights:
                numbers = weighted[:end, start:stop]
                gram = numbers @ numbers.T if end <= stop - start else numbers.T @ numbers
                squares = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0)
                yield _Part(start, stop, end, squares, float((weighted[end:, start:stop] ** 2).sum()))


def _places(size: int, halvings: int) -> list[int]:
    """`size`, and what is left of it after every halving, and of three quarters; ascending, without 0."""
    return sorted({part >> halving for part in (size, 3 * size >> 2) for halving in range(halvings)} - {0})
