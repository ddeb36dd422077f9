"""upweight evaluate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import upweight
from upweight.cli.app import AsJson, OlderReport, Quiet, app, newer, working_on
from upweight.cli.inputs import Identifier, Measure, Seed, Source, Target, Task, choose, recipe_for
from upweight.cli.verify import Folder, Page, Seeds, print_remarks, print_table, reachable, write_page

if TYPE_CHECKING:
    from upweight.evaluate.compare import Comparison
    from upweight.evaluate.removal_curve import RemovalCurve

MOST = 100  # queries that are asked where none are named
MOST_CURVES = 10  # and of these, as many as have a curve of their own

Methods = Annotated[list[str], typer.Option("--method", help="May be repeated; see `upweight methods`.")]
Planted = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Ids of examples with wrong labels, one a line: who finds them?"),
]


@app.command()
def evaluate(  # noqa: PLR0913 - a command line has as many options as it has
    task: Task,
    *,
    target: Target = None,
    identifier: Identifier = None,
    query: Annotated[
        list[str] | None, typer.Option(help=f"Id of a query, may be repeated. Default: the first {MOST}.")
    ] = None,
    method: Methods = ["influence"],  # noqa: B006 - typer copies it
    subsets: Annotated[int, typer.Option(min=5, help="Models to train again on random subsets.")] = 100,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the training set in each subset.")] = 0.5,
    seeds: Seeds = 1,
    seed: Seed = 0,
    planted: Planted = None,
    measure: Measure = None,
    curve: Annotated[
        bool,
        typer.Option("--removal-curve", help=f"Also remove the strongest of {MOST_CURVES} queries, and train again."),
    ] = False,
    folder: Folder = None,
    out: Page = None,
    older_report: OlderReport = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Hold methods and baselines against models trained again on random subsets: accuracy (LDS) and cost."""
    source = Source(task, target, identifier, measure)
    report = newer(out, older_report, "--report", "--out")
    if report is not None:
        reachable(report, "--out")
    if not 0 < share < 1:
        raise typer.BadParameter(f"expected a share between 0 and 1, got {share}", param_hint="--share")
    recipes = {name: recipe_for(name, seed, keep=share) for name in dict.fromkeys(method)}
    from upweight.evaluate.agreement import formatted
    from upweight.evaluate.compare import HEAD, compare
    from upweight.evaluate.removals import subsets as drawn
    from upweight.evaluate.retrain_truth import retrain_truth

    stages = {
        "read": f"Reading {task.name}",
        "retrain": "Training again on subsets",
        "compare": "Scoring by each method",
        "curve": "Training without the strongest",
    }
    with working_on(stages, quiet, as_json) as working:
        model, train, queries, notes = source.read(working, query, seed)
        asked, told = _asked(queries, query)
        wrong = [] if planted is None else _ids(planted, train)
        working("retrain", 0, subsets * seeds)
        truth = retrain_truth(
            model, train, asked, drawn(train, subsets, share, seed),
            retraining=upweight.Retraining(seeds=seeds, folder=folder, progress=working),
        )  # fmt: skip
        working("compare", 0, len(recipes))
        found = compare(
            recipes, model, train, asked, truth, planted=wrong,
            retraining=upweight.Retraining(processes=1, how="processes", progress=working),
        )  # fmt: skip
        curves = _curves(found, model, train, asked, seeds, folder, working) if curve else {}
        if report is not None:
            write_page(report, found, working, curves=curves)
    news = dict.fromkeys(warning for one in curves.values() for warning in one.warnings)
    remarks = [*notes, *told, *found.warnings, *news]
    if as_json:
        where = None if report is None else str(report.resolve())
        more = {"removal_curves": {name: one.as_dict() for name, one in curves.items()}} if curve else {}
        typer.echo(
            json.dumps(
                {**found.as_dict(), **more, "warnings": remarks, "page": where, "report": where}, allow_nan=False
            )
        )
    elif not quiet:
        # A terminal has 80 columns: the unit shows in the slope, which RANK scores do not have.
        kept = [place for place, name in enumerate(HEAD) if name != "unit" and (name != "AUC" or wrong)]
        rows = [[entry.cells()[place] for place in kept] for entry in found.entries]
        title = (
            f"{len(truth.removals)} models trained again on {share:.0%} of {len(train)} examples; {len(asked)} queries"
        )
        print_table(title, tuple(HEAD[place] for place in kept), rows)
        for name, one in curves.items():
            print_curve(name, one)
        ceiling = next((e.lds.ceiling for e in found.entries if e.lds), None)
        print_remarks(
            [f"Noise ceiling {formatted(ceiling.value)}: {ceiling.note}."] if ceiling else [], remarks, report
        )


def _curves(
    found: Comparison, model: Any, train: Any, queries: Any, seeds: int, folder: Path | None, working: Any
) -> dict[str, RemovalCurve]:
    """Method → what removing the strongest of the first queries does."""
    from upweight.evaluate.removal_curve import removal_curve

    asked = queries.take(range(min(len(queries), MOST_CURVES)))
    # In a folder of their own in the folder: they ask fewer queries, and are not to be warned of the others.
    folder = folder and folder / "curves"
    methods = {e.name: e.scores for e in found.entries if e.kind == "method" and e.scores is not None}
    curves: dict[str, RemovalCurve] = {}

    def tell(stage: str, done: int, total: int, /) -> None:
        working("curve", len(curves) * total + done, len(methods) * total)

    working("curve", 0, 1)
    for name, scores in methods.items():
        some = replace(scores, values=scores.values[: len(asked)], query_ids=asked.ids, measured=None, predictions=None)
        retraining = upweight.Retraining(seeds=seeds, folder=folder, progress=tell)
        curves[name] = removal_curve(model, train, asked, some, retraining=retraining)
    return curves


def print_curve(name: str, curve: RemovalCurve) -> None:
    """The curve on the terminal."""
    from upweight.evaluate.agreement import formatted
    from upweight.evaluate.removal_curve import SIDES

    means = [curve.mean(side) for side in SIDES]
    rows = [[f"{size:,}", *(formatted(mean[place]) for mean in means)] for place, size in enumerate(curve.sizes)]
    title = f"{name}: mean effect of removing the strongest, {len(curve.query_ids)} queries"
    print_table(title, ("removed", *SIDES), rows)


def _asked(queries: Any, query: list[str] | None) -> tuple[Any, list[str]]:
    """The queries named, else the first, and what was left out."""
    if query:
        return queries.select(choose(None, queries, query)[0]), []
    if len(queries) <= MOST:
        return queries, []
    return queries.take(range(MOST)), [
        f"The first {MOST} of {len(queries)} queries were asked; name others with --query."
    ]


def _ids(path: Path, train: Any) -> list[Any]:
    """The ids in the file, as the training set has them."""
    known = {str(i): i for i in train.ids.tolist()}
    named = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    unknown = [i for i in named if i not in known]
    if unknown or not named:
        what = f"no training example has the id {unknown[0]!r}" if unknown else f"{path.name} names no example"
        raise typer.BadParameter(f"{what}; ids look like {', '.join(list(known)[:5])}", param_hint="--planted")
    return [known[i] for i in named]
