"""upweight tree: which small decision tree predicts what the model predicts?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source
from upweight.cli.option_groups import expand_options
from upweight.cli.options import Out, PrintOptions, Seed, Task, require_output
from upweight.cli.output import print_application
from upweight.cli.table_options import TableOptions


@app.command()
@expand_options
def tree(
    task: Task,
    *,
    table: TableOptions,
    leaves: Annotated[int, typer.Option(min=2, help="The largest number of leaves.")] = 8,
    samples: Annotated[int, typer.Option(min=100, help="Rows that are drawn for each node.")] = 2000,
    out: Out = Path("tree.html"),
    seed: Seed = 0,
    printing: PrintOptions,
) -> None:
    """Extract a small decision tree that predicts what the model predicts."""
    source = Source(task, table)
    require_output(out, task)
    import upweight

    with show_progress({"read": f"Reading {task.name}"}, printing) as progress:
        inputs = source.read(progress, None, seed)
        result = upweight.extract_tree(
            inputs.model, inputs.train, inputs.queries, leaves=leaves, samples=samples, seed=seed
        )
    lines = [f"{result!r}."]
    lines += [f"{predicted}: {' and '.join(conditions) or 'always'}" for conditions, predicted in result.rules()]
    print_application(result, inputs, out, printing, lines)
