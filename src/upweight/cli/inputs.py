"""Reading what a command is about: the model, the data, the queries, the measurement and the method."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import typer

import upweight
from upweight.cli.table_files.read import Table, is_table, read_table
from upweight.cli.table_options import TableOptions

if TYPE_CHECKING:
    from upweight.cli.fitted_table import FittedTable, ModelChoice
    from upweight.cli.table_targets import TargetKind
    from upweight.core.attributor import Attributor
    from upweight.core.examples import Examples, Id
    from upweight.core.progress import Progress

MAX_LABELS_LISTED = 12
MAX_IDS_LISTED = 12


class Inputs(NamedTuple):
    """A model, its training set and its queries, with notes on how they were read.

    `table` is the table that a default model was fitted on; None for a task file.
    """

    model: Any
    train: Examples
    queries: Examples
    notes: tuple[str, ...] = ()
    table: FittedTable | None = None

    @property
    def description(self) -> tuple[str, ...]:
        """Sentences about a default model: what it is and how good, and how the table was read."""
        return () if self.table is None else (*self.table.description, *self.notes)

    def as_dict(self) -> dict[str, Any]:
        """What JSON says about a default model; nothing about the model of a task file."""
        return {} if self.table is None else {"model": self.table.as_dict()}


@dataclass(frozen=True)
class Source:
    """Where the model and the data come from: a Python file, or a table with a target column.

    The constructor raises a usage error for options that do not fit together.
    """

    task: Path
    table: TableOptions
    measure: str | None = None
    at: str | None = None

    def __post_init__(self) -> None:
        task, has_rows = self.task, is_table(self.task)
        if not has_rows and task.suffix != ".py":
            raise typer.BadParameter(
                f"expected a .py file or a table (.csv, .tsv, .txt, .xlsx, .parquet, .feather), got {task.name}",
                param_hint="TASK",
            )
        if has_rows and self.table.target is None:
            raise typer.BadParameter(f"{task.name} is a table: say which column to predict", param_hint="--target")
        if not has_rows and self.table.passed:
            passed = self.table.passed
            verb = "is" if len(passed) == 1 else "are"
            raise typer.BadParameter(
                f"{' and '.join(passed)} {verb} for tables, and {task.name} is not a table", param_hint=passed[0]
            )
        if self.measure is not None and not re.fullmatch(r"loss|margin|probability:.+", self.measure):
            raise typer.BadParameter(
                f"expected loss, margin or probability:CLASS, got {self.measure}", param_hint="--measure"
            )

        if self.at not in (None, "model", "optimum"):
            raise typer.BadParameter(f"expected model or optimum, got {self.at}", param_hint="--at")

    def read(
        self, progress: Progress, held_out: list[str] | None = None, seed: int = 0, option: str = "--query"
    ) -> Inputs:
        """Run the Python file, or fit a default model to the table.

        Rows of the table in `held_out`, which `option` named, become queries.
        """
        target = self.table.target
        inputs = self._task(progress) if target is None else self._table(target, progress, held_out, seed, option)
        self._refuse_training_rows(inputs, held_out or [], option)
        return inputs

    def _refuse_training_rows(self, inputs: Inputs, requested: list[str], option: str) -> None:
        """Raise a usage error if a requested query is a training example and no query."""
        trained = {str(i) for i in inputs.train.ids.tolist()} - {str(i) for i in inputs.queries.ids.tolist()}
        for text in requested:
            if text not in trained:
                continue
            because = (
                f"{text!r} is a training example and not one of the queries; add it to queries in {self.task.name}"
                if self.table.target is None
                else f"row {text!r} has to stay in the training set, because no other row has its {self.table.target}"
            )
            raise typer.BadParameter(because, param_hint=option)

    def read_table(self) -> Table:
        """The table as it stands in the file. The index of its frame has the ids of the rows."""
        from upweight.cli.row_ids import with_ids

        target = str(self.table.target)
        columns = tuple(filter(None, (target, self.table.identifier)))
        table = read_table(self.task, replace(self.table.reading(), columns=columns), [target])
        try:
            frame = with_ids(table.frame, target, self.table.identifier, self.task.name, table.last_lines is not None)
        except KeyError as error:
            form = (
                f". It was read with {table.form}; --sep, --encoding and --header change that"
                if str(table.form)
                else ""
            )
            raise typer.BadParameter(f"{error.args[0]}{form}", param_hint="--target / --id") from None
        return replace(table, frame=frame)

    def _task(self, progress: Progress) -> Inputs:
        from upweight.applications.task import read_task
        from upweight.core.model import Measurable

        progress("read", 0, 1)
        model, train, queries = read_task(self.task)
        if not isinstance(model, Measurable):
            model = upweight.explainable(model, train, measurement(self.measure, train), at=self._at)
        elif self.measure is not None:
            raise typer.BadParameter(
                f"the model in {self.task.name} already has a measurement ({model.measurement}); set it there",
                param_hint="--measure",
            )
        elif self.at is not None:
            raise typer.BadParameter(
                f"the model in {self.task.name} was already read; use upweight.explainable(…, at={self.at!r}) there",
                param_hint="--at",
            )
        progress("read", 1, 1)
        return Inputs(model, train, queries)

    @property
    def _at(self) -> Literal["model", "optimum"] | None:
        return "optimum" if self.at == "optimum" else None

    def _table(self, target: str, progress: Progress, held_out: list[str] | None, seed: int, option: str) -> Inputs:
        from upweight.cli.fitted_table import fit_table
        from upweight.cli.row_ids import ids_in_words

        progress("read", 0, 1)
        table = self.read_table()
        progress("read", 1, 1)
        progress("train", 0, 1)
        try:
            fitted = fit_table(table.frame, target, held_out or (), seed, self._choice())
        except KeyError as error:
            raise typer.BadParameter(error.args[0], param_hint="--use / --leave-out") from None
        fitted = replace(fitted, row_ids=ids_in_words(table, self.table.identifier, self.task.name))
        progress("train", 1, 1)
        measure = measurement(self.measure, fitted.train)
        model = upweight.explainable(fitted.estimator, fitted.train, measure, at=self._at)
        named = [text for text in dict.fromkeys(held_out or ()) if text in set(map(str, fitted.held_out.ids.tolist()))]
        listed = ", ".join(named[:MAX_IDS_LISTED]) + (", …" if len(named) > MAX_IDS_LISTED else "")
        note = f"The rows of {option} ({listed}) are left out of training: the model has not seen them."
        notes = (*table.notes, *fitted.notes, *([note] if named else []))
        return Inputs(model, fitted.train, fitted.held_out, notes, fitted)

    def _choice(self) -> ModelChoice:
        """Which model is fitted to which columns. Raises a usage error if the table has no such column."""
        from upweight.cli.default_models import target_kind
        from upweight.cli.fitted_table import ModelChoice

        table = self.table
        kind: TargetKind | None = "classes" if table.target_is == "classes" else None
        kind = "number" if table.target_is == "number" else kind
        if table.target_is is not None and kind is None:
            raise typer.BadParameter(f"expected classes or number, got {table.target_is}", param_hint="--target-is")
        try:
            target_kind(table.model, kind)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--model") from None
        return ModelChoice(model=table.model, kind=kind, use=table.use or (), leave_out=table.leave_out or ())


def choose_queries(
    model: Any, queries: Examples, requested: list[str] | None, number: int | None = None
) -> tuple[list[Id], list[str]]:
    """The ids of the requested queries, or of this number of them with the mistakes first.

    Without a request, of those worth explaining, with a note that says why.
    """
    from upweight.applications.query_choice import mistakes_first, worth_explaining

    if requested:
        return named_queries(queries, requested), []
    if number is not None:
        return mistakes_first(model, queries, number), []
    chosen, note = worth_explaining(model, queries)
    return chosen, [note] if note else []


def number_of_queries(text: str | None, named: list[str] | None) -> int | None:
    """The number of queries to explain; None if it is not given. Raises a usage error for anything but N or `all`."""
    if text is None:
        return None
    if named:
        raise typer.BadParameter("--query names the queries; pass only one of --query and --queries")
    if text == "all":
        return sys.maxsize
    if not (text.isdecimal() and int(text) > 0):
        raise typer.BadParameter(f"expected a number of queries or all, got {text!r}", param_hint="--queries")
    return int(text)


def named_queries(queries: Examples, requested: list[str], option: str = "--query") -> list[Id]:
    """The ids of the queries that `option` requests, in that order and each once."""
    by_text = {str(i): i for i in queries.ids.tolist()}
    return [_by_text(by_text, text, "query", option) for text in dict.fromkeys(requested)]


def ids_in_file(path: Path | None) -> list[str]:
    """The ids in a text file, one per line; none without a file."""
    if path is None:
        return []
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def one_query(model: Any, queries: Examples, requested: str | None) -> Examples:
    """The requested query, or the one that is most worth explaining."""
    chosen, _ = choose_queries(model, queries, None if requested is None else [requested])
    return queries.select(chosen[:1])


def class_label(train: Examples, text: str) -> Any:
    """The label of the training set that is written this way, or by its readable name."""
    labels = [] if train.y is None else list(dict.fromkeys(train.y.tolist()))
    for label in labels:
        if text in (str(label), str(train.labels.get(label, label))):
            return label
    listed = [train.labels.get(label, label) for label in labels[:MAX_LABELS_LISTED]]
    raise typer.BadParameter(f"no training label is {text!r}; the labels are {listed}", param_hint="--label")


def train_id(train: Examples, text: str, option: str | None = None) -> Id:
    """The id of the training example that is written this way."""
    return _by_text({str(i): i for i in train.ids.tolist()}, text, "training example", option)


def _by_text(by_text: dict[str, Id], text: str, noun: str, option: str | None) -> Id:
    if text not in by_text:
        first = ", ".join(list(by_text)[:5])
        raise typer.BadParameter(f"no {noun} has the id {text!r}; ids look like {first}", param_hint=option)
    return by_text[text]


def measurement(text: str | None, train: Examples) -> Any:
    """The measurement of this name: loss, margin or probability:CLASS."""
    from upweight.core.measurement import Loss, Margin, Probability

    if text is None or text == "loss":
        return Loss()
    if text == "margin":
        return Margin()
    class_name = text.partition(":")[2]
    classes = [] if train.y is None else list(dict.fromkeys(train.y.tolist()))
    for label in classes:
        if class_name in (str(label), str(train.labels.get(label, label))):
            return Probability(of=label)
    raise typer.BadParameter(
        f"no training label is {class_name!r}; the labels are {classes[:MAX_LABELS_LISTED]}", param_hint="--measure"
    )


def recipe_for(method: str, seed: int, **settings: Any) -> Attributor:
    """The method of this name with its own defaults; a method that retrains uses all processors.

    `settings` are passed to the method if it has fields of these names.
    """
    from upweight.engines.process_pool import available_processors
    from upweight.methods.registry import methods

    registered = methods()
    if method not in registered:
        names = ", ".join(registered)
        raise typer.BadParameter(f"no method is called {method!r}; the methods are {names}", param_hint="--method")
    settings = {"seed": seed, "processes": available_processors(), **settings}
    own_fields = {field.name for field in fields(registered[method])}
    return registered[method](**{name: value for name, value in settings.items() if name in own_fields})
