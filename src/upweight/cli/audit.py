"""upweight audit: are predictions supported by training examples that have to do with them?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source, named_queries
from upweight.cli.option_groups import expand_options
from upweight.cli.options import Out, PrintOptions, ScoreOptions, Task, require_output
from upweight.cli.output import print_application
from upweight.cli.table_options import TableOptions

PREDICTIONS_PRINTED = 20


@app.command()
@expand_options
def audit(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Column with the group or source of training examples and queries; may be repeated."),
    ] = None,
    query: Annotated[
        list[str] | None,
        typer.Option(help="Id of a query to audit; may be repeated. Default: all, which shows what is usual."),
    ] = None,
    k: Annotated[
        int, typer.Option("--k", "-k", min=1, help="How many of the strongest proponents to compare with chance.")
    ] = 20,
    level: Annotated[float, typer.Option(help="The share of honest predictions that may be flagged.")] = 0.01,
    out: Out = Path("audit.html"),
    scoring: ScoreOptions,
    printing: PrintOptions,
) -> None:
    """Rank predictions by how little their strongest training examples have to do with them."""
    source = Source(task, table, scoring.measure, scoring.at)
    require_output(out, task)
    recipe = scoring.recipe()
    import upweight

    stages = {"read": f"Reading {task.name}", "fit": "Fitting the method", "attribute": "Scoring the training set"}
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, query, scoring.seed)
        model, train, queries = inputs.model, inputs.train, inputs.queries
        chosen = queries.select(named_queries(queries, query)) if query else queries
        retraining = upweight.Retraining(progress=progress)
        explained = upweight.explain(model, train, chosen, recipe, removals=0, retraining=retraining)
        result = upweight.audit(explained, by or (), k=k, level=level)
    lines = [f"{result!r}."]
    flagged = [prediction for prediction in result.predictions if prediction.flagged]
    lines += [f"{p.id} (predicted {p.predicted}): {p.sentence}" for p in flagged[:PREDICTIONS_PRINTED]]
    if len(flagged) > PREDICTIONS_PRINTED:
        lines.append(f"and {len(flagged) - PREDICTIONS_PRINTED:,} more, on the page and in --json.")
    print_application(result, inputs, out, printing, [*lines, *result.diagnostics["notes"]])
