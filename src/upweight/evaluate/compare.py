"""Comparison of several methods, and of the baselines that they should beat, on the same truth."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor
from upweight.core.deprecation import RenamedAttribute, ReplacedBy, accept_old_fields, accept_old_keywords
from upweight.core.examples import Examples, Id
from upweight.core.model import Measurable
from upweight.core.notebook_table import notebook_table
from upweight.core.scores import Scores, Unit
from upweight.core.tabular import Tabular
from upweight.evaluate.agreement import Agreement, finite_or_none, formatted
from upweight.evaluate.baselines import BASELINES, Baseline, is_text
from upweight.evaluate.label_errors import Detection, detection_rates
from upweight.evaluate.lds import LDS, lds
from upweight.evaluate.truth import Truth
from upweight.evaluate.verdict import Verdict, judge
from upweight.methods.chance import Chance
from upweight.retraining import deprecated_keywords
from upweight.retraining.retraining import ONE_BY_ONE, Retraining

Array = NDArray[np.float64]
Kind = Literal["method", "baseline"]
HEAD = ("method", "unit", "LDS", "interval", "of ceiling", "slope", "AUC", "cost (s)")


@accept_old_fields({"found": ReplacedBy("detection")})
@dataclass(frozen=True, eq=False)
class Entry:
    """One row: a method or a baseline on the truth; None for questions that it does not answer.

    Attributes:
        seconds: CPU-seconds of fit and attribute, including those of child processes.
        agreed: agreement of predicted with actual effects of the truth's removals, over all queries.
        verdict: the verdict on these effects; None if it has no scores, or nothing could be compared.
        detection: how well its suspicion (for most methods the self-influence) finds planted errors.
        why: why it was not run, in a sentence; empty if it was.
    """

    name: str
    kind: Kind
    unit: Unit | None = None
    scores: Scores | None = None
    lds: LDS | None = None
    agreed: Agreement | None = None
    detection: Detection | None = None
    seconds: float = float("nan")
    why: str = ""
    verdict: Verdict | None = None
    found = RenamedAttribute("detection")

    @property
    def slope(self) -> float:
        """Slope of actual on predicted effects; NaN for RANK scores, whose size has no meaning."""
        return self.agreed.slope if self.agreed is not None and self.unit == Unit.EFFECT else float("nan")

    def cells(self) -> list[str]:
        """The row as text, in the order of `HEAD`."""
        score = self.lds
        interval = (
            "–"
            if score is None or finite_or_none(score.low) is None
            else f"{formatted(score.low)} to {formatted(score.high)}"
        )
        return [
            self.name,
            "–" if self.unit is None else str(self.unit),
            formatted(score.mean) if score else "–",
            interval,
            "–"
            if score is None or finite_or_none(score.relative) is None
            else f"{score.relative:.0%}".replace("-", "−"),
            formatted(self.slope),
            formatted(self.detection.auc) if self.detection else "–",
            "–" if finite_or_none(self.seconds) is None else f"{self.seconds:.2g}",
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; missing numbers are None."""
        return {
            "name": self.name,
            "kind": self.kind,
            "unit": None if self.unit is None else str(self.unit),
            "lds": None if self.lds is None else self.lds.as_dict(),
            "verdict": None if self.verdict is None else str(self.verdict),
            "slope": finite_or_none(self.slope),
            "found": None if self.detection is None else self.detection.as_dict(),
            "seconds": finite_or_none(self.seconds),
            "why": self.why or None,
        }


@dataclass(frozen=True, eq=False)
class Comparison(Tabular):
    """Methods first, then baselines, each sorted by LDS from high to low; those that were not run come last."""

    _table: ClassVar = "methods"
    entries: tuple[Entry, ...]
    truth: Truth

    def __getitem__(self, name: str) -> Entry:
        by_name = {entry.name: entry for entry in self.entries}
        if name not in by_name:
            raise KeyError(f"no method is called {name!r}; there are {', '.join(by_name)}")
        return by_name[name]

    @property
    def warnings(self) -> list[str]:
        """Warnings of the truth, and what was not run."""
        return [*self.truth.warnings, *(f"{e.name} was not run: {e.why}" for e in self.entries if e.why)]

    def __repr__(self) -> str:
        numbers = ", ".join(f"{e.name} {formatted(e.lds.mean)}" for e in self.entries if e.lds)
        return f"Comparison({len(self.truth.removals)} removals × {len(self.truth.query_ids)} queries; LDS {numbers})"

    def _repr_html_(self) -> str:
        return notebook_table(repr(self), (entry.cells() for entry in self.entries), HEAD)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "truth": self.truth.as_dict(),
            "methods": [entry.as_dict() for entry in self.entries],
            "warnings": self.warnings,
        }


