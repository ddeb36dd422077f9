"""upweight verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import upweight
from upweight.cli.app import AsJson, OlderReport, Quiet, app, newer, working_on
from upweight.cli.inputs import How, Identifier, Measure, Query, Seed, Source, Target, Task, choose, recipe_for

if TYPE_CHECKING:
    from upweight.evaluate.brittleness import Brittleness
    from upweight.evaluate.verification import Check

Seeds = Annotated[int, typer.Option(min=1, help="Trainings per removal, where training depends on its seed.")]
Folder = Annotated[
    Path | None,
    typer.Option(file_okay=False, help="Keep every retrained measurement here; a run that was broken off goes on."),
]
Page = Annotated[Path | None, typer.Option("--out", "-o", dir_okay=False, help="Write a page with plots there.")]


@app.command()
def verify(  # noqa: PLR0913 - a command line has as many options as it has
    task: Task,
    *,
    target: Target = None,
    identifier: Identifier = None,
    query: Query = None,
    method: How = None,
    removals: Annotated[int, typer.Option(min=1, help="How many: half single examples, half random groups.")] = 32,
    seeds: Seeds = 1,
    seed: Seed = 0,
    measure: Measure = None,
    brittle: Annotated[
        bool, typer.Option("--brittleness", help="Find how few training examples each prediction rests on.")
    ] = False,
    folder: Folder = None,
    out: Page = None,
    older_report: OlderReport = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train again without some examples and say how far a method's scores agree with what happens."""
    source = Source(task, target, identifier, measure)
    report = newer(out, older_report, "--report", "--out")
    if report is not None:
        reachable(report, "--out")
    named = None if method is None else recipe_for(method, seed)
    from upweight.evaluate.verify import verify as run
    from upweight.methods.registry import first_choice

    stages = {"read": f"Reading {task.name}", "search": "Removing until predictions flip"}
    with working_on(stages, quiet, as_json) as working:
        model, train, queries, notes = source.read(working, query, seed)
        chosen, told = choose(model, queries, query)
        asked = queries.select(chosen)
        working("fit", 0, 1)
        recipe = first_choice(model, train) if named is None else named
        scores = recipe.fit(model, train).attribute(asked)
        working("fit", 1, 1)
        working("retrain", 0, removals * seeds)
        check = run(
            model, train, asked, scores, removals, seed=seed,
            retraining=upweight.Retraining(seeds=seeds, folder=folder, progress=working),
        )  # fmt: skip
        flips = brittleness_of(model, train, asked, scores, folder, working) if brittle else None
        if report is not None:
            write_page(report, check, working, flips=flips)
    news = scores.diagnostics.get("warnings", ()), check.diagnostics["warnings"]
    remarks = [*notes, *([told] if told else ()), *news[0], *news[1]]
    if as_json:
        where = None if report is None else str(report.resolve())
        more = {} if flips is None else {"brittleness": flips.as_dict()}
        typer.echo(
            json.dumps(
                {**check.as_dict(), **more, "warnings": remarks, "page": where, "report": where}, allow_nan=False
            )
        )
    elif not quiet:
        print_check(check, [] if flips else remarks, None if flips else report)
        if flips is not None:
            print_flips(flips, remarks, report)


def brittleness_of(model: Any, train: Any, queries: Any, scores: Any, folder: Path | None, working: Any) -> Brittleness:
    """How few examples hold the predictions up, with its line of progress."""
    from upweight.evaluate.brittleness import brittleness

    # A folder of its own in the folder: it asks something else of its models, and is not to be warned of the others'.
    retraining = upweight.Retraining(folder=folder and folder / "brittleness", progress=working)
    return brittleness(model, train, queries, scores, retraining=retraining)


def print_flips(flips: Brittleness, remarks: list[str], report: Path | None) -> None:
    """The predictions that flipped on the terminal."""
    from upweight.report.removal_curves import flip_table

    found = flip_table(flips)
    print_table("How few examples hold a prediction up", tuple(found["head"][:4]), [row[:4] for row in found["rows"]])
    print_remarks([found["told"]], remarks, report)


def print_check(check: Check, remarks: list[str], report: Path | None) -> None:
    """The check on the terminal."""
    from upweight.evaluate.agreement import finite_or_none, formatted

    rows, sized = [], check.scores.unit == "EFFECT"  # RANK scores promise no size
    for name, kind in (("without one example", "one"), ("without a group", "group")):
        if any(r.kind == kind for r in check.removals):
            agreed = check.of(kind)  # type: ignore[arg-type]
            slope, r2 = (agreed.slope, agreed.r2) if sized else (None, None)
            numbers = [formatted(v) for v in (slope, agreed.pearson, agreed.spearman, r2)]
            rows.append([name, *numbers, str(agreed.count)])
    method = check.scores.recipe.get("method", "scores")
    print_table(f"{method} ({check.scores.unit}) against {check.diagnostics['trainings']} trainings", HEAD, rows)
    ceiling, inside = check.ceiling, check.coverage() if sized else None
    said = [] if ceiling is None else [f"Noise ceiling {formatted(ceiling.value)}: {ceiling.note}."]
    if inside is not None and finite_or_none(inside.rate) is not None:
        said.append(
            f"{inside.rate:.0%} of effects lie inside intervals at {inside.level:.0%} that have not seen them "
            f"({len(check.removals)} removals can promise {inside.promised:.0%})."
        )
    print_remarks(said, remarks, report)


HEAD = ("", "slope", "Pearson", "Spearman", "R²", "pairs")


def print_table(title: str, head: tuple[str, ...], rows: list[list[str]]) -> None:
    """A table on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for place, name in enumerate(head):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(Text(f"\n{title}", "bold"))
    console.print(table)


def print_remarks(said: list[str], warnings: list[str], report: Path | None) -> None:
    """Sentences, then bad news, then where the page is."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for sentence in said:
        console.print(Text(sentence, "dim"))
    for warning in warnings:
        console.print(Text(f"! {warning}", "yellow"))
    if report is not None:
        console.print(Text.assemble(("\nReport  ", "bold"), report.resolve().as_uri()), soft_wrap=True)


def write_page(report: Path, result: Any, working: Any, **more: Any) -> None:
    """The page, with its line of progress."""
    from upweight.report.evaluation import write_evaluation

    working("report", 0, 1)
    write_evaluation(report, result, **more)
    working("report", 1, 1)


def reachable(path: Path, option: str) -> None:
    """Said before the work, not after it."""
    if not path.resolve().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.resolve().parent}; make it first", param_hint=option)
