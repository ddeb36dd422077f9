"""upweight flip-set: the smallest set of training examples without which one would see something else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source, named_queries, train_id
from upweight.cli.option_groups import expand_options
from upweight.cli.options import Out, PrintOptions, ScoreOptions, Task, require_output
from upweight.cli.output import print_application
from upweight.cli.table_options import TableOptions

IDS_PRINTED = 20


@app.command("flip-set")
@expand_options
def flip_set(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    query: Annotated[
        list[str] | None,
        typer.Option(help="Id of a query; one for its class, several to compare them. Default: all are compared."),
    ] = None,
    against: Annotated[float | None, typer.Option(help="A number that the one measurement is compared with.")] = None,
    significance: Annotated[
        float | None, typer.Option(help="Whether a coefficient is significant at this level, e.g. 0.05.")
    ] = None,
    same: Annotated[
        str | None, typer.Option(help="Column: only training examples with the queries' value there may be removed.")
    ] = None,
    candidate: Annotated[
        list[str] | None, typer.Option(help="Id of a training example that may be removed; may be repeated.")
    ] = None,
    most: Annotated[int | None, typer.Option(min=1, help="The largest removal that is tried.")] = None,
    proof: Annotated[bool, typer.Option(help="Retrain every set that is tried.")] = True,
    noun: Annotated[str, typer.Option(help="What training examples are called in sentences, e.g. ratings.")] = (
        "training examples"
    ),
    out: Out = Path("flip-set.html"),
    scoring: ScoreOptions,
    printing: PrintOptions,
) -> None:
    """Find the smallest set of training examples without which another prediction or item would be first."""
    source = Source(task, table, scoring.measure, scoring.at)
    require_output(out, task)
    if same is not None and candidate:
        raise typer.BadParameter("name a column or ids, not both", param_hint="--same / --candidate")
    if significance is not None and against is not None:
        raise typer.BadParameter("pass one of them", param_hint="--significance / --against")
    recipe = scoring.recipe()
    import upweight

    number = against if significance is None else upweight.Significance(significance)
    search = upweight.SetSearch(method=recipe, most=most, proof=proof, noun=noun)
    stages = {"read": f"Reading {task.name}", "search": "Searching for the smallest set"}
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, query, scoring.seed)
        model, train, queries = inputs.model, inputs.train, inputs.queries
        chosen: Any = queries.select(named_queries(queries, query)) if query else queries
        if not query and model.parameter_query() is not None:
            chosen = None
        result = upweight.flip_set(
            model,
            train,
            chosen,
            against=number,
            candidates=[train_id(train, text, "--candidate") for text in candidate] if candidate else same,
            search=search,
            retraining=upweight.Retraining(seeds=[scoring.seed], progress=progress),
        )
    lines = [result.sentence]
    if result.removed:
        names = ", ".join(map(str, result.removed[:IDS_PRINTED])) + (", …" if len(result.removed) > IDS_PRINTED else "")
        lines.append(f"Removed: {names}")
    if result.is_smallest:
        lines.append("No smaller set of candidates does it: all of them were retrained.")
    print_application(result, inputs, out, printing, lines)
