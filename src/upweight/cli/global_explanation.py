"""upweight global-explanation: the few local models that together show which features a model uses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source
from upweight.cli.option_groups import expand_options
from upweight.cli.options import Out, PrintOptions, ScoreOptions, Task, require_output
from upweight.cli.output import print_application
from upweight.cli.table_options import TableOptions

FEATURES_PRINTED = 10


@app.command("global-explanation")
@expand_options
def global_explanation(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many local models to pick.")] = 5,
    candidates: Annotated[int, typer.Option(min=1, help="Of how many.")] = 50,
    of: Annotated[
        Literal["queries", "influential"],
        typer.Option(help="Local models of queries, or of the training examples that matter most to all queries."),
    ] = "queries",
    samples: Annotated[int, typer.Option(min=10, help="How many neighbours to draw for each.")] = 1000,
    out: Out = Path("global-explanation.html"),
    scoring: ScoreOptions,
    printing: PrintOptions,
) -> None:
    """Pick a few local models that together show which features the model uses (SP-LIME)."""
    source = Source(task, table, scoring.measure, scoring.at)
    require_output(out, task)
    recipe = scoring.recipe()
    stages = {"read": f"Reading {task.name}", "explain": "Making local models"}
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, None, scoring.seed)
        from upweight.applications.global_explanation import Pick
        from upweight.applications.global_explanation import global_explanation as run
        from upweight.applications.interpretable.choice import Neighbours

        pick = Pick(k=k, candidates=candidates, of=of)
        neighbours = Neighbours(samples=samples, seed=scoring.seed)
        result = run(
            inputs.model, inputs.queries, inputs.train, recipe, pick=pick, neighbours=neighbours, progress=progress
        )
    lines = [f"{result!r}.", "Importance:"]
    lines += [f"  {value:.3g}  {name}" for name, value in list(result.importance.items())[:FEATURES_PRINTED]]
    print_application(result, inputs, out, printing, lines)
