"""What `upweight evaluate` measures beside the LDS on request, for the first queries only: each retrains for itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import upweight

if TYPE_CHECKING:
    from upweight.core.examples import Examples
    from upweight.core.progress import Progress
    from upweight.core.scores import Scores
    from upweight.evaluate.compare import Comparison
    from upweight.evaluate.example_criteria import ExampleCriteria
    from upweight.evaluate.influence_gap import InfluenceGap
    from upweight.evaluate.removal_curve import RemovalCurve

MAX_FURTHER_QUERIES = 10  # of the queries; further evaluations measure the first ones
GAP_REMOVALS = 12  # removals on which the gap is measured


@dataclass(frozen=True, kw_only=True)
class FurtherEvaluations:
    """What else can be measured of the methods of a comparison, for its first queries.

    Attributes:
        comparison: the methods and baselines with their scores.
        model, train: the model and its training set.
        queries: the first queries of the comparison.
        seeds: trainings per removal.
        folder: where retrainings are stored, each kind in a subfolder: in the folder of the comparison, a warning would
            say that the queries are others.
        progress: called with the stage and how much of it is done.
    """

    comparison: Comparison
    model: Any
    train: Examples
    queries: Examples
    seeds: int
    folder: Path | None
    progress: Progress

    def removal_curves(self) -> dict[str, RemovalCurve]:
        """Method → its removal curve."""
        from upweight.evaluate.removal_curve import removal_curve

        scores = self._scores("method")
        curves: dict[str, RemovalCurve] = {}

        def report(stage: str, done: int, total: int, /) -> None:
            self.progress("curve", len(curves) * total + done, len(scores) * total)

        self.progress("curve", 0, 1)
        for name, of_method in scores.items():
            retraining = upweight.Retraining(seeds=self.seeds, folder=self._subfolder("curves"), progress=report)
            curves[name] = removal_curve(self.model, self.train, self.queries, of_method, retraining=retraining)
        return curves

    def criteria(self) -> ExampleCriteria:
        """Necessity and sufficiency of the strongest examples, for every method and baseline."""
        from upweight.evaluate.example_criteria import example_criteria

        def report(stage: str, done: int, total: int, /) -> None:
            self.progress("criteria", done, total)

        retraining = upweight.Retraining(seeds=self.seeds, folder=self._subfolder("criteria"), progress=report)
        return example_criteria(self.model, self.train, self.queries, self._scores(), retraining=retraining)

    def gap(self, seed: int) -> InfluenceGap:
        """The parts of the gap between the best method and retraining. Raises a usage error if no method has scores."""
        from upweight.evaluate.influence_gap import influence_gap
        from upweight.evaluate.removals import default_removals

        def report(stage: str, done: int, total: int, /) -> None:
            self.progress("why", done, total)

        scores = next(iter(self._scores("method").values()), None)
        if scores is None:
            raise typer.BadParameter(
                "no method could score this model, so there is no gap to split", param_hint="--why"
            )
        retraining = upweight.Retraining(folder=self._subfolder("why"), progress=report)
        removals = default_removals(scores, self.train, GAP_REMOVALS, seed)
        return influence_gap(self.model, self.train, self.queries, scores, removals, retraining=retraining)

    def _scores(self, kind: str | None = None) -> dict[str, Scores]:
        """The scores of the queries: by all entries of the comparison, or by those of one kind."""
        entries = [entry for entry in self.comparison.entries if kind is None or entry.kind == kind]
        return {entry.name: _first(entry.scores, self.queries) for entry in entries if entry.scores is not None}

    def _subfolder(self, name: str) -> Path | None:
        return self.folder and self.folder / name


def _first(scores: Scores, queries: Examples) -> Scores:
    """The scores of the first queries."""
    return replace(
        scores,
        values=scores.values[: len(queries)],
        query_ids=queries.ids,
        measured=None,
        predictions=None,
        at_optimum=None,
    )
