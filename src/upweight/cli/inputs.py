"""What a command is asked about: a Python file that names model, train and queries, or a table; and by which method."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

import upweight

if TYPE_CHECKING:
    from upweight.core.attributor import Attributor
    from upweight.core.examples import Examples, Id
    from upweight.report.terminal import Working

TABLES = (".csv", ".parquet", ".pq")
QUERY = "Id of a query to explain, may be repeated. Default: the most confident mistakes."

Task = Annotated[
    Path,
    typer.Argument(
        exists=True,
        dir_okay=False,
        help="A Python file that names model, train and queries; or a CSV or Parquet file, with --target.",
    ),
]
Target = Annotated[str | None, typer.Option(help="The column to predict, for a table.")]
Identifier = Annotated[str | None, typer.Option("--id", help="The column that names the rows of a table.")]
Query = Annotated[list[str] | None, typer.Option(help=QUERY)]
Seed = Annotated[int, typer.Option(min=0, help="For the split of a table and for the removals.")]
Measure = Annotated[str | None, typer.Option(help="loss (default), margin, or probability:CLASS.")]


How = Annotated[str | None, typer.Option(help="How to score; see `upweight methods`. Default: what suits the model.")]


class Subject(NamedTuple):
    """A model, its training set, what is asked about it, and sentences about how they were read."""

    model: Any
    train: Examples
    queries: Examples
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """What the command line says of the model and the data; `Source(…)` refuses what cannot go together."""

    task: Path
    target: str | None = None
    identifier: str | None = None
    measure: str | None = None

    def __post_init__(self) -> None:
        task, is_table = self.task, self.task.suffix.lower() in TABLES
        if not is_table and task.suffix != ".py":
            raise typer.BadParameter(f"expected a .py, {', '.join(TABLES)} file, got {task.name}", param_hint="TASK")
        if is_table and self.target is None:
            raise typer.BadParameter(f"{task.name} is a table: say which column to predict", param_hint="--target")
        if not is_table and (self.target or self.identifier):
            raise typer.BadParameter(f"--target and --id are for tables, {task.name} is none", param_hint="--target")
        if self.measure is not None and not re.fullmatch(r"loss|margin|probability:.+", self.measure):
            raise typer.BadParameter(
                f"expected loss, margin or probability:CLASS, got {self.measure}", param_hint="--measure"
            )

    def read(self, working: Working, held_out: list[str] | None = None, seed: int = 0) -> Subject:
        """Run the file, or fit a default model to the table, of which the rows `held_out` are no training data."""
        return self._task(working) if self.target is None else self._table(self.target, working, held_out, seed)

    def _task(self, working: Working) -> Subject:
        from upweight.applications.task import read_task
        from upweight.core.model import Measurable

        working("read", 0, 1)
        model, train, queries = read_task(self.task)
        if not isinstance(model, Measurable):
            model = upweight.explainable(model, train, measurement(self.measure, train))
        elif self.measure is not None:
            raise typer.BadParameter(
                f"the model in {self.task.name} already has a measurement ({model.measurement}); set it there",
                param_hint="--measure",
            )
        working("read", 1, 1)
        return Subject(model, train, queries)

    def _table(self, target: str, working: Working, held_out: list[str] | None, seed: int) -> Subject:
        from upweight.applications.table import fit_table, read_table

        working("read", 0, 1)
        try:
            frame = read_table(self.task, target, self.identifier)
        except KeyError as error:
            raise typer.BadParameter(error.args[0], param_hint="--target / --id") from None
        working("read", 1, 1)
        working("train", 0, 1)
        fitted = fit_table(frame, target, held_out or (), seed)
        working("train", 1, 1)
        model = upweight.explainable(fitted.estimator, fitted.train, measurement(self.measure, fitted.train))
        return Subject(model, fitted.train, fitted.held_out, tuple(fitted.notes))


def choose(model: Any, queries: Examples, asked: list[str] | None) -> tuple[list[Id], str | None]:
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


def measurement(text: str | None, train: Examples) -> Any:
    """The measurement these words name."""
    from upweight.core.measurement import Loss, Margin, Probability

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


def recipe_for(method: str, seed: int, **known_here: Any) -> Attributor:
    """The method of this name with its own defaults, on all processors where it retrains.

    `known_here`: settings that the command knows, for the methods that have them.
    """
    from upweight.methods.registry import methods
    from upweight.retraining.process_pool import available_processors

    known = methods()
    if method not in known:
        raise typer.BadParameter(f"no method is called {method!r}; there are {', '.join(known)}", param_hint="--method")
    given = {"seed": seed, "processes": available_processors(), **known_here}
    taken = {field.name for field in fields(known[method])}
    return known[method](**{name: value for name, value in given.items() if name in taken})
