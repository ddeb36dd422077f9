"""upweight explain: which training examples caused predictions."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import upweight
from upweight.cli.app import app, show_progress
from upweight.cli.input_recipes import RECIPES, input_recipe
from upweight.cli.inputs import Source, choose_queries, number_of_queries
from upweight.cli.option_groups import expand_options
from upweight.cli.options import (
    OldVerify,
    Out,
    PrintOptions,
    Query,
    Removals,
    ScoreOptions,
    Task,
    renamed_option,
    require_output,
)
from upweight.cli.output import page_keys, print_json, print_model
from upweight.cli.store import opened_store
from upweight.cli.table_options import TableOptions
from upweight.core.files import ARCHIVE

DEFAULT_REMOVALS = 16


@app.command()
@expand_options
def explain(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    query: Query = None,
    number: Annotated[
        str | None,
        typer.Option(
            "--queries",
            metavar="N|all",
            help="How many queries to explain if none is named, mistakes first; also print which training examples "
            "matter over all of them. Default: at most 8 mistakes.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many proponents and opponents to print.")] = 5,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Column of groups or sources, for the support audit; may be repeated."),
    ] = None,
    audit: Annotated[
        bool | None,
        typer.Option(
            "--audit/--no-audit",
            help="Also ask whether the training examples behind each prediction have to do with it. Default: yes, "
            "except of networks and by methods that retrain, where it takes long, unless --by is given.",
        ),
    ] = None,
    inputs_by: Annotated[
        str | None,
        typer.Option(
            "--inputs",
            help="Also show which words, columns or pixels decide, in each query beside its training examples, by "
            f"{', '.join(RECIPES)}.",
        ),
    ] = None,
    out: Out = Path("report.html"),
    scores: Annotated[
        Path | None, typer.Option(help="Also write the scores to this file, for `upweight view`.")
    ] = None,
    removals: Removals = DEFAULT_REMOVALS,
    old_verify: OldVerify = None,
    store: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="Answer from this store of training gradients (see `upweight store build`)."
        ),
    ] = None,
    scoring: ScoreOptions,
    printing: PrintOptions,
) -> None:
    """Find the training examples that caused predictions, and check the scores by retraining."""
    source, opened = Source(task, table, scoring.measure, scoring.at), opened_store(store)
    removals = renamed_option(removals, old_verify, "--verify", "--removals", DEFAULT_REMOVALS)
    require_output(out, task)
    require_output(scores, task, out, contents=ARCHIVE, option="--scores")
    requested, parts_recipe = scoring.recipe(), None if inputs_by is None else input_recipe(inputs_by, "--inputs")
    query_limit = number_of_queries(number, query)
    from upweight.applications.audit import is_quick
    from upweight.applications.explain import explain as run
    from upweight.methods.registry import first_choice
    from upweight.report.terminal import print_explanation
    from upweight.report.write_page import write_page

    start = time.perf_counter()
    stages = {
        "read": f"Reading {task.name}",
        "audit": "Asking whether its proponents have to do with each prediction",
        "inputs": "Attributing predictions to parts of the inputs",
    }
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, query, scoring.seed)
        model, train, queries = inputs.model, inputs.train, inputs.queries
        chosen, why_chosen = choose_queries(model, queries, query, query_limit)
        recipe = first_choice(model, train) if requested is None else requested
        recipe = recipe if opened is None else upweight.FromStore(recipe=recipe, store=opened)
        retraining = upweight.Retraining(progress=progress)
        explained = run(
            model,
            train,
            queries.select(chosen),
            recipe,
            removals=removals,
            seed=scoring.seed,
            retraining=retraining,
        )
        if is_quick(explained) or by if audit is None else audit:
            progress("audit", 0, 1)
            explained = explained.with_audit(upweight.audit(explained, by or ()))
            progress("audit", 1, 1)
        if parts_recipe is not None:
            progress("inputs", 0, 1)
            explained = explained.with_inputs(upweight.shared_inputs(model, explained, parts_recipe))
            progress("inputs", 1, 1)
        progress("report", 0, 1)
        write_page(out, explained, description=inputs.description)
        if scores is not None:
            explained.scores.save(scores)
        progress("report", 1, 1)
    notes = (*inputs.notes, *why_chosen, *explained.notes)
    explained = replace(explained, notes=notes, seconds=time.perf_counter() - start)
    if printing.as_json:
        print_json({**explained.as_dict(k), **inputs.as_dict(), **page_keys(out)})
    elif not printing.quiet:
        print_model(inputs)
        print_explanation(explained, out, chosen if query else chosen[:1], k, overall=query_limit is not None)
