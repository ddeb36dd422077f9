"""upweight store: build and check a folder with the training gradients of a network."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source
from upweight.cli.option_groups import expand_options
from upweight.cli.options import PrintOptions
from upweight.cli.output import print_json, print_line
from upweight.cli.table_options import TableOptions

if TYPE_CHECKING:
    from upweight.store.store import Store

store_commands = typer.Typer(no_args_is_help=True, help="Keep training gradients on disk, and answer from them.")
app.add_typer(store_commands, name="store")

TaskFile = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="A Python file that defines model, train and queries.")
]
Folder = Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="The folder of the store.")]


@store_commands.command()
@expand_options
def build(  # noqa: PLR0913 - every option of the command is a parameter
    task: TaskFile,
    *,
    out: Folder,
    encoding: Annotated[
        Literal["coordinates", "low-rank", "logra", "sjlt", "exact-factors"] | None,
        typer.Option(
            help="What rows keep. Default: that of the store; of a new one coordinates, or for sequences and "
            "convolutions what keeps most in a fiftieth of a gradient; --plan says it. Coordinates if --precision, "
            "--directions or --rank is given."
        ),
    ] = None,
    precision: Annotated[
        Literal["float32", "float16", "int8", "int4", "int3"] | None,
        typer.Option(
            help="Bits of a number. Default of an encoding that is named: int4 for coordinates, float32 for "
            "exact-factors, else int8."
        ),
    ] = None,
    directions: Annotated[
        int | None, typer.Option(min=1, help="Eigenvectors of each side of a layer (coordinates, logra).")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Pairs of factors of a layer with several positions.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what the build takes, and build nothing.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the sample for the factors. Default: 0.")] = None,
    how: Annotated[
        Literal["torchrun", "ray"] | None,
        typer.Option(
            help="Who builds. Default: this process, or all processes of torchrun if it started this one "
            "(torchrun --nproc-per-node 2 -m upweight store build …)."
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Ray actors at most. Default: one for every processor of the cluster.")
    ] = None,
    memory: Annotated[
        int | None, typer.Option(min=1, metavar="MB", help="What gradients may take in each process, in megabytes.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="The Ray cluster, such as auto. Default: RAY_ADDRESS, else one on this machine.")
    ] = None,
    printing: PrintOptions,
) -> None:
    """Build the store of a task, or continue a build that was stopped. What it takes is said before it starts."""
    source = Source(task, TableOptions())
    from upweight.store.store import Store

    how, is_first = _how(how, processes, address)
    printing = replace(printing, quiet=printing.quiet or not is_first)
    settings = {"precision": precision, "directions": directions, "rank": rank}
    bytes_given = None if memory is None else memory * 10**6
    chosen = _encoding(encoding, {name: value for name, value in settings.items() if value is not None})
    store = Store(out, chosen, seed=seed, how=how, processes=processes, memory=bytes_given)
    stages = {"read": f"Reading {task.name}", "store: start": "Starting Ray"}
    stages |= {f"store: {name}": f"Writing {name}" for name in _phases()}
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress)
        model, train = _storable(inputs.model), inputs.train
        planned = store.plan(model, train) if is_first else None
        if not (printing.quiet or printing.as_json):
            for line in str(planned).splitlines():
                print_line(line)
        if not plan:
            replace(store, progress=progress).build(model, train)
    if printing.as_json and planned is not None:
        layouts = {name: vars(layout) for name, layout in planned.layouts.items()}
        print_json({**vars(planned), "layouts": layouts, "folder": str(out.resolve()), "built": not plan})
    elif not (printing.quiet or plan):
        print_line(f"Store: {out}")


@store_commands.command()
@expand_options
def check(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The folder of the store.")],
    *,
    printing: PrintOptions,
) -> None:
    """Read every file of a store, and name those that are missing or damaged. Exit code 1 if there are some."""
    from upweight.store.header import HEADER
    from upweight.store.store import Store

    if not (folder / HEADER).exists():
        raise typer.BadParameter(f"{folder} is not a store: it has no {HEADER}", param_hint="FOLDER")
    problems = Store(folder).check()
    if printing.as_json:
        print_json({"folder": str(folder.resolve()), "problems": problems})
    elif not printing.quiet:
        for problem in problems or [f"{folder} is whole: every file is there and fits its checksum."]:
            print_line(problem)
    if problems:
        raise typer.Exit(1)


def opened_store(folder: Path | None) -> Store | None:
    """The store in this folder. Raises a usage error if there is none, so that no question starts a long build."""
    if folder is None:
        return None
    from upweight.store.header import HEADER
    from upweight.store.store import Store

    if not (folder / HEADER).exists():
        raise typer.BadParameter(
            f"{folder} is not a store; build it first: upweight store build TASK -o {folder}", param_hint="--store"
        )
    return Store(folder)


def _how(
    how: Literal["torchrun", "ray"] | None, processes: int | None, address: str | None
) -> tuple[Literal["torchrun", "ray"] | None, bool]:
    """Who builds, and whether this process is the one that speaks. Raises a usage error for options that do not fit."""
    from upweight.engines.work_list import Rank

    for name, value in (("--processes", processes), ("--address", address)):
        if value is not None and how != "ray":
            raise typer.BadParameter(f"{name} is for --how ray", param_hint=name)
    if address is not None:
        os.environ["RAY_ADDRESS"] = address
    rank = Rank.of_process()
    if rank.count > 1 and how is None:
        how = "torchrun"
    if how != "torchrun":
        return how, True
    if "LOCAL_RANK" in os.environ:
        import torch

        if torch.cuda.is_available():  # so that "cuda" in the task file is this rank's own device
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    return how, rank.number == 0


def _phases() -> tuple[str, ...]:
    from upweight.store.build import PHASES

    return PHASES


def _storable(model: Any) -> Any:
    from upweight.core.capability_checks import require
    from upweight.core.storable import Storable

    require(model, [Storable], "upweight store")
    return model


def _encoding(name: str | None, settings: dict[str, Any]) -> Any:
    """The encoding of this name with these settings; None for that of the store. Raises a usage error for a misfit."""
    if name is None and not settings:
        return None
    from upweight.store.header import ENCODINGS

    kind = {"coordinates": "Coordinates", "low-rank": "LowRank", "logra": "LoGra", "sjlt": "SJLT"}.get(
        name or "coordinates", "ExactFactors"
    )
    try:
        return ENCODINGS[kind](**settings)
    except TypeError:
        known = ", ".join(f"--{field.name}" for field in fields(ENCODINGS[kind]))
        raise typer.BadParameter(f"{kind} has only the settings {known}", param_hint="--encoding") from None
