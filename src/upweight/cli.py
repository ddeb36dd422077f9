"""The command line: strings become objects here and nowhere else. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
import sys
import time
import webbrowser
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import upweight

if TYPE_CHECKING:
    from upweight.applications.explain import Explanation
    from upweight.core.attributor import Attributor
    from upweight.core.examples import Examples, Id
    from upweight.report.terminal import Working

LEVEL = "UPWEIGHT_LOG_LEVEL"
TABLES = (".csv", ".parquet", ".pq")
TASK = "A Python file that names model, train and queries; or a CSV or Parquet file, with --target."
QUERY = "Id of a query to explain, may be repeated. Default: the most confident mistakes."
log = logging.getLogger("upweight")


class Method(StrEnum):
    """The methods' names, as the registry has them; written out because --help must not import them."""

    INFLUENCE = "influence"
    LEAVE_ONE_OUT = "leave_one_out"
    CHANCE = "chance"


class Commands(TyperGroup):
    """The commands, with every failure inside them as one readable message and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run; usage errors and exits are the parser's own business."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            if hasattr(error, "exit_code"):  # the parser's other errors, whichever parser typer brings
                raise
            log.debug("failed", exc_info=True)
            # A KeyError's text is the repr of its message.
            said = error.args[0] if isinstance(error, KeyError) and error.args else error
            typer.echo(f"Error: {str(said) or type(error).__name__}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)

Out = Annotated[Path, typer.Option("--out", "-o", help="Where the report goes.", dir_okay=False, writable=True)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors (and JSON, if asked for).")]


def main() -> None:
    """Entry point of `upweight` and `python -m upweight`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without a true minus gets a question mark, no traceback
    app()


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"upweight {upweight.__version__}")
        raise typer.Exit()


VERSION = typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_say_version)


@app.callback()
def root(version: Annotated[bool, VERSION] = False) -> None:
    """Which training examples caused this prediction, and what would change without them?"""
    level = os.environ.get(LEVEL, "WARNING").upper()
    if level not in logging.getLevelNamesMapping():
        raise typer.BadParameter(f"expected DEBUG, INFO, WARNING or ERROR, got {level}", param_hint=LEVEL)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(level)


@app.command()
def demo(
    out: Out = Path("report.html"),
    as_json: AsJson = False,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the report in the browser.")] = False,
    quiet: Quiet = False,
) -> None:
    """Explain and verify the worst mistakes of a small model that reads scanned digits."""
    _writable(out)
    from upweight.demo import STAGES as DEMO_STAGES
    from upweight.demo import demo as run

    with _working(DEMO_STAGES, quiet, as_json) as working:
        explained = run(out, working)
    if as_json:
        _print_json(explained, out, k=3)
    elif not quiet:
        _print_summary(explained, out, explained.queries.ids.tolist()[:1], k=3, noun="digit")
    if browser:
        webbrowser.open(out.resolve().as_uri())


