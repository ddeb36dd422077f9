"""upweight export-labels and import-labels: suspect labels to labelling tools, and their decisions back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import upweight
from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source
from upweight.cli.mislabeled import Budget
from upweight.cli.option_groups import expand_options
from upweight.cli.options import PrintOptions, Seed, Task, require_output
from upweight.cli.output import print_json, print_line
from upweight.cli.table_options import TableOptions
from upweight.core.files import PATCH

if TYPE_CHECKING:
    from upweight.report.exports.label_form import LabelForm

FormName = Literal["label-studio", "argilla", "cleanlab", "table"]
Form = Annotated[FormName, typer.Option("--form", help="The tool that the files are for; table is a plain CSV.")]


@app.command("export-labels")
@expand_options
def export_labels(
    task: Task,
    *,
    table: TableOptions,
    form: Form = "label-studio",
    out: Annotated[Path, typer.Option("--out", "-o", help="The new folder to write.")] = Path("labels-to-review"),
    budget: Budget = 0.1,
    seed: Seed = 0,
    printing: PrintOptions,
) -> None:
    """Write the labels that are most likely wrong as tasks for a labelling tool, with what is suggested."""
    source = Source(task, table)
    if out.exists() or out.is_symlink():
        raise typer.BadParameter(
            f"{out} exists, and what it holds would be lost; name a new folder", param_hint="--out"
        )
    from upweight.applications.mislabeled import mislabeled

    stages = {"read": f"Reading {task.name}", "fit": "Computing the self-influence of each label"}
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, None, seed)
        retraining = upweight.Retraining(processes=1, how="processes", seeds=[seed], progress=progress)
        suspects = mislabeled(inputs.model, inputs.train, budget=budget, retraining=retraining)
        form_of(form).write(out, suspects)
    if printing.as_json:
        print_json({"examples": len(suspects.ids), "form": form, "folder": str(out.resolve()), "notes": suspects.notes})
    elif not printing.quiet:
        for note in (*inputs.notes, *suspects.notes):
            print_line(f"Note: {note}")
        print_line(f"{len(suspects.ids):,} examples to review: {out} (its README.txt says how to continue)")


@app.command("import-labels")
@expand_options
def import_labels(
    task: Task,
    decisions: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What the labelling tool exported.")],
    *,
    table: TableOptions,
    form: Form = "label-studio",
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the patch.")] = Path("patch.json"),
    seed: Seed = 0,
    printing: PrintOptions,
) -> None:
    """Make a patch of the decisions that a labelling tool exported; `upweight patch` applies it."""
    source = Source(task, table)
    require_output(out, task, decisions, contents=PATCH)
    if out.exists() and out.stat().st_size:
        raise typer.BadParameter(
            f"{out} exists, and the decisions in it would be lost; name another file, or delete it", param_hint="--out"
        )
    with show_progress({"read": f"Reading {task.name}"}, printing) as progress:
        train = source.read(progress, None, seed).train
    patch = form_of(form).read(decisions, train)
    patch.save(out)
    dropped = sum(decision.new is None for decision in patch.decisions)
    relabelled = len(patch.decisions) - dropped
    if printing.as_json:
        print_json({"relabelled": relabelled, "dropped": dropped, "patch": str(out.resolve())})
    elif not printing.quiet:
        print_line(f"{relabelled} relabelled, {dropped} dropped: {out}")


def form_of(name: FormName) -> LabelForm:
    """The form of this name."""
    forms: dict[str, type[LabelForm]] = {
        "label-studio": upweight.LabelStudioTasks,
        "argilla": upweight.ArgillaRecords,
        "cleanlab": upweight.CleanlabIssues,
        "table": upweight.LabelTable,
    }
    return forms[name]()