@accept_old_keywords(deprecated_keywords.keywords("progress"), deprecated_keywords.retraining_builder(ONE_BY_ONE))
def compare(
    methods: Mapping[str, Attributor],
    model: Measurable,
    train: Examples,
    queries: Examples,
    truth: Truth,
    *,
    planted: Sequence[Id] = (),
    retraining: Retraining | None = None,
) -> Comparison:
    """Compare every method, and every baseline that applies, with one truth.

    Args:
        methods: name → recipe.
        model, train, queries: those of the truth.
        truth: measurements of retrained models, from `retrain_truth`.
        planted: ids of training examples whose labels are known to be wrong; adds how well each method finds them.
        retraining: where and how models are trained for the held-out loss, which is used with planted errors; None for
            one by one in this process. Its progress is called with the stage "compare" and counts methods and
            baselines.

    A method that needs a capability that the model lacks becomes a row that says so.

    Raises:
        ValueError: the truth of another model or other queries; no method.
        KeyError: a planted id that is not in the training set.
    """
    if not methods or not isinstance(methods, Mapping):
        raise ValueError(f"expected methods by name, e.g. {{'influence': upweight.Influence()}}, got {methods!r}")
    truth.require(model, train, queries)
    retraining = ONE_BY_ONE if retraining is None else retraining
    quiet = replace(retraining, seeds=retraining.runs[:1], progress=None)
    setting = _Setting(model, train, queries, truth, tuple(planted), quiet)
    train.positions(setting.planted)  # raises an error for an unknown id
    jobs: list[tuple[str, Kind, Callable[[], Entry]]] = [
        (name, "method", partial(setting.run_method, name, "method", recipe)) for name, recipe in methods.items()
    ]
    if not any(isinstance(recipe, Chance) for recipe in methods.values()):
        jobs.append(("chance", "baseline", partial(setting.run_method, "chance", "baseline", Chance())))
    for baseline in BASELINES:
        if setting.applies(baseline) and baseline.name not in methods:
            jobs.append((baseline.name, "baseline", partial(setting.run_baseline, baseline)))
    entries = []
    for done, (name, kind, job) in enumerate(jobs, start=1):
        try:
            entries.append(job())
        except (TypeError, ValueError, RuntimeError) as error:
            entries.append(Entry(name, kind, why=str(error)))
        if retraining.progress is not None:
            retraining.progress("compare", done, len(jobs))
    return Comparison(tuple(sorted(entries, key=_sort_key)), truth)


@dataclass(frozen=True, eq=False)
class _Setting:
    """The model, data and truth on which all rows are measured."""

    model: Measurable
    train: Examples
    queries: Examples
    truth: Truth
    planted: tuple[Id, ...]
    retraining: Retraining

    def run_method(self, name: str, kind: Kind, recipe: Attributor) -> Entry:
        """The row of a method."""
        start = cpu_seconds()
        fitted = recipe.fit(self.model, self.train)
        scores = fitted.attribute(self.queries)
        seconds = cpu_seconds() - start
        suspicion = fitted.suspicion() if self.planted else None
        return self._evaluated(Entry(name, kind, scores.unit, scores, seconds=seconds), suspicion)

    def applies(self, baseline: Baseline) -> bool:
        """Whether the baseline has an answer for these examples."""
        has_answer = baseline.pairs is not None or bool(self.planted)
        return has_answer and (not baseline.of_texts or is_text(self.train)) and self.train.y is not None

    def run_baseline(self, baseline: Baseline) -> Entry:
        """The row of a baseline; its cost is that of the scores, or of the suspicion if it has no scores."""
        start = cpu_seconds()
        scores = None if baseline.pairs is None else baseline.pairs(self.train, self.queries)
        seconds = cpu_seconds() - start
        suspicion = None
        if baseline.suspicion is not None and self.planted:
            suspicion = baseline.suspicion(self.model, self.train, self.retraining)
        if scores is None:
            seconds = cpu_seconds() - start
        unit = None if scores is None else scores.unit
        return self._evaluated(Entry(baseline.name, "baseline", unit, scores, seconds=seconds), suspicion)

    def _evaluated(self, entry: Entry, suspicion: Array | None) -> Entry:
        """The row with its agreement with the truth, and how well the suspicion finds planted errors."""
        detection = None if suspicion is None else detection_rates(suspicion, self.train, self.planted)
        if entry.scores is None:
            return replace(entry, detection=detection)
        scale = float(np.abs(self.truth.base).max(initial=0.0))
        judgement = judge(self.truth.predicted(entry.scores), self.truth.actual, entry.scores.unit, scale)
        return replace(
            entry,
            detection=detection,
            agreed=judgement.agreement,
            lds=lds(entry.scores, self.truth),
            verdict=judgement.verdict,
        )


def cpu_seconds() -> float:
    """CPU time of this process and of the child processes that it has waited for."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def _sort_key(entry: Entry) -> tuple[bool, bool, float]:
    score = -np.inf if entry.lds is None or np.isnan(entry.lds.mean) else entry.lds.mean
    return bool(entry.why), entry.kind == "baseline", -float(score)
