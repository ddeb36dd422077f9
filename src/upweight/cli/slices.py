"""upweight slices: which groups of training examples caused the failures in a slice of the queries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import upweight
from upweight.cli.app import app, show_progress
from upweight.cli.column_names import listed
from upweight.cli.inputs import Source, named_queries
from upweight.cli.option_groups import expand_options
from upweight.cli.options import (
    MeasureOptions,
    OldVerify,
    Out,
    PrintOptions,
    Query,
    Removals,
    Task,
    renamed_option,
    require_output,
)
from upweight.cli.output import print_application, signed, verdict_line
from upweight.cli.table_options import TableOptions

DEFAULT_REMOVALS = 8
GROUPS_PRINTED = 8
By = Annotated[
    list[str] | None, typer.Option(help="Column that groups the training set; may be repeated. `label` is the label.")
]


@app.command()
@expand_options
def slices(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    by: By = None,
    query: Query = None,
    out: Out = Path("slices.html"),
    removals: Removals = DEFAULT_REMOVALS,
    old_verify: OldVerify = None,
    measured: MeasureOptions,
    printing: PrintOptions,
) -> None:
    """Find the groups of training examples that caused the mistakes (or that harm the queries given)."""
    source = Source(task, table, measured.measure, measured.at)
    removals = renamed_option(removals, old_verify, "--verify", "--removals", DEFAULT_REMOVALS)
    require_output(out, task)
    if not by:
        raise typer.BadParameter(f"name the column that groups the training set: {_choices(source)}", param_hint="--by")
    from upweight.applications.slices import slices as run

    stages = {
        "read": f"Reading {task.name}",
        "fit": "Computing the effects of the groups",
        "retrain": "Retraining without groups",
    }
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, query, measured.seed)
        model, train, queries = inputs.model, inputs.train, inputs.queries
        failing = {"queries": named_queries(queries, query)} if query else None
        retraining = upweight.Retraining(processes=1, how="processes", seeds=[measured.seed], progress=progress)
        result = run(model, train, queries, upweight.Slicing(by, failing), removals=removals, retraining=retraining)
    worst = result.worst(k=GROUPS_PRINTED)
    lines = [f"{group}: mean effect {signed(effect)} on {result.measurement}" for group, effect in worst]
    lines = [verdict_line(result), *(lines or ["No group harms this slice."])]
    print_application(result, inputs, out, printing, lines)


def _choices(source: Source) -> str:
    """What --by can name: the columns of the table, which is read for this, or a phrase if there is a task file."""
    target = source.table.target
    if target is None:
        return f"label, or a column of the training set in {source.task.name}"
    columns = [str(name) for name in source.read_table().frame.columns if name != target]
    return f"label, or {listed(columns)}"
