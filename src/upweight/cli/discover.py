"""upweight discover: which groups of training examples, that nobody named, harm the queries?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source, recipe_for
from upweight.cli.option_groups import expand_options
from upweight.cli.options import At, Method, Out, PrintOptions, Seed, Task, require_output
from upweight.cli.output import print_application, signed
from upweight.cli.table_options import TableOptions


@app.command()
@expand_options
def discover(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    most: Annotated[int, typer.Option(min=1, help="Groups at most.")] = 5,
    smallest: Annotated[float, typer.Option(help="Smallest group, as a share of the training examples.")] = 0.01,
    largest: Annotated[float, typer.Option(help="Largest group, as a share of the training examples.")] = 0.15,
    level: Annotated[float, typer.Option(help="How often a group is reported though none has an effect.")] = 0.05,
    out: Out = Path("discover.html"),
    method: Method = None,
    at: At = None,
    seed: Seed = 0,
    printing: PrintOptions,
) -> None:
    """Find groups of training examples, in words, without which the queries do better, and retrain to confirm it."""
    source = Source(task, table, None, at)
    require_output(out, task)
    recipe = None if method is None else recipe_for(method, seed)
    import upweight

    try:
        search = upweight.GroupDiscovery(most=most, smallest=smallest, largest=largest, level=level, seed=seed)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--smallest / --largest / --level") from None
    with show_progress({"read": f"Reading {task.name}", "search": "Searching for groups"}, printing) as progress:
        inputs = source.read(progress, None, seed)
        result = upweight.discover(inputs.model, inputs.train, inputs.queries, recipe, search=search, progress=progress)
    lines = [result.sentence]
    for group in result.groups:
        low, high = group.interval
        sentence = f"{group.name}: {len(group.ids):,} training examples, {signed(group.effect)} without them"
        lines.append(f"{sentence} (90 %: {signed(low)} to {signed(high)}; predicted {signed(group.predicted)}).")
    print_application(result, inputs, out, printing, lines)
