"""upweight local-model: which features decided a prediction, near the query and among influential training examples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source, class_label, one_query
from upweight.cli.option_groups import expand_options
from upweight.cli.options import Label, OneQuery, Out, PrintOptions, ScoreOptions, Task, require_output
from upweight.cli.output import print_application, signed
from upweight.cli.table_options import TableOptions


@app.command("local-model")
@expand_options
def local_model(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    query: OneQuery = None,
    label: Label = None,
    features: Annotated[int, typer.Option(min=1, help="How many features to choose.")] = 10,
    samples: Annotated[int | None, typer.Option(min=10, help="How many neighbours to draw. Default: 5,000.")] = None,
    influential: Annotated[
        int, typer.Option(min=0, help="How many influential training examples make up the second neighbourhood.")
    ] = 100,
    out: Out = Path("local-model.html"),
    scoring: ScoreOptions,
    printing: PrintOptions,
) -> None:
    """Explain a prediction by the features near it: LIME, beside a surrogate on influential training examples."""
    source = Source(task, table, scoring.measure, scoring.at)
    require_output(out, task)
    recipe = scoring.recipe()
    stages = {"read": f"Reading {task.name}", "explain": "Drawing neighbours"}
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, None if query is None else [query], scoring.seed)
        model, train = inputs.model, inputs.train
        from upweight.applications.interpretable.choice import Neighbours
        from upweight.applications.local_model import local_model as run

        chosen = one_query(model, inputs.queries, query)
        neighbours = Neighbours(samples=samples, influential=influential, seed=scoring.seed)
        named = None if label is None else class_label(train, label)
        progress("explain", 0, 1)
        result = run(model, chosen, train, recipe, label=named, features=features, neighbours=neighbours)
        progress("explain", 1, 1)
    lines = [f"Query {chosen.ids[0]}: {result!r}"]
    for name, surrogate in result.surrogates.items():
        lines.append(f"On {name} neighbours:")
        lines += [f"  {signed(coefficient)}  {feature}" for feature, coefficient in surrogate.effects.items()]
    print_application(result, inputs, out, printing, lines)
