"""upweight mislabeled: which training labels or regression targets to review first."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import upweight
from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source
from upweight.cli.option_groups import expand_options
from upweight.cli.options import Out, PrintOptions, Seed, Task, require_output
from upweight.cli.output import print_json, print_line, print_model
from upweight.cli.table_options import TableOptions

if TYPE_CHECKING:
    from upweight.applications.suspects import Suspects

SUSPECTS_PRINTED = 10
Budget = Annotated[float, typer.Option(help="How many labels can be reviewed, or a share below 1.")]


@app.command()
@expand_options
def mislabeled(
    task: Task,
    *,
    table: TableOptions,
    budget: Budget = 0.1,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Folds for out-of-fold predictions. Default: 5, or fewer for few rows.")
    ] = None,
    out: Out = Path("review.html"),
    seed: Seed = 0,
    printing: PrintOptions,
) -> None:
    """Rank training labels or regression targets by how likely they are wrong, and write a page to review them."""
    source = Source(task, table)
    require_output(out, task)
    from upweight.applications.mislabeled import mislabeled as run
    from upweight.report.write_page import write_page

    stages = {
        "read": f"Reading {task.name}",
        "fit": "Computing the self-influence of each label",
        "retrain": "Retraining on folds, to predict labels out of fold",
        "attribute": "Computing the harm to the held-out examples",
    }
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, None, seed)
        model, train, queries = inputs.model, inputs.train, inputs.queries
        evaluation = None if queries.y is None else queries
        retraining = upweight.Retraining(processes=1, how="processes", seeds=[seed], progress=progress)
        suspects = run(model, train, budget=budget, evaluation=evaluation, folds=folds, retraining=retraining)
        write_page(out, suspects, description=inputs.description)
    notes = [*inputs.notes, *suspects.notes]
    if inputs.table is not None:
        held_out = f"The {len(queries):,} rows that were held out test the model; they are not reviewed."
        notes.append(f"{held_out} --seed {seed + 1} holds out others.")
    if printing.as_json:
        print_json({**suspects.as_dict(), **inputs.as_dict(), "notes": notes, "page": str(out.resolve())})
    elif not printing.quiet:
        print_model(inputs)
        for note in notes:
            print_line(f"Note: {note}")
        for row in suspects.as_dict()["suspects"][:SUSPECTS_PRINTED]:
            print_line(_target_line(row) if suspects.is_regression else _label_line(row))
        print_line(_page_line(suspects, out))
        if inputs.table is not None:
            print_line(f"Decisions saved there change the table: {_patch_command(source, seed)}")


def _label_line(row: dict[str, Any]) -> str:
    label, probability = row["label"], row["probability"]
    text = "" if probability is None else f"; probability of {label} {probability:.3f}"
    return f"{row['id']}: labelled {label}, suggested {row['suggested']}{text}"


def _target_line(row: dict[str, Any]) -> str:
    from upweight.report.wording import label_text, regression_text

    size = abs(row["residual"]) / row["noise"]
    return (
        f"{row['id']}: target {label_text(row['label'])}, predicted {regression_text(row['suggested'])}; "
        f"{size:.1f} standard deviations of the noise apart"
    )


def _page_line(suspects: Suspects, out: Path) -> str:
    noun = "targets" if suspects.is_regression else "labels"
    return f"Page to review {len(suspects.ids)} of {len(suspects.train):,} {noun}: {out}"


def _patch_command(source: Source, seed: int) -> str:
    """The command that writes the table with the decisions of the page; quoted, so that it can be pasted."""
    seeds = ["--seed", str(seed)] if seed else []
    options = [*source.table.as_arguments(), *seeds, "--out", f"cleaned_{source.task.name}"]
    return shlex.join(["upweight", "patch", str(source.task), "patch.json", *options])
