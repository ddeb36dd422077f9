"""upweight mislabeled, upweight patch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import upweight
from upweight.cli.app import AsJson, Out, Quiet, app, working_on, writable
from upweight.cli.inputs import Identifier, Seed, Source, Target, Task

Budget = Annotated[float, typer.Option(help="How many labels can be checked, or a share below 1.")]
STAGES = {
    "fit": "Computing the self-influence of each label",
    "retrain": "Training without each part, to see what held-out labels look like",
    "attribute": "Adding up the harm to the held-out examples",
}


@app.command()
def mislabeled(  # noqa: PLR0913 - a command line has as many options as it has
    task: Task,
    *,
    target: Target = None,
    identifier: Identifier = None,
    budget: Budget = 0.1,
    folds: Annotated[int, typer.Option(min=2, help="Parts for out-of-fold predictions.")] = 5,
    out: Out = Path("review.html"),
    as_json: AsJson = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Rank training labels by how likely they are wrong, and write a page to review them on."""
    source = Source(task, target, identifier)
    writable(out)
    from upweight.applications.mislabeled import mislabeled as run
    from upweight.report.write_page import write_page

    with working_on({"read": f"Reading {task.name}", "train": "Training", **STAGES}, quiet, as_json) as working:
        model, train, queries, notes = source.read(working, None, seed)
        evaluation = None if queries.y is None else queries
        retraining = upweight.Retraining(processes=1, how="processes", seeds=[seed], progress=working)
        found = run(model, train, budget=budget, evaluation=evaluation, folds=folds, retraining=retraining)
        write_page(out, found)
    if as_json:
        typer.echo(json.dumps({**found.as_dict(), "page": str(out.resolve())}, allow_nan=False))
    elif not quiet:
        for note in (*notes, *found.notes):
            typer.echo(f"Note: {note}")
        for row in found.as_dict()["suspects"][:10]:
            chance = "" if row["probability"] is None else f", probability {row['probability']:.3f}"
            typer.echo(f"{row['id']}: {row['label']} (perhaps {row['suggested']}){chance}")
        typer.echo(f"Review {len(found.ids)} of {len(train):,} labels on {out}")


@app.command()
def patch(
    task: Task,
    decisions: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The patch that a review saved.")],
    *,
    target: Target = None,
    identifier: Identifier = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Apply reviewed labels, all or none, train again, and say what that did to the held-out examples."""
    source = Source(task, target, identifier)
    from upweight.applications.patch import Patch, repair

    loaded = Patch.load(decisions)
    with working_on({"read": f"Reading {task.name}", "train": "Training"}, quiet, as_json) as working:
        model, train, queries, _ = source.read(working, None, seed)
    done = repair(model, train, loaded, queries, seed).as_dict()
    if as_json:
        typer.echo(json.dumps(done, allow_nan=False))
    elif not quiet:
        typer.echo(f"{done['relabelled']} relabelled, {done['dropped']} dropped; {done['examples']:,} examples left")
        for name in ("before", "after"):
            accuracy, measured = done[name]["accuracy"], done[name]["measured"]
            right = "" if accuracy is None else f"accuracy {accuracy:.4f}, "
            typer.echo(f"{name}: {right}mean {model.measurement} {measured:+.5f}")