@app.command()
def explain(  # noqa: PLR0913 - a command line has as many options as it has
    task: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help=TASK)],
    *,
    target: Annotated[str | None, typer.Option(help="The column to predict, for a table.")] = None,
    identifier: Annotated[str | None, typer.Option("--id", help="The column that names the rows of a table.")] = None,
    query: Annotated[list[str] | None, typer.Option(help=QUERY)] = None,
    k: Annotated[int, typer.Option(min=1, help="How many proponents and opponents to print.")] = 5,
    out: Out = Path("report.html"),
    as_json: AsJson = False,
    removals: Annotated[int, typer.Option("--verify", min=0, help="Real retrainings to check with; 0 = none.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="For the split of a table and for the removals.")] = 0,
    measure: Annotated[str | None, typer.Option(help="loss (default), margin, or probability:CLASS.")] = None,
    method: Annotated[Method, typer.Option(help="How to score; see `upweight methods`.")] = Method.INFLUENCE,
    quiet: Quiet = False,
) -> None:
    """Explain predictions: which training examples caused them, checked by real retraining."""
    _usable(task, target, identifier, measure)
    _writable(out)
    from upweight.applications.explain import explain as run
    from upweight.report.page import write_report

    start = time.perf_counter()
    with _working({"read": f"Reading {task.name}"}, quiet, as_json) as working:
        if target is None:
            model, train, queries = _task(task, measure, working)
            notes: list[str] = []
        else:
            fitted = _table(task, (target, identifier), query, seed, working)
            train, queries, notes = fitted.train, fitted.held_out, list(fitted.notes)
            model = upweight.explainable(fitted.estimator, train, _measurement(measure, train))
        chosen, told = _chosen(model, queries, query)
        recipe = _recipe(method, seed)
        explained = run(model, train, queries.select(chosen), recipe, removals=removals, seed=seed, progress=working)
        working("report", 0, 1)
        write_report(out, explained.scores, train, explained.queries, explained.check)
        working("report", 1, 1)
    notes += [told] if told else []
    explained = replace(explained, notes=(*notes, *explained.notes), seconds=time.perf_counter() - start)
    if as_json:
        _print_json(explained, out, k)
    elif not quiet:
        _print_summary(explained, out, chosen if query else chosen[:1], k)


@app.command()
def methods(as_json: AsJson = False) -> None:
    """The methods there are: what they do, the unit of their scores, what they cost."""
    from upweight.methods.registry import methods as registered

    rows = [_described(name, recipe) for name, recipe in registered().items()]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    from rich import print as show
    from rich.table import Table
    from rich.text import Text

    table = Table("method", "unit", "what it does and costs", box=None, header_style="dim", padding=(0, 3, 0, 0))
    for row in rows:
        cost = Text(f"\nCost: {row['cost']}." if row["cost"] else "", "dim")
        table.add_row(row["name"], row["unit"], Text.assemble(row["summary"] or "", cost))
    show(table)


def _described(name: str, recipe: type[Attributor]) -> dict[str, str | None]:
    # The first line of the method's file says it in plain words, after the method's own name.
    line = (inspect.getdoc(inspect.getmodule(recipe)) or "").partition("\n")[0].partition(": ")[2]
    text = inspect.getdoc(recipe) or ""
    unit, cost = re.search(r"\b(EFFECT|RANK)\b", text), re.search(r"^Cost: (.+?)\.?$", text, re.MULTILINE)
    said = {"name": name, "summary": line[:1].upper() + line[1:]}
    return {**said, "unit": unit[1] if unit else None, "cost": cost[1] if cost else None}


def _usable(task: Path, target: str | None, identifier: str | None, measure: str | None) -> None:
    """Refuse what cannot go together before anything is read."""
    is_table = task.suffix.lower() in TABLES
    if not is_table and task.suffix != ".py":
        raise typer.BadParameter(f"expected a .py, {', '.join(TABLES)} file, got {task.name}", param_hint="TASK")
    if is_table and target is None:
        raise typer.BadParameter(f"{task.name} is a table: say which column to predict", param_hint="--target")
    if not is_table and (target or identifier):
        raise typer.BadParameter(f"--target and --id are for tables, {task.name} is none", param_hint="--target")
    if measure is not None and not re.fullmatch(r"loss|margin|probability:.+", measure):
        raise typer.BadParameter(f"expected loss, margin or probability:CLASS, got {measure}", param_hint="--measure")


def _writable(out: Path) -> None:
    """Said before the work, not after it."""
    if not out.resolve().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {out.resolve().parent}; make it first", param_hint="--out")


def _working(stages: dict[str, str], quiet: bool, as_json: bool) -> Working:
    from rich.console import Console

    from upweight.report.terminal import Working

    return Working(Console(stderr=True, quiet=quiet or (as_json and not sys.stderr.isatty())), stages)


def _task(path: Path, measure: str | None, working: Working) -> tuple[Any, Examples, Examples]:
    from upweight.applications.task import read_task
    from upweight.core.model import Measurable

    working("read", 0, 1)
    model, train, queries = read_task(path)
    if not isinstance(model, Measurable):
        model = upweight.explainable(model, train, _measurement(measure, train))
    elif measure is not None:
        raise typer.BadParameter(
            f"the model in {path.name} already has a measurement ({model.measurement}); set it there",
            param_hint="--measure",
        )
    working("read", 1, 1)
    return model, train, queries


def _table(path: Path, columns: tuple[str, str | None], asked: list[str] | None, seed: int, working: Working) -> Any:
    """A default model fitted on the table; rows asked for are held out from its training."""
    from upweight.applications.table import fit_table, read_table

    working("read", 0, 1)
    try:
        frame = read_table(path, *columns)
    except KeyError as error:
        raise typer.BadParameter(error.args[0], param_hint="--target / --id") from None
    working("read", 1, 1)
    working("train", 0, 1)
    fitted = fit_table(frame, columns[0], asked or (), seed)
    working("train", 1, 1)
    return fitted


def _chosen(model: Any, queries: Examples, asked: list[str] | None) -> tuple[list[Id], str | None]:
    """The queries asked for, else those worth explaining, and why these where it is not plain."""
    from upweight.applications.explain import worth_explaining

    if asked:
        known = {str(i): i for i in queries.ids.tolist()}
        unknown = [i for i in asked if i not in known]
        if unknown:
            few = ", ".join(list(known)[:5])
            raise typer.BadParameter(f"no query has the id {unknown[0]!r}; ids look like {few}", param_hint="--query")
        return [known[i] for i in dict.fromkeys(asked)], None
    return worth_explaining(model, queries)


def _measurement(text: str | None, train: Examples) -> Any:
    from upweight.linear.measurement import Loss, Margin, Probability

    if text is None or text == "loss":
        return Loss()
    if text == "margin":
        return Margin()
    wanted = text.partition(":")[2]
    classes = [] if train.y is None else list(dict.fromkeys(train.y.tolist()))
    for one in classes:
        if wanted in (str(one), str(train.labels.get(one, one))):
            return Probability(of=one)
    raise typer.BadParameter(f"no training label is {wanted!r}; there are {classes[:12]}", param_hint="--measure")


def _recipe(method: Method, seed: int) -> Attributor:
    if method is Method.LEAVE_ONE_OUT:
        from upweight.core.processes import available

        return upweight.LeaveOneOut(processes=available(), seed=seed)
    return upweight.Chance(seed=seed) if method is Method.CHANCE else upweight.Influence()


def _print_json(explained: Explanation, out: Path, k: int) -> None:
    typer.echo(json.dumps({**explained.as_dict(k), "report": str(out.resolve())}, allow_nan=False))


def _print_summary(explained: Explanation, out: Path, queries: list[Id], k: int, noun: str = "example") -> None:
    from upweight.report.terminal import show

    show(explained, out, queries, k, noun)
