"""Separable terms: a matrix of factors as a sum of outer products, with which pairs are multiplied side by side."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
CUTS = (32, 4, 2)  # parts of the longer side after which it may be cut
MOST_CUTS = 2


def separable_terms(factors: Array, tolerance: float, weights: tuple[Array, Array]) -> tuple[Floats, Floats]:
    """(u (r, p), v (r, q)) with factors ≈ Σ_j u_j v_jᵀ, with as few products as the tolerance allows.

    The longer side is cut where that saves products; the terms of a part are 0 outside it. An inverse hardly varies
    among the many directions of small eigenvalues, so that one or two terms are enough for them.

    Args:
        factors: (p, q).
        tolerance: share of the factors that may be left out, in the norm with these weights.
        weights: sizes of the numbers of both sides, above 0.
    """
    if factors.shape[0] > factors.shape[1]:
        right, left = separable_terms(factors.T, tolerance, weights[::-1])
        return left, right
    of_left, of_right = weights
    weighted = of_left[:, None] * factors * of_right
    parts = _bounds(weighted, tolerance)
    decomposed = [np.linalg.svd(weighted[:, start:stop], full_matrices=False) for start, stop in parts]
    ranks = _ranks([sizes**2 for _, sizes, _ in decomposed], _costs(parts, len(factors)), tolerance)
    lefts, rights = [], []
    for (u, sizes, v), rank, (start, stop) in zip(decomposed, ranks, parts, strict=True):
        roots = np.sqrt(sizes[:rank])
        lefts.append((u[:, :rank] * roots / of_left[:, None]).T)
        rights.append(np.zeros((rank, len(of_right))))
        rights[-1][:, start:stop] = v[:rank] * roots[:, None] / of_right[start:stop]
    return np.concatenate(lefts).astype(np.float32), np.concatenate(rights).astype(np.float32)


def _bounds(weighted: Array, tolerance: float) -> list[tuple[int, int]]:
    """(start, stop) of the parts of the columns whose terms cost least."""
    height, width = weighted.shape
    cuts = sorted({width // part for part in CUTS} - {0, width})
    smallest = list(pairwise([0, *cuts, width]))
    grams = [weighted[:, start:stop] @ weighted[:, start:stop].T for start, stop in smallest]
    squares: dict[tuple[int, int], Array] = {}
    for first, last in combinations(range(len(smallest) + 1), 2):
        values = np.linalg.eigvalsh(np.sum(grams[first:last], axis=0))[::-1]
        squares[smallest[first][0], smallest[last - 1][1]] = np.maximum(values, 0.0)

    def cost(parts: list[tuple[int, int]]) -> int:
        ranks = _ranks([squares[part] for part in parts], _costs(parts, height), tolerance)
        return sum(rank * each for rank, each in zip(ranks, _costs(parts, height), strict=True))

    chosen = [inner for count in range(MOST_CUTS + 1) for inner in combinations(cuts, count)]
    return min((list(pairwise([0, *inner, width])) for inner in chosen), key=cost)


def _costs(parts: list[tuple[int, int]], height: int) -> list[int]:
    """Products that a term of each part takes."""
    return [height + stop - start for start, stop in parts]


def _ranks(squares: list[Array], costs: list[int], tolerance: float) -> list[int]:
    """How many terms of each part are kept: those go first that save most for what they leave out."""
    counts = [len(part) for part in squares]
    of_part, every = np.repeat(np.arange(len(counts)), counts), np.concatenate(squares)
    order = np.argsort(every / np.repeat(costs, counts), kind="stable")
    kept = np.ones(len(every), dtype=bool)
    kept[order[np.cumsum(every[order]) <= tolerance**2 * every.sum()]] = False
    kept[order[-1]] = True
    return [int(kept[of_part == part].sum()) for part in range(len(counts))]
