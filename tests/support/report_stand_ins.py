from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from upweight.core.scores import Scores
from upweight.evaluate.agreement import Agreement
from upweight.evaluate.verdict import Judgement, Verdict

HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'></script><!-- ]]> & \u2028 \ud800"


@dataclass(frozen=True)
class Removal:
    name: str
    kind: str
    ids: tuple[Any, ...]


@dataclass(frozen=True)
class Retrained:
    """A stand-in for the verification of scores: the truth is the prediction and a little more."""

    scores: Scores
    removals: tuple[Removal, ...]
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    slope: float = 1.04
    pearson: float = 0.98
    spearman: float = 0.93
    verdict: Verdict | None = Verdict.AGREES

    @property
    def judged(self) -> Scores:
        return self.scores

    @property
    def verdict_warnings(self) -> list[str]:
        return []

    @property
    def judged_removals(self) -> str:
        return f"{len(self.removals)} removals of single examples"

    def judge(self) -> Judgement:
        band = (0.9, 1.0)
        return Judgement(self.verdict, Agreement(self.slope, self.pearson, self.spearman, 8), band, band, band, 8)

    @property
    def query_ids(self) -> Any:
        return self.scores.query_ids

    @property
    def predicted(self) -> Any:
        return np.stack([self._sum(removal.ids) for removal in self.removals], axis=1)

    @property
    def actual(self) -> Any:
        return 1.04 * self.predicted

    def of(self, kind: str) -> "Retrained":
        return self

    def interval(self, ids: tuple[Any, ...], level: float = 0.9) -> tuple[Any, Any]:
        middle = self._sum(ids)
        return middle - 0.25, middle + 0.25

    def _sum(self, ids: tuple[Any, ...]) -> Any:
        return self.scores.values[:, np.isin(self.scores.train_ids, ids)].sum(axis=1)
