"""What `upweight evaluate` prints: tables of a comparison, and of what was measured beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upweight.cli.output import print_notes, print_table

if TYPE_CHECKING:
    from upweight.evaluate.compare import Comparison
    from upweight.evaluate.example_criteria import ExampleCriteria
    from upweight.evaluate.influence_gap import InfluenceGap
    from upweight.evaluate.removal_curve import RemovalCurve


def print_comparison(comparison: Comparison, title: str, with_auc: bool) -> None:
    """Print the table of methods and baselines."""
    from upweight.evaluate.compare import HEAD

    # A terminal has 80 columns: the unit is left out, because only EFFECT scores have a slope.
    columns = [column for column, name in enumerate(HEAD) if name != "unit" and (name != "AUC" or with_auc)]
    rows = [[entry.cells()[column] for column in columns] for entry in comparison.entries]
    print_table(title, [HEAD[column] for column in columns], rows)


def print_curve(name: str, curve: RemovalCurve) -> None:
    """Print the removal curve of one method."""
    from upweight.evaluate.agreement import formatted
    from upweight.evaluate.removal_curve import SIDES

    means = [curve.mean(side) for side in SIDES]
    rows = [[f"{size:,}", *(formatted(mean[row]) for mean in means)] for row, size in enumerate(curve.sizes)]
    title = f"{name}: mean effect of removing the strongest, {len(curve.query_ids)} queries"
    print_table(title, ("removed", *SIDES), rows)


def print_criteria(criteria: ExampleCriteria) -> None:
    """Print the areas of every method."""
    from upweight.evaluate.example_criteria import HEAD

    title = f"Necessity and sufficiency of the strongest examples, {len(criteria.query_ids)} queries; high is good"
    print_table(title, HEAD, criteria.cells())


def print_gap(gap: InfluenceGap) -> None:
    """Print the parts of the gap between influence and retraining."""
    from upweight.evaluate.influence_gap import HEAD

    print_table("From retraining to influence, one change at a time", HEAD[:3], [row[:3] for row in gap.cells()])
    print_notes([f"{gap.sentence}."], [], None)


def verdicts(comparison: Comparison) -> list[str]:
    """The verdict on every method that has scores."""
    from upweight.evaluate.verdict import words

    methods = [entry for entry in comparison.entries if entry.kind == "method" and entry.scores is not None]
    return [f"Verdict on {entry.name}: {words(entry.verdict)}." for entry in methods]


def ceiling_notes(comparison: Comparison) -> list[str]:
    """The noise ceiling, if it was computed."""
    from upweight.evaluate.agreement import formatted

    ceiling = next((entry.lds.ceiling for entry in comparison.entries if entry.lds), None)
    return [] if ceiling is None else [f"Noise ceiling {formatted(ceiling.value)}: {ceiling.note}."]
