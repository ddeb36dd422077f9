"""upweight reweight: which weights of training examples, or of groups, make the model better on other data?"""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source
from upweight.cli.option_groups import expand_options
from upweight.cli.options import Measure, Out, PrintOptions, Seed, Task, require_output
from upweight.cli.output import print_application, signed
from upweight.cli.table_options import TableOptions
from upweight.core.files import Contents, open_atomically

if TYPE_CHECKING:
    from upweight.applications.reweighted import Reweighted
    from upweight.core.examples import Examples

WEIGHTS = Contents("a table of weights", (".csv", ""), b"id,weight", (b"{", b"[", b"<"))
FEWEST_QUERIES = 20


@app.command()
@expand_options
def reweight(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    by: Annotated[
        str | None,
        typer.Option(help="One weight for every value of this column; `label` is the label. Default: one per example."),
    ] = None,
    slopes: Annotated[
        str | None,
        typer.Option(help="influence, metagradient, last-layer or retraining. Default: what the model allows."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="How often the weights change.")] = 20,
    rate: Annotated[float, typer.Option(help="How far a weight may move in one step.")] = 0.1,
    largest: Annotated[float, typer.Option(help="No weight becomes larger.")] = 2.0,
    seeds: Annotated[int | None, typer.Option(min=1, help="Trainings per weighting in the comparison.")] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the weight of every training example to this CSV file.")
    ] = None,
    measure: Measure = None,
    out: Out = Path("reweight.html"),
    seed: Seed = 0,
    printing: PrintOptions,
) -> None:
    """Learn weights from one half of the queries, and measure on the other half what they gain."""
    import numpy as np

    source = Source(task, table, measure)
    require_output(out, task)
    require_output(save, task, contents=WEIGHTS, option="--save")
    import upweight

    way: Any = None if slopes is None else slopes.replace("-", " ")
    try:
        learning = upweight.Reweighting(slopes=way, steps=steps, rate=rate, largest=largest)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--slopes / --steps / --rate / --largest") from None
    stages = {"read": f"Reading {task.name}", "reweight": "Learning weights", "retrain": "Training with other weights"}
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, None, seed)
        if len(inputs.queries) < FEWEST_QUERIES:
            raise typer.BadParameter(
                f"{len(inputs.queries)} queries are too few: half of them give the slopes, and half measure the gain",
                param_hint="TASK",
            )
        count = learning.retraining_of(inputs.model).seeds if seeds is None else seeds
        retraining = upweight.Retraining(processes=1, progress=progress, seeds=count)
        order = np.random.default_rng(seed).permutation(len(inputs.queries))
        halves = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
        result = upweight.reweight(
            inputs.model,
            inputs.train,
            inputs.queries.take(halves[0]),
            held_out=inputs.queries.take(halves[1]),
            groups=None if by is None else _groups(inputs.train, by),
            reweighting=replace(learning, retraining=retraining),
        )
    lines = _sentences(result)
    if save is not None:
        _save(result, save)
        lines.append(f"Weights: {save}")
    print_application(result, inputs, out, printing, lines)


def _sentences(result: Reweighted) -> list[str]:
    """The result, its gains, the weights of groups, and what weights have in common."""
    lines = [result.sentence]
    for gain in result.gains:
        low, high = gain.interval
        lines.append(
            f"Gain beside {gain.described}: {signed(gain.gain)} (90 %: {signed(low)} to {signed(high)}; "
            f"{gain.trainings} trained)."
        )
    if result.of == "groups":
        lines += [f"{name}: weight {weight:.2f}" for name, weight in result.lowest(len(result.names))]
    return lines + [
        f"{shift.condition}: mean weight {shift.inside:.2f}, of the others {shift.outside:.2f}"
        for shift in result.shifts
    ]


def _groups(train: Examples, column: str) -> dict[str, Any]:
    from upweight.applications.groups import groups_of

    try:
        groups = groups_of(train, column, 1, classes=False)
    except (KeyError, ValueError) as error:
        raise typer.BadParameter(str(error.args[0]), param_hint="--by") from None
    pairs = zip(groups.names, groups.members, strict=True)
    return {name: train.ids[positions].tolist() for name, positions in pairs}


def _save(result: Reweighted, path: Path) -> None:
    """The weights by id, one row per training example."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "weight"])
    writer.writerows(zip(result.train.ids.tolist(), result.example_weights.tolist(), strict=True))
    with open_atomically(path, WEIGHTS) as file:
        file.write(text.getvalue().encode())
