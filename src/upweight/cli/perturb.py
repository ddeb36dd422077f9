"""upweight perturb: which features of which training examples would move predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source, choose_queries
from upweight.cli.option_groups import expand_options
from upweight.cli.options import MeasureOptions, Out, PrintOptions, Query, Task, require_output
from upweight.cli.output import print_application, signed
from upweight.cli.table_options import TableOptions

MAX_STEPS = 20  # of an attack; five steps move a number by the radius
FEATURES_PRINTED = 3
AttackedExamples = Annotated[
    int | None,
    typer.Option(min=1, help="Move this many training examples to flip the predictions, and retrain at every step."),
]


@app.command()
@expand_options
def perturb(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    query: Query = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many training examples to examine.")] = 5,
    attack: AttackedExamples = None,
    grey: Annotated[float, typer.Option(help="With --attack: one grey level in the unit of the inputs.")] = 1 / 255,
    radius: Annotated[float, typer.Option(help="With --attack: the largest move of a number, in grey levels.")] = 0.5,
    out: Out = Path("perturb.html"),
    measured: MeasureOptions,
    printing: PrintOptions,
) -> None:
    """Find the features of training examples that would move predictions; with --attack, move them and retrain."""
    source = Source(task, table, measured.measure, measured.at)
    require_output(out, task)
    stages = {"read": f"Reading {task.name}", "retrain": "Moving training examples and retraining"}
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, query, measured.seed)
        model, train, queries = inputs.model, inputs.train, inputs.queries
        chosen = queries.select(choose_queries(model, queries, query)[0])
        if attack is not None:
            from upweight.applications.attack import PGD
            from upweight.applications.attack import attack as run_attack

            pgd = PGD(grey=grey, radius=radius, step=radius / 5, steps=MAX_STEPS)
            attacked = run_attack(model, train, chosen, attack, pgd=pgd, progress=progress)
        else:
            from upweight.applications.perturb import perturb as run

            result = run(model, train, chosen, k=k)
    if attack is not None:
        lines = [repr(attacked), *(f"{query_id}: prediction flipped" for query_id in attacked.flipped)]
        print_application(attacked, inputs, out, printing, lines)
        return
    lines = []
    first_query = result.query_ids[0].item()
    for example in result.example_ids.tolist():
        features = result.features(first_query, example, k=FEATURES_PRINTED)
        contributions = ", ".join(f"{feature.name} {signed(feature.contribution)}" for feature in features)
        lines.append(f"Training example {example}, contributions to query {first_query}: {contributions}")
    print_application(result, inputs, out, printing, lines)
