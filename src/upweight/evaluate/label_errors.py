"""Label errors: plant some, and measure how many are found by inspecting the most suspicious examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from upweight.core.deprecation import RenamedAttribute, ReplacedBy, accept_old_fields
from upweight.core.examples import Examples, Id
from upweight.core.notebook_table import notebook_table
from upweight.core.plottable import Plottable
from upweight.core.tabular import Tabular
from upweight.core.weights import weighted_positions

Array = NDArray[np.float64]
SHARES = (0.05, 0.1, 0.2, 0.3)


@accept_old_fields({"found": ReplacedBy("recall")})
@dataclass(frozen=True)
class Detection(Plottable, Tabular):
    """How well a suspicion finds planted label errors.

    Attributes:
        auc: probability that a planted error is more suspicious than an unchanged example; ties count half.
        shares: shares of the examples that are inspected, the most suspicious first.
        recall: share of the planted errors among them, for each of `shares`. Among equally suspicious examples, the
            planted ones are spread evenly.
        planted, examples: number of planted errors and of examples.
    """

    _display: ClassVar = ("LabelErrorDisplay", "from_detections")
    auc: float
    shares: tuple[float, ...]
    recall: tuple[float, ...]
    planted: int
    examples: int
    found = RenamedAttribute("recall")

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        return [{"inspected": s, "found": f} for s, f in zip(self.shares, self.recall, strict=True)]

    def __repr__(self) -> str:
        text = ", ".join(f"{f:.0%} in the first {s:.0%}" for s, f in zip(self.shares, self.recall, strict=True))
        return f"Detection(AUC {self.auc:.3f}, {self.planted} planted in {self.examples}: {text})"

    def _repr_html_(self) -> str:
        pairs = zip(self.shares, self.recall, strict=True)
        return notebook_table(repr(self), [(f"{s:.0%}", f"{f:.0%}") for s, f in pairs], ("inspected", "found"))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        at = {f"{s:g}": f for s, f in zip(self.shares, self.recall, strict=True)}
        return {"auc": self.auc, "found": at, "planted": self.planted, "examples": self.examples}


def detection_rates(
    suspicion: Array, train: Examples, planted: Sequence[Id], shares: Sequence[float] = SHARES
) -> Detection:
    """Measure how well a suspicion finds the examples that are known to be wrong.

    These are the AUC and 'found by inspecting 10 %' of Koh & Liang (2017), §5.4.

    Args:
        suspicion: one number per training example, (n,); the highest are inspected first.
        train: the training set.
        planted: ids of the examples that are known to be wrong.
        shares: shares of the examples that are inspected.

    Raises:
        ValueError: not one finite suspicion per training example, no planted example or no other one, a share outside
            (0, 1].
        KeyError: a planted id that is not in the training set.
    """
    values = np.asarray(suspicion, dtype=np.float64).reshape(-1)
    if len(values) != len(train) or not np.isfinite(values).all():
        raise ValueError(f"expected one finite suspicion per training example ({len(train)}), got {len(values)}")
    if not all(0 < share <= 1 for share in shares):
        raise ValueError(f"expected shares above 0 and up to 1, got {list(shares)}")
    is_planted, positions = np.zeros(len(train), dtype=bool), weighted_positions(train)
    if len(planted):
        is_planted[train.positions(planted)] = True
    values, is_planted = values[positions], is_planted[positions]
    errors, unchanged = int(is_planted.sum()), int((~is_planted).sum())
    if errors == 0 or unchanged == 0:
        raise ValueError(f"expected some planted errors and some unchanged examples, got {errors} and {unchanged}")
    auc = (rankdata(values)[is_planted].sum() - errors * (errors + 1) / 2) / (errors * unchanged)
    inspected = [max(1, round(share * len(values))) for share in shares]
    recall = tuple(_expected_count(values, is_planted, count) / errors for count in inspected)
    return Detection(float(auc), tuple(shares), recall, errors, len(positions))


def _expected_count(values: Array, is_planted: NDArray[np.bool_], inspected: int) -> float:
    """Expected number of planted errors among the `inspected` most suspicious examples, in random order within ties."""
    lowest = np.sort(values)[::-1][inspected - 1]
    above, equal = values > lowest, values == lowest
    return float(is_planted[above].sum() + is_planted[equal].sum() * (inspected - above.sum()) / equal.sum())


def plant(train: Examples, share: float = 0.1, seed: int = 0) -> tuple[Examples, list[Id]]:
    """Plant label errors: (the training set with a share of its labels changed to another class, the changed ids).

    Raises:
        ValueError: no labels of at least two classes, or a share outside (0, 1).
    """
    if not 0 < share < 1:
        raise ValueError(f"expected a share between 0 and 1, got {share}")
    classes = [] if train.y is None or train.y.ndim != 1 else np.unique(train.y).tolist()
    if train.y is None or train.y.dtype.kind == "f" or len(classes) < 2:
        raise ValueError("expected labels of at least two classes; the targets of a regression cannot be swapped")
    rng, candidates = np.random.default_rng(seed), weighted_positions(train)
    count = max(1, round(share * len(candidates)))
    changed = np.sort(candidates[rng.choice(len(candidates), count, replace=False)])
    y = train.y.copy()
    for position in changed:
        y[position] = rng.choice([c for c in classes if c != y[position]])
    return train.replaced(y=y), train.ids[changed].tolist()
