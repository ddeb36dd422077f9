"""Separable terms: a matrix of factors as a sum of outer products, with which pairs are multiplied side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Counts = NDArray[np.intp]
Terms = tuple[Array, Array]
HALVINGS = 8  # of the longer side, and of three quarters of it, at which it may be cut, and where terms may end
SHORT_HALVINGS = 5  # of the shorter side
LARGE, LARGEST = 256, 1024  # shorter sides above which it is cut at quarters of quarters alone, and not at all
COST_OF_A_TERM = 6  # products that adding up one more term takes the time of
CHEAPEST = 1e-150  # price of a product that keeps all, as a share of the sum of squares
STEPS = 25  # to the price at which the terms just keep to the tolerance
TRIES, MARGIN = 20, 0.8  # at a price that is lower by what its terms leave out too much, or by powers of this
STEPS_BACK = 4  # to the highest such price
SMALLEST = 1e-300


def separable_terms(
    factors: Array, tolerances: Sequence[float], weights: tuple[Array, Array], norms: Sequence[Array] | None = None
) -> tuple[Floats, Floats]:
    """(u (r, p), v (r, q)) with factors ≈ Σ_j u_j v_jᵀ, with as few products as the tolerances allow.

    The longer side is cut where that saves products, and every term ends on both sides where the rest of it hardly
    counts; beyond its ends it is 0. An inverse hardly varies among the many directions of small eigenvalues, so that
    one or two terms are enough for them.

    Args:
        factors: (p, q).
        tolerances: share of the factors that may be left out in each of the norms, below 1.
        weights: how much the factors of both sides count, above 0, in descending order.
        norms: how much each factor counts, (p, q) for each norm; None for the one with the weights.
    """
    if factors.shape[0] > factors.shape[1]:
        turned = None if norms is None else [norm.T for norm in norms]
        right, left = separable_terms(factors.T, tolerances, weights[::-1], turned)
        return left, right
    (of_left, of_right), largest = weights, np.abs(factors).max()
    of_norms = None if norms is None else [norm / np.outer(*weights) for norm in norms]
    weighted = of_left[:, None] * (factors / largest) * of_right
    lefts, rights = _terms(weighted, tolerances, of_norms or [np.ones(factors.shape)])
    root = np.sqrt(largest)
    return (lefts / of_left * root).astype(np.float32), (rights / of_right * root).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Part:
    """Some columns of the weighted factors, and the terms of their singular values, each with the best of its ends.

    Attributes:
        weighted: all factors.
        start: of the columns.
        stop: of the columns.
        ends: heights (h,) and widths (w,) at which a term may end.
    """

    weighted: Array
    start: int
    stop: int
    ends: tuple[Counts, Counts]

    @property
    def numbers(self) -> Array:
        """The columns."""
        return self.weighted[:, self.start : self.stop]

    @cached_property
    def total(self) -> float:
        """Sum of squares."""
        return float((self.numbers**2).sum())

    @cached_property
    def costs(self) -> Array:
        """Products that a term takes, (h·w,)."""
        heights, widths = self.ends
        return np.asarray(heights[:, None] + widths + COST_OF_A_TERM).ravel()

    @cached_property
    def kept(self) -> Array:
        """What a term keeps of the sum of squares, (terms, h·w)."""
        left, right = self._singular_vectors()
        sizes = (right**2).sum(axis=0)
        sides = left**2, right**2 / np.maximum(sizes, SMALLEST)
        of_left, of_right = (np.cumsum(side, axis=0)[end - 1] for side, end in zip(sides, self.ends, strict=True))
        return np.asarray(sizes[:, None, None] * of_left.T[:, :, None] * of_right.T[:, None, :]).reshape(len(sizes), -1)

    def _singular_vectors(self) -> Terms:
        """Left ones (p, t), of length 1, and the products of the numbers with them (w, t); the largest comes first."""
        numbers = self.numbers
        if numbers.shape[0] <= numbers.shape[1]:
            left = np.linalg.eigh(numbers @ numbers.T)[1][:, ::-1]
            return left, numbers.T @ left
        right = np.linalg.eigh(numbers.T @ numbers)[1][:, ::-1]
        images = numbers @ right
        sizes = np.sqrt((images**2).sum(axis=0))
        return images / np.maximum(sizes, SMALLEST), right * sizes

    @cached_property
    def _rooted(self) -> Terms:
        """Singular vectors, each with the root of its singular value."""
        left, right = self._singular_vectors()
        roots = np.maximum((right**2).sum(axis=0), SMALLEST) ** 0.25
        return left * roots, right / roots

    def chosen(self, price: float) -> tuple[Counts, float, float]:
        """(ends of the terms that are worth this price of a product, −1 for others; what they keep; what is lost)."""
        worth = self.kept - price * self.costs
        ends = worth.argmax(axis=1)
        of_terms = np.arange(len(ends))
        is_worth = worth[of_terms, ends] > 0
        kept = float(self.kept[of_terms, ends][is_worth].sum())
        lost = self.total - float(worth[of_terms, ends][is_worth].sum())
        return np.where(is_worth, ends, -1), kept, lost

    def terms(self, ends: Counts) -> Iterator[Terms]:
        """u (p,) and v (q,) of each of these terms."""
        left, right = self._rooted
        heights, widths = self.ends
        for term in np.flatnonzero(ends >= 0):
            height, width = heights[ends[term] // len(widths)], widths[ends[term] % len(widths)]
            u, v = np.zeros(self.weighted.shape[0]), np.zeros(self.weighted.shape[1])
            u[:height], v[self.start : self.start + width] = left[:height, term], right[:width, term]
            yield u, v


Choice = list[tuple[_Part, Counts]]


def _terms(weighted: Array, tolerances: Sequence[float], norms: Sequence[Array]) -> Terms:
    """The terms that cost least within the tolerances, which are those of their error in these norms.

    Terms of singular values are orthogonal, but what is beyond their ends is not: it may add up. A price takes or
    leaves all terms that are worth about the same, as those of noise are: prices may have to fall far for the first.
    """
    parts, width, total = list(_parts(weighted)), weighted.shape[1], float((weighted**2).sum())
    limits = [
        tolerance**2 * float(((norm * weighted) ** 2).sum()) for tolerance, norm in zip(tolerances, norms, strict=True)
    ]

    def terms_at(price: float) -> tuple[Terms, float]:
        choice, _ = _chosen(parts, width, price)
        pairs = [pair for part, ends in choice for pair in part.terms(ends)]
        terms = np.stack([u for u, _ in pairs]), np.stack([v for _, v in pairs])
        rest = weighted - terms[0].T @ terms[1]
        errors = (float(((norm * rest) ** 2).sum()) for norm in norms)
        return terms, max(error / max(limit, SMALLEST) for error, limit in zip(errors, limits, strict=True))

    price = dear = _price(parts, width, total, max(tolerances) ** 2 * total)
    terms, excess = terms_at(price)
    for tried in range(1, TRIES + 1):
        if excess <= 1:
            break
        price, dear = price * min(MARGIN**tried, 1 / excess) if tried < TRIES else total * CHEAPEST, price
        terms, excess = terms_at(price)
    return terms if price == dear else _dearer(terms_at, terms, price, dear)


def _dearer(terms_at: Callable[[float], tuple[Terms, float]], terms: Terms, cheap: float, dear: float) -> Terms:
    """The terms at the highest price, by bisection, that keep to the tolerances, as those at the dear one do not."""
    for _ in range(STEPS_BACK):
        price = float(np.sqrt(cheap * dear))
        found, excess = terms_at(price)
        if excess <= 1:
            terms, cheap = found, price
        else:
            dear = price
    return terms


def _price(parts: Sequence[_Part], width: int, total: float, allowed: float) -> float:
    """The price of a product at which the parts and terms leave out no more than is allowed, by bisection."""
    cheap, dear = total * CHEAPEST, total  # prices at which much is kept, and little
    for _ in range(STEPS):
        price = float(np.sqrt(cheap * dear))
        _, kept = _chosen(parts, width, price)
        if total - kept <= allowed:
            cheap = price
        else:
            dear = price
    return cheap


def _chosen(parts: Sequence[_Part], width: int, price: float) -> tuple[Choice, float]:
    """The parts that cover all columns with the least loss at this price, and what they keep: one follows the other."""
    best: dict[int, tuple[float, Choice, float]] = {0: (0.0, [], 0.0)}
    for part in parts:  # in ascending order of their ends
        ends, kept, lost = part.chosen(price)
        before, choice, kept_before = best[part.start]
        if part.stop not in best or before + lost < best[part.stop][0]:
            best[part.stop] = before + lost, [*choice, (part, ends)], kept_before + kept
    _, choice, kept = best[width]
    return choice, kept


def _parts(weighted: Array) -> Iterator[_Part]:
    """All parts that may be chosen, in ascending order of their ends."""
    heights, cuts = _places(weighted.shape[0], SHORT_HALVINGS), [0, *_cuts(*weighted.shape)]
    for stop in cuts[1:]:
        for start in cuts[: cuts.index(stop)]:
            yield _Part(weighted, start, stop, (np.array(heights), np.array(_places(stop - start, HALVINGS))))


def _cuts(height: int, width: int) -> list[int]:
    """Where the longer side may be cut: the more places, the more decompositions."""
    if height <= LARGE:
        return _places(width, HALVINGS)
    return _places(width, HALVINGS)[::-4][::-1] if height <= LARGEST else [width]


def _places(size: int, halvings: int) -> list[int]:
    """`size`, and what is left of it after every halving, and of three quarters; ascending, without 0."""
    return sorted({part >> halving for part in (size, 3 * size >> 2) for halving in range(halvings)} - {0})
