"""upweight patch: apply reviewed labels and retrain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.cleaned_table import require_table_output, write_cleaned
from upweight.cli.inputs import Source
from upweight.cli.option_groups import expand_options
from upweight.cli.options import PrintOptions, Seed, Task
from upweight.cli.output import print_json, print_line, print_model, signed
from upweight.cli.table_options import TableOptions


@app.command()
@expand_options
def patch(
    task: Task,
    decisions: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The patch saved by a review page.")],
    *,
    table: TableOptions,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the table with the decisions carried out to this file.")
    ] = None,
    seed: Seed = 0,
    printing: PrintOptions,
) -> None:
    """Apply reviewed labels (all of them or none), retrain, and compare both models on the held-out examples."""
    source = Source(task, table)
    require_table_output(out, source, decisions)
    from upweight.applications.patch import Patch, repair

    loaded = Patch.load(decisions)
    with show_progress({"read": f"Reading {task.name}"}, printing) as progress:
        inputs = source.read(progress, None, seed)
        model, train, queries = inputs.model, inputs.train, inputs.queries
    repaired = repair(model, train, loaded, queries, seed).as_dict()
    if out is not None:
        write_cleaned(out, source, loaded)
    if printing.as_json:
        print_json({**repaired, **inputs.as_dict(), "table": None if out is None else str(out.resolve())})
    elif not printing.quiet:
        print_model(inputs)
        for note in inputs.notes:
            print_line(f"Note: {note}")
        relabelled, dropped, left = repaired["relabelled"], repaired["dropped"], repaired["examples"]
        print_line(f"{relabelled} relabelled, {dropped} dropped; {left:,} training examples left")
        for name in ("before", "after"):
            accuracy, measured = repaired[name]["accuracy"], repaired[name]["measured"]
            text = "" if accuracy is None else f"accuracy {accuracy:.4f}, "
            print_line(f"{name}: {text}mean {model.measurement} {signed(measured)}")
        if out is not None:
            print_line(f"Table: {out}")
