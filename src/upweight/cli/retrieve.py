"""upweight retrieve: the strongest of many training examples, by candidates that an exact method scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import upweight
from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source, choose_queries, number_of_queries
from upweight.cli.option_groups import expand_options
from upweight.cli.options import Out, PrintOptions, Query, ScoreOptions, Task, require_output
from upweight.cli.output import print_application, signed
from upweight.cli.store import opened_store
from upweight.cli.table_options import TableOptions

EXAMPLES_PRINTED = 5


@app.command()
@expand_options
def retrieve(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    query: Query = None,
    number: Annotated[
        str | None,
        typer.Option(
            "--queries",
            metavar="N|all",
            help="How many queries to answer if none is named, mistakes first. Default: at most 8 mistakes.",
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Choose candidates from this store (see `upweight store build`)."),
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many proponents and opponents of each query.")] = 10,
    candidates: Annotated[int, typer.Option(min=1, help="Candidates of each method, at each end.")] = 100,
    audit_queries: Annotated[
        int,
        typer.Option(min=0, help="Score all training examples for this many of the queries, to certify the others."),
    ] = 0,
    audit_rows: Annotated[
        int, typer.Option(min=0, help="Score this many other training examples, to bound what was missed.")
    ] = 0,
    out: Out = Path("retrieved.html"),
    scoring: ScoreOptions,
    printing: PrintOptions,
) -> None:
    """Find the strongest of many training examples: cheap methods choose candidates, an exact one scores them."""
    source, opened = Source(task, table, scoring.measure, scoring.at), opened_store(store)
    require_output(out, task)
    requested, query_limit = scoring.recipe(), number_of_queries(number, query)
    from upweight.core.storable import Storable
    from upweight.methods.registry import first_choice
    from upweight.report.retrieved_page import audit_sentences

    stages = {
        "read": f"Reading {task.name}",
        "retrieve": "Choosing candidates",
        "score": "Scoring candidates exactly",
    }
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, query, scoring.seed)
        model, train = inputs.model, inputs.train
        chosen, _ = choose_queries(model, inputs.queries, query, query_limit)
        queries = inputs.queries.select(chosen)
        settings: dict[str, Any] = {"candidates": candidates, "k": k}
        if requested is not None or not isinstance(model, Storable):
            settings["method"] = first_choice(model, train) if requested is None else requested
        audit = None
        if audit_queries or audit_rows:
            audit = upweight.RetrievalAudit(queries=audit_queries, rows=audit_rows, seed=scoring.seed)
        retrieval = upweight.Retrieval(**settings)
        result = upweight.retrieve(model, train, queries, retrieval, store=opened, audit=audit, progress=progress)
    lines = []
    for identifier in result.query_ids.tolist():
        best = result.proponents(identifier)[:EXAMPLES_PRINTED]
        listed = ", ".join(f"{example.id} ({signed(example.score)}; {', '.join(example.by)})" for example in best)
        lines.append(f"{identifier}: {listed or 'no candidate raises its measurement'}")
    print_application(result, inputs, out, printing, [*lines, *audit_sentences(result)])
