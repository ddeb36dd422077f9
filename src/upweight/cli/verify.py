"""upweight verify: how far the scores of a method agree with retraining."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import upweight
from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source, choose_queries
from upweight.cli.option_groups import expand_options
from upweight.cli.options import (
    Folder,
    OldReport,
    OptionalOut,
    PrintOptions,
    Query,
    ScoreOptions,
    Seeds,
    Task,
    renamed_option,
    require_output,
)
from upweight.cli.output import page_keys, print_json, print_model, print_notes, print_table
from upweight.cli.table_options import TableOptions

if TYPE_CHECKING:
    from upweight.evaluate.brittleness import Brittleness
    from upweight.evaluate.verification import Check

CHECK_HEAD = ("", "slope", "Pearson", "Spearman", "R²", "pairs")
FLIP_COLUMNS = 4  # columns of the table of flips to print; the ids would not fit on a terminal


@app.command()
@expand_options
def verify(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    query: Query = None,
    removals: Annotated[
        int, typer.Option(min=1, help="How many removals to retrain: half single examples, half random groups.")
    ] = 32,
    seeds: Seeds = 1,
    brittle: Annotated[
        bool, typer.Option("--brittleness", help="Also find how few removed examples flip each prediction.")
    ] = False,
    folder: Folder = None,
    out: OptionalOut = None,
    old_report: OldReport = None,
    scoring: ScoreOptions,
    printing: PrintOptions,
) -> None:
    """Retrain without some examples, and measure how far the scores of a method agree with the actual effects."""
    source = Source(task, table, scoring.measure, scoring.at)
    page = renamed_option(out, old_report, "--report", "--out")
    require_output(page, task)
    requested = scoring.recipe()
    from upweight.evaluate.verify import verify as run
    from upweight.methods.registry import first_choice
    from upweight.report.evaluation import write_evaluation

    stages = {"read": f"Reading {task.name}", "search": "Removing examples until predictions flip"}
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, query, scoring.seed)
        model, train, queries = inputs.model, inputs.train, inputs.queries
        chosen, why_chosen = choose_queries(model, queries, query)
        queries = queries.select(chosen)
        progress("fit", 0, 1)
        recipe = first_choice(model, train) if requested is None else requested
        scores = recipe.fit(model, train).attribute(queries)
        progress("fit", 1, 1)
        progress("retrain", 0, removals * seeds)
        check = run(
            model, train, queries, scores, removals, seed=scoring.seed,
            retraining=upweight.Retraining(seeds=seeds, folder=folder, progress=progress),
        )  # fmt: skip
        flips = _brittleness(model, train, queries, scores, folder, progress) if brittle else None
        if page is not None:
            progress("report", 0, 1)
            write_evaluation(page, check, flips=flips, description=inputs.description)
            progress("report", 1, 1)
    warnings = [
        *inputs.notes,
        *why_chosen,
        *scores.diagnostics.get("warnings", ()),
        *check.verdict_warnings,
        *check.diagnostics["warnings"],
    ]
    if printing.as_json:
        brittleness = {} if flips is None else {"brittleness": flips.as_dict()}
        print_json({**check.as_dict(), **inputs.as_dict(), **brittleness, "warnings": warnings, **page_keys(page)})
    elif not printing.quiet:
        print_model(inputs)
        print_check(check, [] if flips else warnings, None if flips else page)
        if flips is not None:
            print_flips(flips, warnings, page)


def _brittleness(model: Any, train: Any, queries: Any, scores: Any, folder: Path | None, progress: Any) -> Brittleness:
    from upweight.evaluate.brittleness import brittleness

    # Results go to a subfolder: in the folder of the verification, a warning would say that the queries are others.
    retraining = upweight.Retraining(folder=folder and folder / "brittleness", progress=progress)
    return brittleness(model, train, queries, scores, retraining=retraining)


def print_flips(flips: Brittleness, warnings: list[str], page: Path | None) -> None:
    """Print how few removed examples flip each prediction."""
    from upweight.report.removal_curves import flip_table

    table = flip_table(flips)
    rows = [row[:FLIP_COLUMNS] for row in table["rows"]]
    print_table("Brittleness: how few removed examples flip a prediction", table["head"][:FLIP_COLUMNS], rows)
    print_notes([table["summary"]], warnings, page)


def print_check(check: Check, warnings: list[str], page: Path | None) -> None:
    """Print how far predicted and actual effects agree."""
    from upweight.evaluate.agreement import finite_or_none, formatted

    rows, calibrated = [], check.scores.unit == "EFFECT"  # the sizes of RANK scores mean nothing
    for name, kind in (("without one example", "one"), ("without a group", "group")):
        if any(removal.kind == kind for removal in check.removals):
            agreement = check.of(kind)  # type: ignore[arg-type]
            slope, r2 = (agreement.slope, agreement.r2) if calibrated else (None, None)
            numbers = [formatted(v) for v in (slope, agreement.pearson, agreement.spearman, r2)]
            rows.append([name, *numbers, str(agreement.count)])
    method = check.scores.recipe.get("method", "scores")
    title = f"{method} ({check.judged.unit}) compared with {check.diagnostics['trainings']} trainings"
    print_table(title, CHECK_HEAD, rows)
    ceiling, coverage = check.ceiling, check.coverage() if calibrated else None
    notes = [f"Verdict: {check.judge()}, by {check.judged_removals}."]
    notes += [] if ceiling is None else [f"Noise ceiling {formatted(ceiling.value)}: {ceiling.note}."]
    if coverage is not None and finite_or_none(coverage.rate) is not None:
        notes.append(
            f"{coverage.rate:.0%} of actual effects lie inside their {coverage.level:.0%} intervals, which come from "
            f"other removals; {len(check.removals)} removals guarantee {coverage.promised:.0%}."
        )
    print_notes(notes, warnings, page)
