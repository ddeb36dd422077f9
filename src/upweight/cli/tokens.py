"""upweight tokens: which tokens of the strongest training texts?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source, choose_queries, recipe_for
from upweight.cli.option_groups import expand_options
from upweight.cli.options import Method, Out, PrintOptions, Query, Seed, Task, require_output
from upweight.cli.output import print_application, signed
from upweight.cli.table_options import TableOptions

TEXTS_PRINTED = 3  # of a query
TOKENS_PRINTED = 5  # of a text


@app.command()
@expand_options
def tokens(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    query: Query = None,
    by: Annotated[
        str, typer.Option(help="Scores by target token, or by position of the computation: target, position.")
    ] = "target",
    span: Annotated[
        tuple[int, int] | None,
        typer.Option(help="START STOP: measure only these tokens of the query, counted from 0.", show_default=False),
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many training texts beside each query.")] = 10,
    out: Out = Path("tokens.html"),
    method: Method = None,
    seed: Seed = 0,
    printing: PrintOptions,
) -> None:
    """Show which tokens of the strongest training texts act on each query; for language models in a task file."""
    source = Source(task, table)
    require_output(out, task)
    if by not in ("target", "position"):
        raise typer.BadParameter(f"expected target or position, got {by}", param_hint="--by")
    import upweight

    recipe = upweight.Influence(curvature=upweight.EKFAC()) if method is None else recipe_for(method, seed)
    stages = {"read": f"Reading {task.name}", "fit": "Fitting the method"}
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, query, seed)
        chosen, why_chosen = choose_queries(inputs.model, inputs.queries, query)
        progress("fit", 0, 1)
        fitted = recipe.fit(inputs.model, inputs.train)
        progress("fit", 1, 1)
        queries = inputs.queries.select(chosen)
        result = upweight.token_scores(fitted, queries, k=k, by="position" if by == "position" else "target", span=span)
    lines = [f"{result!r}.", f"Scores {result.kind}.", *why_chosen]
    for identifier in chosen:
        lines.append(f"{identifier}:")
        for text in result.sequences[identifier][:TEXTS_PRINTED]:
            strongest = ", ".join(f"{token!r} {signed(value)}" for token, value in text.strongest(TOKENS_PRINTED))
            lines.append(f"  {text.id} ({signed(text.score)}): {strongest}")
    print_application(result, inputs, out, printing, lines)
