"""upweight explain."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import upweight
from upweight.cli.app import AsJson, OlderVerify, Out, Quiet, Removals, app, newer, working_on, writable
from upweight.cli.inputs import How, Identifier, Measure, Query, Seed, Source, Target, Task, choose, recipe_for

if TYPE_CHECKING:
    from upweight.applications.explain import Explanation
    from upweight.core.examples import Id


@app.command()
def explain(  # noqa: PLR0913 - a command line has as many options as it has
    task: Task,
    *,
    target: Target = None,
    identifier: Identifier = None,
    query: Query = None,
    k: Annotated[int, typer.Option(min=1, help="How many proponents and opponents to print.")] = 5,
    out: Out = Path("report.html"),
    as_json: AsJson = False,
    removals: Removals = 16,
    older_verify: OlderVerify = None,
    seed: Seed = 0,
    measure: Measure = None,
    method: How = None,
    quiet: Quiet = False,
) -> None:
    """Explain predictions: which training examples caused them, checked by real retraining."""
    source = Source(task, target, identifier, measure)
    removals = newer(removals, older_verify, "--verify", "--removals", 16)
    writable(out)
    asked = None if method is None else recipe_for(method, seed)
    from upweight.applications.explain import explain as run
    from upweight.methods.registry import first_choice
    from upweight.report.page import write_report

    start = time.perf_counter()
    with working_on({"read": f"Reading {task.name}"}, quiet, as_json) as working:
        model, train, queries, notes = source.read(working, query, seed)
        chosen, told = choose(model, queries, query)
        recipe = first_choice(model, train) if asked is None else asked
        retraining = upweight.Retraining(progress=working)
        explained = run(
            model, train, queries.select(chosen), recipe, removals=removals, seed=seed, retraining=retraining
        )
        working("report", 0, 1)
        write_report(out, explained.scores, train, explained.queries, explained.check)
        working("report", 1, 1)
    notes = (*notes, *([told] if told else ()), *explained.notes)
    explained = replace(explained, notes=notes, seconds=time.perf_counter() - start)
    if as_json:
        print_json(explained, out, k)
    elif not quiet:
        print_summary(explained, out, chosen if query else chosen[:1], k)


def print_json(explained: Explanation, out: Path, k: int) -> None:
    """The explanation as JSON on stdout."""
    page = str(out.resolve())
    typer.echo(json.dumps({**explained.as_dict(k), "page": page, "report": page}, allow_nan=False))


def print_summary(explained: Explanation, out: Path, queries: list[Id], k: int, noun: str = "example") -> None:
    """The explanation of these queries on the terminal."""
    from upweight.report.terminal import show

    show(explained, out, queries, k, noun)
