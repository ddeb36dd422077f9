"""How surprising the strongest proponents of a prediction are: by chance, and beside those of other predictions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom, norm

Array = NDArray[np.float64]
Positions = NDArray[np.intp]
MIN_PEERS = 20  # predictions of a class from which their spread is estimated
QUARTILE = float(norm.ppf(0.75))  # of the standard normal distribution
LARGEST_Z = 8.0
MIN_REFERENCE = 50  # reference predictions of a class, from which they show what is usual in it
UPPER = 0.9  # quantile of the reference predictions, beyond which their tail is extrapolated
SMALLEST = 1e-300  # tail


class Draws:
    """Proponents as draws without replacement from the training examples of their own labels.

    Args:
        strata: (n,), the stratum of every training example that can be drawn, its label; −1 for the others.
    """

    def __init__(self, strata: Positions) -> None:
        self.strata = strata
        self.sizes = np.bincount(strata[strata >= 0])
        self._tails: dict[tuple[tuple[int, ...], ...], Array] = {}

    def count_tail(self, members: Positions, drawn: Positions, inside: NDArray[np.bool_]) -> tuple[float, float]:
        """(probability, expected number) of draws inside of a group.

        The probability is that of at least as many members among the draws as there are. Given the labels of the
        draws, the number is a sum of hypergeometric ones, one per label.

        Args:
            members: (strata,), how many training examples of each stratum are in the group.
            drawn: (draws,), the stratum of each draw.
            inside: (draws,), whether it is in the group.
        """
        per_stratum = np.bincount(drawn, minlength=len(self.sizes))
        used = np.flatnonzero(per_stratum)
        key = tuple((int(self.sizes[s]), int(members[s]), int(per_stratum[s])) for s in used)
        if key not in self._tails:
            mass = np.ones(1)
            for size, count, draws in key:
                mass = np.convolve(mass, hypergeom.pmf(np.arange(draws + 1), size, count, draws))
            self._tails[key] = np.minimum(np.cumsum(mass[::-1])[::-1], 1.0)
        expected = sum(draws * count / size for size, count, draws in key)
        return float(self._tails[key][inside.sum()]), expected

    def rank_tail(self, ranks: Array, drawn: Positions) -> float:
        """The probability of draws whose mean rank is at least that of these (van Elteren's test, normal tail).

        Args:
            ranks: (draws,), the rank of each draw within its stratum, as a share in (0, 1).
            drawn: (draws,), the stratum of each draw.
        """
        variance = 0.0
        for stratum, draws in zip(*np.unique(drawn, return_counts=True), strict=True):
            size = float(self.sizes[stratum])
            if size > 1:
                variance += draws * (size**2 - 1) / (12 * size**2) * (size - draws) / (size - 1)
        excess = float(ranks.sum()) - len(ranks) / 2
        return float(norm.sf(excess / np.sqrt(variance))) if variance > 0 else 1.0


def beside_peers(tails: Array, classes: Positions) -> tuple[Array, Array]:
    """(tails beside those of the other predictions of the class, median z of the class), both (m,).

    Support may be far from chance in all predictions of a class, because the examples of a group are more influential
    or its features differ. The null distribution is then estimated from the central predictions (Efron 2004): normal,
    with the median and the lower quartile of z = Φ⁻¹(1 − tail), and never narrower nor lower than the standard one.
    Up to a third of the predictions of a class may be wrong in the same way. In classes of fewer than `MIN_PEERS`
    predictions, tails are those by chance.
    """
    z = np.clip(norm.isf(tails), -1.0, LARGEST_Z)
    beside, medians = tails.copy(), np.zeros(len(tails))
    for name in np.unique(classes):
        peers = np.flatnonzero((classes == name) & np.isfinite(tails))
        if len(peers) < MIN_PEERS:
            continue
        quartile, median = np.quantile(z[peers], [0.25, 0.5])
        centre, spread = max(0.0, median), max(1.0, (median - quartile) / QUARTILE)
        beside[peers] = np.maximum(tails[peers], norm.sf((z[peers] - centre) / spread))
        medians[peers] = median
    return beside, medians


def beside_reference(tails: Array, classes: Positions, reference: Array, reference_classes: Positions) -> Array:
    """Tails beside those of reference predictions of the same class, never smaller than by chance, (m,).

    They are shares of the reference predictions that are at least as surprising. Beyond their `UPPER` quantile u, the
    share falls exponentially with z = Φ⁻¹(1 − tail), at the rate of their mean excess over u, which is slower than
    that of a normal distribution. A class of fewer than `MIN_REFERENCE` reference predictions is compared with all.
    """
    beside, known = tails.copy(), np.isfinite(reference)
    for name in np.unique(classes):
        chosen = np.flatnonzero((classes == name) & np.isfinite(tails))
        peers = known & (reference_classes == name)
        peers = peers if peers.sum() >= MIN_REFERENCE else known
        if peers.sum() >= MIN_REFERENCE:
            share = _exceeding(_z(tails[chosen]), _z(reference[peers]))
            beside[chosen] = np.maximum(tails[chosen], share)
    return beside


def _exceeding(z: Array, sample: Array) -> Array:
    """The share of the sample that is at least z, extrapolated beyond its `UPPER` quantile."""
    ordered = np.sort(sample)
    reached = len(ordered) - np.searchsorted(ordered, z, side="left")
    shares = np.asarray((reached + 1) / (len(ordered) + 1), dtype=np.float64)
    bound = float(np.quantile(ordered, UPPER))
    excess = float(np.maximum(ordered - bound, 0.0).mean()) / (1.0 - UPPER)
    beyond = z > bound
    if excess > 0:
        shares[beyond] = (1.0 - UPPER) * np.exp(-(z[beyond] - bound) / excess)
    return shares


def _z(tails: Array) -> Array:
    z: Array = np.maximum(norm.isf(np.maximum(tails, SMALLEST)), -1.0)
    return z
