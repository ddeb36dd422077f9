"""upweight inputs: which parts of the input decide, in queries and in the training examples behind them?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.input_recipes import RECIPES, input_recipe
from upweight.cli.inputs import Source, choose_queries
from upweight.cli.option_groups import expand_options
from upweight.cli.options import Out, PrintOptions, Query, ScoreOptions, Task, require_output
from upweight.cli.output import print_application, signed
from upweight.cli.table_options import TableOptions

PARTS_PRINTED = 4


@app.command("inputs")
@expand_options
def shared_inputs(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    query: Query = None,
    by: Annotated[
        str, typer.Option(help=f"How parts are attributed: {', '.join(RECIPES)}. All but erasure are for networks.")
    ] = "erasure",
    of: Annotated[str, typer.Option(help="Which output: predicted, label, or a class.")] = "predicted",
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many training examples beside each query.")] = 4,
    out: Out = Path("inputs.html"),
    scoring: ScoreOptions,
    printing: PrintOptions,
) -> None:
    """Show which words, columns or pixels decide, in queries and in the training examples behind them."""
    source = Source(task, table, scoring.measure, scoring.at)
    require_output(out, task)
    recipe, parts = scoring.recipe(), input_recipe(by, "--by")
    import upweight

    stages = {"read": f"Reading {task.name}", "fit": "Fitting the method", "attribute": "Scoring the training set"}
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, query, scoring.seed)
        model, train, queries = inputs.model, inputs.train, inputs.queries
        chosen, why_chosen = choose_queries(model, queries, query)
        retraining = upweight.Retraining(progress=progress)
        explained = upweight.explain(model, train, queries.select(chosen), recipe, removals=0, retraining=retraining)
        target = {str(c): c for c in model.predict(queries.select(chosen)).classes}.get(of, of)
        result = upweight.shared_inputs(model, explained, parts, of=target, k=k)
    lines = [f"{result!r}.", *why_chosen]
    for identifier in chosen:
        top = ", ".join(f"{p.name} {signed(p.attribution)}" for p in result.queries.top(identifier, PARTS_PRINTED))
        lines.append(f"{identifier}: {top}")
        for example in result.examples[identifier]:
            lines.append(f"  {example.id} ({signed(example.score)}): {example.overlap:.0%} in common")
    print_application(result, inputs, out, printing, lines)
