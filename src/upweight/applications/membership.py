"""Membership checks: do losses distinguish forgotten training examples from unseen ones?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.nearest_copies import equal_rows
from upweight.core.examples import Examples
from upweight.core.model import Measurable
from upweight.core.weights import weighted_positions

Array = NDArray[np.float64]
LEVEL = 0.95  # of the intervals
TINY = 1e-12  # distance from 0 and 1, where the spread of an AUC is 0
FEWEST = 10  # examples on either side, below which nothing can be said


@dataclass(frozen=True)
class Membership:
    """How well the losses of one model distinguish forgotten examples from unseen ones.

    Attributes:
        model: which model: "before", "after" or "retrained".
        auc: probability that a forgotten example has a smaller loss than an unseen one; .5 if losses do not
            distinguish them. An attacker who takes examples of small loss for training examples is right that often
            (Yeom et al. 2018).
        interval: of the AUC at 95 % (Newcombe 2006, method 5).
        gap: mean loss of the unseen examples minus that of the forgotten ones.
        gap_interval: of the gap at 95 % (Welch).
    """

    model: str
    auc: float
    interval: tuple[float, float]
    gap: float
    gap_interval: tuple[float, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "model": self.model,
            "auc": self.auc,
            "interval": list(self.interval),
            "gap": self.gap,
            "gap_interval": list(self.gap_interval),
        }


@dataclass(frozen=True, eq=False)
class MembershipCheck:
    """Unseen examples that forgotten ones are compared with, and what was left out.

    Attributes:
        forgotten: the forgotten examples.
        unseen: examples that no training saw; None if there are too few, or no measurement of a loss.
        notes, warnings: sentences for the reader.
    """

    forgotten: Examples
    unseen: Examples | None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Measurable, train: Examples, forgotten: Examples, unseen: Examples | None) -> MembershipCheck:
        """The check. Copies of training examples among `unseen` are left out, with a warning.

        Raises ValueError if `unseen` has no labels, or holds only copies of training examples.
        """
        if unseen is None:
            return cls(forgotten, None, ("Membership was not checked: pass unseen=, examples that no training saw.",))
        if unseen.y is None:
            raise ValueError("expected unseen examples with labels, whose losses are compared; got none")
        if not model.measurement.startswith("−loss"):
            return cls(forgotten, None, (f"Membership was not checked: the model measures {model.measurement}.",))
        warnings: tuple[str, ...] = ()
        is_new = np.array([copy is None for copy in equal_rows(train, unseen, weighted_positions(train))[0]])
        if not is_new.all():
            if not is_new.any():
                raise ValueError(
                    f"expected unseen examples that are not in the training set, got {len(unseen):,} that all are"
                )
            warnings = (f"{int((~is_new).sum()):,} unseen examples are copies of training examples and were left out.",)
            unseen = unseen.take(is_new)
        if min(len(unseen), len(forgotten)) < FEWEST:
            note = f"Membership was not checked: it needs {FEWEST} forgotten and {FEWEST} unseen examples."
            return cls(forgotten, None, (note,), warnings)
        return cls(forgotten, unseen, (), warnings)

    def measured(self, name: str, model: Measurable) -> Membership | None:
        """The membership test by the losses of this model; None if there is nothing to compare with."""
        if self.unseen is None:
            return None
        return membership(name, -model.measure(self.forgotten), -model.measure(self.unseen))


def membership(name: str, forgotten: Array, unseen: Array) -> Membership:
    """The comparison of losses (m,) of forgotten examples with those (k,) of unseen ones."""
    from scipy.stats import mannwhitneyu, t

    auc = 1.0 - float(mannwhitneyu(forgotten, unseen).statistic) / (len(forgotten) * len(unseen))
    gap = float(unseen.mean() - forgotten.mean())
    parts = [losses.var(ddof=1) / len(losses) for losses in (forgotten, unseen)]
    error = float(np.sqrt(sum(parts)))
    freedom = (
        sum(parts) ** 2 / sum(p**2 / (len(x) - 1) for p, x in zip(parts, (forgotten, unseen), strict=True))
        if error
        else 1.0
    )
    half = error * float(t.ppf(0.5 + LEVEL / 2, freedom))
    return Membership(name, auc, auc_interval(auc, len(forgotten), len(unseen)), gap, (gap - half, gap + half))


def auc_interval(auc: float, first: int, second: int) -> tuple[float, float]:
    """The 95 % interval of an AUC from so many examples on either side: Newcombe (2006), method 5.

    Its ends are the values θ with |θ − AUC| = z·√v(θ), so that an AUC of 1 has a width too.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    z, mean = float(norm.ppf(0.5 + LEVEL / 2)), (first + second) / 2 - 1

    def excess(theta: float) -> float:
        spread = theta * (1 - theta) * (1 + mean * ((1 - theta) / (2 - theta) + theta / (1 + theta)))
        return abs(theta - auc) - z * float(np.sqrt(spread / (first * second)))

    low = 0.0 if auc <= 0 else float(brentq(excess, 0.0, min(auc, 1 - TINY)))
    high = 1.0 if auc >= 1 else float(brentq(excess, max(auc, TINY), 1.0))
    return low, high
