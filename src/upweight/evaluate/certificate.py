"""Certificates of retrieval: what can be said about the examples that were not scored exactly, with a confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Certificate:
    """Statements of an audit of queries about retrieval for queries like them.

    Attributes:
        k: how many of the strongest proponents were looked for.
        audited: queries for which all training examples were scored exactly; drawn at random, without a look at them.
        complete: those of them for which all k were among the candidates.
        recall: the mean share of the k that was among the candidates.
        least_complete: with this confidence, at least this share of the queries is answered completely
            (Clopper & Pearson 1934).
        least_recall: with this confidence, the mean share is at least this (Hoeffding 1963, theorem 1).
        confidence: of either statement alone.
        seed: of the draw.
    """

    k: int
    audited: int
    complete: int
    recall: float
    least_complete: float
    least_recall: float
    confidence: float
    seed: int

    def __str__(self) -> str:
        return (
            f"Of {self.audited} queries drawn at random (seed {self.seed}), {self.complete} had all of their {self.k} "
            f"strongest proponents, by the exact scores of all training examples, among the candidates. With "
            f"{self.confidence:.0%} confidence, at least {self.least_complete:.1%} of queries like these are answered "
            f"completely, and of the {self.k} at least {self.least_recall:.1%} are found on average. Nothing is said "
            "about a single query, nor about retraining."
        )


def certify_queries(recalls: NDArray[np.float64], k: int, confidence: float, seed: int) -> Certificate:
    """The certificate of an audit of queries, from the recall (share of the true k) of each.

    Raises ValueError unless there is a query and the confidence is between 0 and 1.
    """
    recalls = np.asarray(recalls, dtype=np.float64)
    if not len(recalls) or not 0 < confidence < 1:
        raise ValueError(
            f"expected at least one audited query and a confidence between 0 and 1, got {len(recalls)} and {confidence}"
        )
    complete, mean = int((recalls >= 1 - 1e-12).sum()), float(recalls.mean())
    return Certificate(
        k=k,
        audited=len(recalls),
        complete=complete,
        recall=mean,
        least_complete=least_share(complete, len(recalls), confidence),
        least_recall=least_mean(mean, len(recalls), confidence),
        confidence=confidence,
        seed=seed,
    )


def least_mean(mean: float, count: int, confidence: float) -> float:
    """A lower bound of the mean of a variable between 0 and 1, of which this many draws have this mean.

    Hoeffding's bound by relative entropy: a true mean μ leads to at least m with a probability of at most
    exp(−n KL(m, μ)). If all draws are 1, it is the exact bound of a share.
    """
    from scipy.optimize import brentq
    from scipy.special import rel_entr

    if mean <= 0:
        return 0.0
    allowed = np.log(1 / (1 - confidence)) / count

    def excess(true: float) -> float:
        return float(rel_entr(mean, true) + rel_entr(1 - mean, 1 - true) - allowed)

    least = max(mean * np.exp(-(allowed + np.log(2)) / mean), np.finfo(float).tiny)
    return float(brentq(excess, least, mean)) if excess(least) > 0 else 0.0


def least_share(successes: int, trials: int, confidence: float) -> float:
    """The lower end of Clopper & Pearson's one-sided interval for a share."""
    from scipy.stats import beta

    return 0.0 if successes == 0 else float(beta.ppf(1 - confidence, successes, trials - successes + 1))


def most_above(above: int, audited: int, others: int, confidence: float) -> int:
    """An upper bound, with this confidence, of the number of other rows above a threshold fixed before the draw.

    The exact bound for a draw without replacement (hypergeometric): the largest M of which as few in the sample, or
    fewer, are not improbable.

    Args:
        above: audited rows above the threshold.
        audited: rows drawn at random from the others and scored exactly.
        others: rows that were not candidates.
        confidence: of the statement.
    """
    from scipy.stats import hypergeom

    least, most = above, others - (audited - above)
    while least < most:
        middle = (least + most + 1) // 2
        if hypergeom.cdf(above, others, middle, audited) > 1 - confidence:
            least = middle
        else:
            most = middle - 1
    return least
