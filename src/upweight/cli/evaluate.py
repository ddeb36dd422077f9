"""upweight evaluate: methods and baselines compared by accuracy (LDS) and cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import upweight
from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source, named_queries, recipe_for, train_id
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
from upweight.cli.output import page_keys, print_json, print_model, print_notes, print_table
from upweight.cli.table_options import TableOptions

if TYPE_CHECKING:
    from upweight.core.examples import Examples
    from upweight.core.progress import Progress
    from upweight.core.scores import Scores
    from upweight.evaluate.compare import Comparison
    from upweight.evaluate.example_criteria import ExampleCriteria
    from upweight.evaluate.influence_gap import InfluenceGap
    from upweight.evaluate.removal_curve import RemovalCurve

MAX_QUERIES = 100  # measured if none are named
MAX_CURVE_QUERIES = 10  # of these, the first have a removal curve
GAP_REMOVALS = 12  # that the gap is measured on

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
def evaluate(  # noqa: PLR0913 - a command line has as many options as it has
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
            help=f"Also remove the strongest examples of the first {MAX_CURVE_QUERIES} queries, and retrain.",
        ),
    ] = False,
    criteria: Annotated[
        bool,
        typer.Option(
            "--criteria",
            help=f"Also retrain without the strongest examples of the first {MAX_CURVE_QUERIES} queries, and on them "
            "alone.",
        ),
    ] = False,
    why: Annotated[
        bool,
        typer.Option(
            "--why",
            help=f"Also split the gap between the best method and retraining into five parts, for {GAP_REMOVALS} "
            f"removals and the first {MAX_CURVE_QUERIES} queries; for networks.",
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
        curves = _removal_curves(comparison, model, train, queries, seeds, folder, progress) if curve else {}
        alone = _criteria(comparison, model, train, queries, seeds, folder, progress) if criteria else None
        gap = _gap(comparison, model, train, queries, (measured.seed, folder, progress)) if why else None
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
        print_notes([*_verdicts(comparison), *_ceiling_note(comparison)], warnings, page)


def _removal_curves(
    comparison: Comparison,
    model: Any,
    train: Examples,
    queries: Examples,
    seeds: int,
    folder: Path | None,
    progress: Progress,
) -> dict[str, RemovalCurve]:
    """Method → its removal curve over the first queries."""
    from upweight.evaluate.removal_curve import removal_curve

    queries = queries.take(range(min(len(queries), MAX_CURVE_QUERIES)))
    # Results go to a subfolder: in the folder of the comparison, a warning would say that the queries are others.
    folder = folder and folder / "curves"
    methods = {e.name: _first(e.scores, queries) for e in comparison.entries if e.kind == "method" and e.scores}
    curves: dict[str, RemovalCurve] = {}

    def report_curve(stage: str, done: int, total: int, /) -> None:
        progress("curve", len(curves) * total + done, len(methods) * total)

    progress("curve", 0, 1)
    for name, scores in methods.items():
        retraining = upweight.Retraining(seeds=seeds, folder=folder, progress=report_curve)
        curves[name] = removal_curve(model, train, queries, scores, retraining=retraining)
    return curves


def _criteria(
    comparison: Comparison,
    model: Any,
    train: Examples,
    queries: Examples,
    seeds: int,
    folder: Path | None,
    progress: Progress,
) -> ExampleCriteria:
    """Necessity and sufficiency of the strongest examples of the first queries, for every method and baseline."""
    from upweight.evaluate.example_criteria import example_criteria

    queries = queries.take(range(min(len(queries), MAX_CURVE_QUERIES)))
    scores = {e.name: _first(e.scores, queries) for e in comparison.entries if e.scores is not None}

    def report(stage: str, done: int, total: int, /) -> None:
        progress("criteria", done, total)

    retraining = upweight.Retraining(seeds=seeds, folder=folder and folder / "criteria", progress=report)
    return example_criteria(model, train, queries, scores, retraining=retraining)


def _gap(
    comparison: Comparison,
    model: Any,
    train: Examples,
    queries: Examples,
    settings: tuple[int, Path | None, Progress],
) -> InfluenceGap:
    """The parts of the gap of the best method, for the first queries; settings are the seed, folder and progress."""
    from upweight.evaluate.influence_gap import influence_gap
    from upweight.evaluate.removals import default_removals

    seed, folder, progress = settings
    entry = next((e for e in comparison.entries if e.kind == "method" and e.scores is not None), None)
    if entry is None or entry.scores is None:
        raise typer.BadParameter("no method could score this model, so there is no gap to split", param_hint="--why")
    queries = queries.take(range(min(len(queries), MAX_CURVE_QUERIES)))
    scores = _first(entry.scores, queries)

    def report(stage: str, done: int, total: int, /) -> None:
        progress("why", done, total)

    retraining = upweight.Retraining(folder=folder and folder / "why", progress=report)
    removals = default_removals(scores, train, GAP_REMOVALS, seed)
    return influence_gap(model, train, queries, scores, removals, retraining=retraining)


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


def _verdicts(comparison: Comparison) -> list[str]:
    """The verdict on every method that has scores."""
    from upweight.evaluate.verdict import words

    methods = [entry for entry in comparison.entries if entry.kind == "method" and entry.scores is not None]
    return [f"Verdict on {entry.name}: {words(entry.verdict)}." for entry in methods]


def _ceiling_note(comparison: Comparison) -> list[str]:
    from upweight.evaluate.agreement import formatted

    ceiling = next((entry.lds.ceiling for entry in comparison.entries if entry.lds), None)
    return [] if ceiling is None else [f"Noise ceiling {formatted(ceiling.value)}: {ceiling.note}."]


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
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    texts = [line for line in lines if line]
    if not texts:
        raise typer.BadParameter(f"{path.name} lists no training example", param_hint="--planted")
    return [train_id(train, text, "--planted") for text in texts]
