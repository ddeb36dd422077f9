"""upweight neurons: which training examples activate which neuron?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source
from upweight.cli.option_groups import expand_options
from upweight.cli.options import Out, PrintOptions, Seed, Task, require_output
from upweight.cli.output import print_application
from upweight.cli.table_options import TableOptions


@app.command()
@expand_options
def neurons(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    layer: Annotated[
        str | None, typer.Option(help="Name of a layer of the net. Default: the features of the last step.")
    ] = None,
    neuron: Annotated[list[int] | None, typer.Option(min=0, help="Position of a neuron; may be repeated.")] = None,
    number: Annotated[
        int, typer.Option("--neurons", min=1, help="How many neurons if none is named, the most selective first.")
    ] = 16,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many training examples per neuron.")] = 9,
    out: Out = Path("neurons.html"),
    seed: Seed = 0,
    printing: PrintOptions,
) -> None:
    """Find the training examples that activate each neuron, or feature, most."""
    source = Source(task, table)
    require_output(out, task)
    import upweight

    with show_progress({"read": f"Reading {task.name}"}, printing) as progress:
        inputs = source.read(progress, None, seed)
        result = upweight.neuron_examples(inputs.model, inputs.train, layer, neuron or number, k=k)
    lines = [f"{result!r}."]
    for position in result.neurons.tolist():
        label = result.label(position)
        often = "" if label is None else f" ({label[1]:.0%} {label[0]}, {label[2]:.0%} in the training set)"
        lines.append(f"Neuron {position}{often}: {', '.join(str(i) for i, _ in result.of(position))}")
    print_application(result, inputs, out, printing, lines)
