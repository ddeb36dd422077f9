"""upweight poisoned: which predictions are targets of an attack on the training set, and which examples attack them?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source, named_queries, recipe_for
from upweight.cli.option_groups import expand_options
from upweight.cli.options import Method, Out, PrintOptions, Seed, Task, require_output
from upweight.cli.output import print_application
from upweight.cli.table_options import TableOptions

QUERIES_PRINTED = 20


@app.command()
@expand_options
def poisoned(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    query: Annotated[
        list[str] | None,
        typer.Option(help="Id of a query whose attackers are removed, flagged or not; may be repeated."),
    ] = None,
    targets: Annotated[
        int, typer.Option(min=0, help="How many flagged queries to check by retraining; 0 for none.")
    ] = 3,
    k: Annotated[
        int,
        typer.Option(min=1, help="A query is judged by its k-th strongest training example; not above the poisons."),
    ] = 3,
    level: Annotated[float, typer.Option(help="The share of clean queries that may be flagged.")] = 0.01,
    out: Out = Path("poisoned.html"),
    method: Method = None,
    seed: Seed = 0,
    printing: PrintOptions,
) -> None:
    """Flag predictions that look like targets of poisoned training examples, and retrain without these to check it."""
    source = Source(task, table)
    require_output(out, task)
    recipe = None if method is None else recipe_for(method, seed)
    import upweight

    fit = upweight.FIT(k=k, level=level)
    stages = {
        "read": f"Reading {task.name}",
        "fit": "Fitting the method",
        "attribute": "Scoring the training set",
        "retrain": "Retraining without attackers",
    }
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, query, seed)
        result = upweight.poisoned(
            inputs.model,
            inputs.train,
            inputs.queries,
            recipe,
            fit=fit,
            targets=named_queries(inputs.queries, query) if query else targets,
            retraining=upweight.Retraining(seeds=[seed], progress=progress),
        )
    shown = [suspect for suspect in result.suspects if suspect.flagged or suspect.mitigation is not None]
    lines = [f"{result!r}."]
    lines += [f"{s.id} (predicted {s.predicted}): {s.sentence}" for s in shown[:QUERIES_PRINTED]]
    if len(shown) > QUERIES_PRINTED:
        lines.append(f"and {len(shown) - QUERIES_PRINTED:,} more, on the page and in --json.")
    if result.neighbours is not None:
        lines.append(f"{result.neighbours!r}.")
    before, after = result.accuracy
    if before is not None and after is not None and result.removed:
        lines.append(
            f"{len(result.removed):,} training examples removed: accuracy on queries that are not flagged "
            f"{before:.3f} before, {after:.3f} after."
        )
    print_application(result, inputs, out, printing, [*lines, *result.diagnostics["notes"]])
