"""upweight evaluate: methods and baselines compared by accuracy (LDS) and cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import upweight
from upweight.cli.app import app, show_progress
from upweight.cli.evaluation_tables import (
    ceiling_notes,
    print_comparison,
    print_criteria,
    print_curve,
    print_gap,
    verdicts,
)
from upweight.cli.further_evaluations import GAP_REMOVALS, MAX_FURTHER_QUERIES, FurtherEvaluations
from upweight.cli.inputs import Source, ids_in_file, named_queries, recipe_for, train_id
from upweight.cli.option_groups import expand_options
from upweight.cli.options import (
    Folder,
    MeasureOptions,
    OldReport,
    OptionalOut,
    PrintOptions,
    Seeds,
    Task,
    renamed_option,
    require_output,
)
from upweight.cli.output import page_keys, print_json, print_model, print_notes
from upweight.cli.table_options import TableOptions

if TYPE_CHECKING:
    from upweight.core.examples import Examples

MAX_QUERIES = 100  # measured if none are named

Methods = Annotated[list[str], typer.Option("--method", help="May be repeated; `upweight methods` lists them.")]
Planted = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="File with the ids of examples whose labels are known to be wrong, one per line: which method finds them?",
    ),
]


@app.command()
@expand_options
def evaluate(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    query: Annotated[
        list[str] | None, typer.Option(help=f"Id of a query; may be repeated. Default: the first {MAX_QUERIES}.")
    ] = None,
    method: Methods = ["influence"],  # noqa: B006 - typer copies it
    subsets: Annotated[int, typer.Option(min=5, help="How many models to retrain on random subsets.")] = 100,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the training set in each subset.")] = 0.5,
    seeds: Seeds = 1,
    planted: Planted = None,
    curve: Annotated[
        bool,
        typer.Option(
            "--removal-curve",
            help=f"Also remove the strongest examples of the first {MAX_FURTHER_QUERIES} queries, and retrain.",
        ),
    ] = False,
    criteria: Annotated[
        bool,
        typer.Option(
            "--criteria",
            help=f"Also retrain without the strongest examples of the first {MAX_FURTHER_QUERIES} queries, and on them "
            "alone.",
        ),
    ] = False,
    why: Annotated[
        bool,
        typer.Option(
            "--why",
            help=f"Also split the gap between the best method and retraining into five parts, for {GAP_REMOVALS} "
            f"removals and the first {MAX_FURTHER_QUERIES} queries; for networks.",
        ),
    ] = False,
    folder: Folder = None,
    out: OptionalOut = None,
    old_report: OldReport = None,
    measured: MeasureOptions,
    printing: PrintOptions,
) -> None:
    """Compare methods and baselines with models retrained on random subsets: accuracy (LDS) and cost."""
    source = Source(task, table, measured.measure, measured.at)
    page = renamed_option(out, old_report, "--report", "--out")
    require_output(page, task, planted)
    if not 0 < share < 1:
        raise typer.BadParameter(f"expected a share between 0 and 1, got {share}", param_hint="--share")
    recipes = {name: recipe_for(name, measured.seed, keep=share) for name in dict.fromkeys(method)}
    from upweight.evaluate.compare import compare
    from upweight.evaluate.removals import subsets as draw_subsets
    from upweight.evaluate.retrain_truth import retrain_truth
    from upweight.report.evaluation import write_evaluation

    stages = {
        "read": f"Reading {task.name}",
        "retrain": "Retraining on subsets",
        "compare": "Scoring with each method",
        "curve": "Removing the strongest examples and retraining",
        "criteria": "Retraining on the strongest examples alone",
        "why": "Following the net from retraining to influence",
    }
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, query, measured.seed)
        model, train, queries = inputs.model, inputs.train, inputs.queries
        queries, left_out = _select(queries, query)
        mislabeled = [] if planted is None else _read_ids(planted, train)
        progress("retrain", 0, subsets * seeds)
        truth = retrain_truth(
            model, train, queries, draw_subsets(train, subsets, share, measured.seed),
            retraining=upweight.Retraining(seeds=seeds, folder=folder, progress=progress),
        )  # fmt: skip
        progress("compare", 0, len(recipes))
        comparison = compare(
            recipes, model, train, queries, truth, planted=mislabeled,
            retraining=upweight.Retraining(processes=1, how="processes", progress=progress),
        )  # fmt: skip
        further = FurtherEvaluations(
            comparison=comparison,
            model=model,
            train=train,
            queries=queries.take(range(min(len(queries), MAX_FURTHER_QUERIES))),
            seeds=seeds,
            folder=folder,
            progress=progress,
        )
        curves = further.removal_curves() if curve else {}
        alone = further.criteria() if criteria else None
        gap = further.gap(measured.seed) if why else None
        if page is not None:
            progress("report", 0, 1)
            write_evaluation(page, comparison, curves=curves, criteria=alone, gap=gap, description=inputs.description)
            progress("report", 1, 1)
    curve_warnings = dict.fromkeys(warning for each in curves.values() for warning in each.warnings)
    warnings = [*inputs.notes, *left_out, *comparison.warnings, *curve_warnings, *(alone.warnings if alone else ())]
    warnings += gap.warnings if gap else ()
    if printing.as_json:
        removal_curves: dict[str, Any] = {"criteria": alone.as_dict()} if alone else {}
        if gap is not None:
            removal_curves["gap"] = gap.as_dict()
        if curve:
            removal_curves["removal_curves"] = {name: each.as_dict() for name, each in curves.items()}
        print_json(
            {**comparison.as_dict(), **inputs.as_dict(), **removal_curves, "warnings": warnings, **page_keys(page)}
        )
    elif not printing.quiet:
        print_model(inputs)
        title = (
            f"{len(truth.removals)} models retrained on {share:.0%} of {len(train)} examples; {len(queries)} queries"
        )
        print_comparison(comparison, title, bool(mislabeled))
        for name, each in curves.items():
            print_curve(name, each)
        if alone is not None:
            print_criteria(alone)
        if gap is not None:
            print_gap(gap)
        print_notes([*verdicts(comparison), *ceiling_notes(comparison)], warnings, page)


def _select(queries: Examples, requested: list[str] | None) -> tuple[Examples, list[str]]:
    """The requested queries, else the first ones, with a note if others are left out."""
    if requested:
        return queries.select(named_queries(queries, requested)), []
    if len(queries) <= MAX_QUERIES:
        return queries, []
    note = f"Only the first {MAX_QUERIES} of {len(queries)} queries were measured; name others with --query."
    return queries.take(range(MAX_QUERIES)), [note]


def _read_ids(path: Path, train: Examples) -> list[Any]:
    """The training ids listed in the file, one per line."""
    texts = ids_in_file(path)
    if not texts:
        raise typer.BadParameter(f"{path.name} lists no training example", param_hint="--planted")
    return [train_id(train, text, "--planted") for text in texts]
