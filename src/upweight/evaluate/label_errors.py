"""Found: how many planted errors does looking at the most suspicious examples find."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from upweight.core.examples import Examples, Id
from upweight.core.weights import weighted_positions

Array = NDArray[np.float64]
SHARES = (0.05, 0.1, 0.2, 0.3)


@dataclass(frozen=True)
class Found:
    """How well a suspicion finds planted errors.

    Attributes:
        auc: probability that a planted error is more suspicious than an example as it was; ties count half.
        shares, found: share of the planted errors among this share of the examples, the most suspicious first.
            Among equally suspicious examples the planted ones are spread evenly.
        planted, examples: how many.
    """

    auc: float
    shares: tuple[float, ...]
    found: tuple[float, ...]
    planted: int
    examples: int

    def __repr__(self) -> str:
        told = ", ".join(f"{f:.0%} in the first {s:.0%}" for s, f in zip(self.shares, self.found, strict=True))
        return f"Found(AUC {self.auc:.3f}, {self.planted} planted in {self.examples}: {told})"

    def _repr_html_(self) -> str:
        pairs = zip(self.shares, self.found, strict=True)
        rows = "".join(f"<tr><td>{s:.0%}</td><td>{f:.0%}</td></tr>" for s, f in pairs)
        head = "<tr><th>looked at</th><th>found</th></tr>"
        return f"<p><b>{html.escape(repr(self))}</b></p><table>{head}{rows}</table>"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        at = {f"{s:g}": f for s, f in zip(self.shares, self.found, strict=True)}
        return {"auc": self.auc, "found": at, "planted": self.planted, "examples": self.examples}


def found_at(suspicion: Array, train: Examples, planted: Sequence[Id], shares: Sequence[float] = SHARES) -> Found:
    """Hold a suspicion (n,), higher = look here first, against the examples that are known to be wrong.

    Source: the AUC and 'found by inspecting 10 %' of Koh & Liang (2017), §5.4.

    Raises:
        ValueError: not one finite suspicion per training example, nothing planted or nothing else, a bad share.
        KeyError: a planted id that is not in the training set.
    """
    values = np.asarray(suspicion, dtype=np.float64).reshape(-1)
    if len(values) != len(train) or not np.isfinite(values).all():
        raise ValueError(f"expected one finite suspicion per training example ({len(train)}), got {len(values)}")
    if not all(0 < share <= 1 for share in shares):
        raise ValueError(f"expected shares above 0 and up to 1, got {list(shares)}")
    wrong, there = np.zeros(len(train), dtype=bool), weighted_positions(train)
    if len(planted):
        wrong[train.positions(planted)] = True
    values, wrong = values[there], wrong[there]
    p, rest = int(wrong.sum()), int((~wrong).sum())
    if p == 0 or rest == 0:
        raise ValueError(f"expected some planted errors and some examples as they were, got {p} and {rest}")
    auc = (rankdata(values)[wrong].sum() - p * (p + 1) / 2) / (p * rest)
    found = tuple(_expected(values, wrong, max(1, round(share * len(values)))) / p for share in shares)
    return Found(float(auc), tuple(shares), found, p, len(there))


def _expected(values: Array, wrong: NDArray[np.bool_], looked: int) -> float:
    """Planted errors among the `looked` most suspicious, ties dealt evenly."""
    least = np.sort(values)[::-1][looked - 1]
    above, equal = values > least, values == least
    return float(wrong[above].sum() + wrong[equal].sum() * (looked - above.sum()) / equal.sum())


def plant(train: Examples, share: float = 0.1, seed: int = 0) -> tuple[Examples, list[Id]]:
    """(the training set with some labels changed to another that occurs, the ids of those). Train a model on it.

    Raises:
        ValueError: no labels of at least two classes, or a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise ValueError(f"expected a share between 0 and 1, got {share}")
    classes = [] if train.y is None or train.y.ndim != 1 else np.unique(train.y).tolist()
    if train.y is None or train.y.dtype.kind == "f" or len(classes) < 2:
        raise ValueError("expected labels of at least two classes; amounts cannot be swapped")
    rng, there = np.random.default_rng(seed), weighted_positions(train)
    where = np.sort(there[rng.choice(len(there), max(1, round(share * len(there))), replace=False)])
    y = train.y.copy()
    for place in where:
        y[place] = rng.choice([c for c in classes if c != y[place]])
    return train.replaced(y=y), train.ids[where].tolist()
