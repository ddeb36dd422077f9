"""upweight slices, upweight perturb, upweight what-if."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import upweight
from upweight.cli.app import AsJson, OlderVerify, Out, Quiet, Removals, app, newer, working_on, writable
from upweight.cli.inputs import Identifier, Measure, Query, Seed, Source, Target, Task, choose

if TYPE_CHECKING:
    from upweight.core.examples import Examples, Id

ROUNDS = 20  # of an attack at most; five reach the end of the box
By = Annotated[list[str], typer.Option(help="Column that groups the training set, may be repeated; also `label`.")]
Attacked = Annotated[
    int | None,
    typer.Option(min=1, help="Move so many training examples to turn the predictions, training again at every step."),
]


@app.command()
def slices(  # noqa: PLR0913 - a command line has as many options as it has
    task: Task,
    *,
    by: By,
    target: Target = None,
    identifier: Identifier = None,
    query: Query = None,
    out: Out = Path("slices.html"),
    as_json: AsJson = False,
    removals: Removals = 8,
    older_verify: OlderVerify = None,
    measure: Measure = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Say which groups of training examples caused the mistakes (or the queries named)."""
    source = Source(task, target, identifier, measure)
    removals = newer(removals, older_verify, "--verify", "--removals", 8)
    writable(out)
    from upweight.applications.slices import slices as run

    stages = {"read": f"Reading {task.name}", "fit": "Working out effects", "retrain": "Training without groups"}
    with working_on({**stages, "train": "Training"}, quiet, as_json) as working:
        model, train, queries, _ = source.read(working, query, seed)
        failing = {"queries": choose(model, queries, query)[0]} if query else None
        retraining = upweight.Retraining(processes=1, how="processes", seeds=[seed], progress=working)
        found = run(model, train, queries, upweight.Slicing(by, failing), removals=removals, retraining=retraining)
    worst = [f"{group}: {effect:+.4g} of {found.measurement} on average" for group, effect in found.worst(k=8)]
    _finish(found, out, as_json, quiet, worst or ["No group harms this slice."])


@app.command()
def perturb(  # noqa: PLR0913 - a command line has as many options as it has
    task: Task,
    *,
    target: Target = None,
    identifier: Identifier = None,
    query: Query = None,
    k: Annotated[int, typer.Option(min=1, help="How many training examples to look into.")] = 5,
    attack: Attacked = None,
    grey: Annotated[float, typer.Option(help="With --attack: one grey level in units of the inputs.")] = 1 / 255,
    radius: Annotated[float, typer.Option(help="With --attack: grey levels by which a number may move.")] = 0.5,
    out: Out = Path("perturb.html"),
    as_json: AsJson = False,
    measure: Measure = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Say which features of which training examples would move predictions; with --attack really move them."""
    source = Source(task, target, identifier, measure)
    writable(out)
    from upweight.applications.attack import PGD
    from upweight.applications.attack import attack as audit
    from upweight.applications.perturb import perturb as run

    stages = {"read": f"Reading {task.name}", "train": "Training", "retrain": "Moving, and training again"}
    with working_on(stages, quiet, as_json) as working:
        model, train, queries, _ = source.read(working, query, seed)
        asked = queries.select(choose(model, queries, query)[0])
        if attack is not None:
            hit = audit(
                model, train, asked, attack, progress=working,
                pgd=PGD(grey=grey, radius=radius, step=radius / 5, steps=ROUNDS),
            )  # fmt: skip
        else:
            found = run(model, train, asked, k=k)
    if attack is not None:
        _finish(hit, out, as_json, quiet, [repr(hit), *[f"{one}: prediction turned" for one in hit.turned]])
        return
    lines = []
    for example in found.example_ids.tolist():
        best = found.features(found.query_ids[0].item(), example, k=3)
        lines.append(f"{example}: " + ", ".join(f"{f.name} {f.contribution:+.3g}" for f in best))
    _finish(found, out, as_json, quiet, lines)


@app.command("what-if")
def what_if(  # noqa: PLR0913 - a command line has as many options as it has
    task: Task,
    *,
    remove: Annotated[list[str] | None, typer.Option(help="Id of a training example, may be repeated.")] = None,
    relabel: Annotated[list[str] | None, typer.Option(help="ID=LABEL, may be repeated.")] = None,
    reweight: Annotated[list[str] | None, typer.Option(help="ID=FACTOR, may be repeated.")] = None,
    target: Target = None,
    identifier: Identifier = None,
    query: Query = None,
    out: Out = Path("what-if.html"),
    as_json: AsJson = False,
    measure: Measure = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Predict what removing, relabelling or reweighting training examples would do; then really do it."""
    if not (remove or relabel or reweight):
        raise typer.BadParameter("say what to change: --remove, --relabel or --reweight", param_hint="--remove")
    source = Source(task, target, identifier, measure)
    writable(out)
    from upweight.applications.changes import Change
    from upweight.applications.what_if import what_if as run

    with working_on({"read": f"Reading {task.name}", "train": "Training"}, quiet, as_json) as working:
        model, train, queries, _ = source.read(working, query, seed)
        change = Change(
            remove=[_known(train, one) for one in remove or ()],
            relabel=dict(_pairs(train, relabel, "--relabel")),
            reweight={i: _factor(text) for i, text in _pairs(train, reweight, "--reweight")},
        )
        retraining = upweight.Retraining(processes=1, how="processes", seeds=[seed])
        found = run(model, train, queries.select(choose(model, queries, query)[0]), change, retraining=retraining)
    lines = []
    for place, one in enumerate(found.queries.ids.tolist()):
        really = "" if found.actual is None else f", really {found.actual[place, 0]:+.4g}"
        lines.append(f"{one}: predicted {found.predicted[place, 0]:+.4g}{really}")
    _finish(found, out, as_json, quiet, lines)


def _pairs(train: Examples, given: list[str] | None, option: str) -> list[tuple[Id, str]]:
    found = []
    for text in given or ():
        identifier, equals, value = text.rpartition("=")
        if not equals:
            raise typer.BadParameter(f"expected ID=VALUE, got {text!r}", param_hint=option)
        found.append((_known(train, identifier), value))
    return found


def _known(train: Examples, text: str) -> Id:
    known: dict[str, Id] = {str(i): i for i in train.ids.tolist()}
    if text not in known:
        few = ", ".join(list(known)[:5])
        raise typer.BadParameter(f"no training example has the id {text!r}; ids look like {few}")
    return known[text]


def _factor(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"expected a number as factor, got {text!r}", param_hint="--reweight") from None


def _finish(found: Any, out: Path, as_json: bool, quiet: bool, lines: list[str]) -> None:
    from upweight.report.write_page import write_page

    write_page(out, found)
    if as_json:
        typer.echo(json.dumps({**found.as_dict(), "page": str(out.resolve())}, allow_nan=False))
    elif not quiet:
        for warning in found.diagnostics["warnings"]:
            typer.echo(f"Warning: {warning}")
        for line in lines:
            typer.echo(line)
        typer.echo(f"Page: {out}")
