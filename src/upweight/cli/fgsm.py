"""upweight fgsm: predictions that flip when every number of a query moves by the same small amount."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source, choose_queries
from upweight.cli.option_groups import expand_options
from upweight.cli.options import MeasureOptions, Out, PrintOptions, Query, Task, require_output
from upweight.cli.output import print_application
from upweight.cli.table_options import TableOptions

FLIPPED_PRINTED = 10


@app.command()
@expand_options
def fgsm(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    query: Query = None,
    radius: Annotated[float, typer.Option(help="How far every number moves, in the unit of the inputs.")],
    low: Annotated[float | None, typer.Option(help="The inputs are cut to no less than this.")] = None,
    high: Annotated[float | None, typer.Option(help="The inputs are cut to no more than this.")] = None,
    towards: Annotated[str | None, typer.Option(help="A label towards which all queries move.")] = None,
    out: Out = Path("fgsm.html"),
    measured: MeasureOptions,
    printing: PrintOptions,
) -> None:
    """Move every number of queries of a network by a little, against their labels, and show what is predicted then."""
    source = Source(task, table, measured.measure, measured.at)
    require_output(out, task)
    with show_progress({"read": f"Reading {task.name}"}, printing) as progress:
        inputs = source.read(progress, query, measured.seed)
        model, queries = inputs.model, inputs.queries
        chosen = queries.select(choose_queries(model, queries, query)[0]) if query else queries
        from upweight.applications.fgsm import fgsm as run

        label = None if towards is None else _label(model.predict(chosen).classes, towards)
        result = run(model, chosen, radius, low=low, high=high, towards=label)
    before, after = (dict(zip(chosen.ids.tolist(), predicted, strict=True)) for predicted in result.predicted)
    flipped = result.flipped
    lines = [f"{result!r}.", *(f"{i}: {before[i]} → {after[i]}" for i in flipped[:FLIPPED_PRINTED])]
    if len(flipped) > FLIPPED_PRINTED:
        lines.append(f"and {len(flipped) - FLIPPED_PRINTED} more, on the page")
    print_application(result, inputs, out, printing, lines)


def _label(classes: tuple[object, ...], name: str) -> object:
    by_name = {str(label): label for label in classes}
    if classes and name not in by_name:
        raise typer.BadParameter(f"expected one of {', '.join(by_name)}, got {name}", param_hint="--towards")
    return by_name.get(name, name)
