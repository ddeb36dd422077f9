"""upweight growing-spheres: the smallest change of a query that changes its prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source, class_label, one_query
from upweight.cli.option_groups import expand_options
from upweight.cli.options import Label, OneQuery, Out, PrintOptions, Seed, Task, require_output
from upweight.cli.output import print_application
from upweight.cli.table_options import TableOptions


@app.command("growing-spheres")
@expand_options
def growing_spheres(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    query: OneQuery = None,
    label: Label = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many of the nearest training enemies to list.")] = 5,
    samples: Annotated[int, typer.Option(min=1, help="How many rows to draw in every ring.")] = 2000,
    out: Out = Path("growing-spheres.html"),
    seed: Seed = 0,
    printing: PrintOptions,
) -> None:
    """Find the smallest change of a query that changes its prediction, and the nearest training examples across it."""
    source = Source(task, table)
    require_output(out, task)
    stages = {"read": f"Reading {task.name}", "search": "Searching rings around the query"}
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, None if query is None else [query], seed)
        model, train = inputs.model, inputs.train
        from upweight.applications.growing_spheres import Spheres
        from upweight.applications.growing_spheres import growing_spheres as run

        chosen = one_query(model, inputs.queries, query)
        named = None if label is None else class_label(train, label)
        progress("search", 0, 1)
        result = run(model, chosen, train, label=named, k=k, spheres=Spheres(samples=samples, seed=seed))
        progress("search", 1, 1)
    lines = [f"Query {chosen.ids[0]}: {result!r}"]
    for enemy in result.training:
        lines.append(f"Training example {enemy.id}, predicted {enemy.predicted}, is {enemy.distance:.3g} away")
    print_application(result, inputs, out, printing, lines)
