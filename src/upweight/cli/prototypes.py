"""upweight prototypes: the examples that represent a data set, or predictions, and those that they leave out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source, named_queries
from upweight.cli.option_groups import expand_options
from upweight.cli.options import Out, PrintOptions, Query, Seed, Task, require_output
from upweight.cli.output import print_application
from upweight.cli.table_options import TableOptions


@app.command()
@expand_options
def prototypes(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    query: Query = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many prototypes to choose.")] = 10,
    criticisms: Annotated[
        int | None, typer.Option(min=0, help="How many criticisms. Default: as many as prototypes.")
    ] = None,
    kernel: Annotated[
        Literal["rbf", "fisher"] | None,
        typer.Option(help="Similarity by features (rbf), or by gradients (fisher). Default: rbf, fisher with --query."),
    ] = None,
    out: Out = Path("prototypes.html"),
    seed: Seed = 0,
    printing: PrintOptions,
) -> None:
    """Find the training examples that represent all, and what they leave out; with --query, for these predictions."""
    source = Source(task, table)
    require_output(out, task)
    stages = {"read": f"Reading {task.name}", "kernel": "Comparing all pairs of examples"}
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, query, seed)
        model, train, queries = inputs.model, inputs.train, inputs.queries
        from upweight.applications.example_kernels import FisherKernel, RBFKernel
        from upweight.applications.prototypes import prototypes as run

        recipes = {None: None, "rbf": RBFKernel(), "fisher": FisherKernel()}
        chosen = queries.select(named_queries(queries, query)) if query else None
        result = run(model, train, chosen, k=k, criticisms=criticisms, kernel=recipes[kernel], progress=progress)
    lines = [repr(result)]
    for label, (ids, critics) in result.by_class().items():
        name = "" if label is None else f"{label}: "
        lines.append(f"{name}prototypes {_listed(ids)}; criticisms {_listed(critics)}")
    print_application(result, inputs, out, printing, lines)


def _listed(ids: Sequence[object]) -> str:
    return ", ".join(map(str, ids)) or "none"
