"""upweight what-if: the effect of removing, relabelling or reweighting training examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import upweight
from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source, choose_queries, train_id
from upweight.cli.option_groups import expand_options
from upweight.cli.options import MeasureOptions, Out, PrintOptions, Query, Task, require_output
from upweight.cli.output import print_application, signed, verdict_line
from upweight.cli.table_files.numbers import POINT_NUMBER
from upweight.cli.table_options import TableOptions

if TYPE_CHECKING:
    from upweight.core.examples import Examples, Id


@app.command("what-if")
@expand_options
def what_if(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    remove: Annotated[
        list[str] | None, typer.Option(help="Id of a training example to remove; may be repeated.")
    ] = None,
    relabel: Annotated[list[str] | None, typer.Option(help="ID=LABEL; may be repeated.")] = None,
    reweight: Annotated[
        list[str] | None, typer.Option(help="ID=FACTOR on the weight of the example; may be repeated.")
    ] = None,
    table: TableOptions,
    query: Query = None,
    out: Out = Path("what-if.html"),
    measured: MeasureOptions,
    printing: PrintOptions,
) -> None:
    """Predict the effect of removing, relabelling or reweighting training examples, then retrain to check it."""
    if not (remove or relabel or reweight):
        raise typer.BadParameter("say what to change: --remove, --relabel or --reweight", param_hint="--remove")
    source = Source(task, table, measured.measure, measured.at)
    require_output(out, task)
    from upweight.applications.changes import Change
    from upweight.applications.what_if import what_if as run

    stages = {"read": f"Reading {task.name}", "retrain": "Retraining with the change, and with random ones like it"}
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, query, measured.seed)
        model, train, queries = inputs.model, inputs.train, inputs.queries
        _refuse_queries(train, queries, remove or ())
        change = Change(
            remove=[train_id(train, text) for text in remove or ()],
            relabel=dict(_pairs(train, queries, relabel, "--relabel", _labels(train).__contains__)),
            reweight={i: _factor(text) for i, text in _pairs(train, queries, reweight, "--reweight", _is_factor)},
        )
        retraining = upweight.Retraining(processes=1, how="processes", seeds=[measured.seed], progress=progress)
        chosen = queries.select(choose_queries(model, queries, query)[0])
        result = run(model, train, chosen, change, retraining=retraining)
    lines = ["Each change was retrained."] if result.predicted is None else [verdict_line(result)]
    columns = {"predicted": result.predicted, "actual": result.actual}
    for row, query_id in enumerate(result.queries.ids.tolist()):
        effects = [f"{name} effect {signed(e[row, 0])}" for name, e in columns.items() if e is not None]
        lines.append(f"{query_id}: {', '.join(effects)}")
    print_application(result, inputs, out, printing, lines)


def _refuse_queries(train: Examples, queries: Examples, texts: Iterable[str], option: str = "--remove") -> None:
    """Raise a usage error for the id of a query that is no training example."""
    others = set(map(str, queries.ids.tolist())) - set(map(str, train.ids.tolist()))
    for text in texts:
        if text in others:
            raise typer.BadParameter(
                f"{text!r} is a query: the model was trained without it, and only training examples can change",
                param_hint=option,
            )


def _pairs(
    train: Examples, queries: Examples, texts: list[str] | None, option: str, is_value: Callable[[str], bool]
) -> list[tuple[Id, str]]:
    """(training id, value) of every ID=VALUE; ids and values may hold "=" themselves."""
    ids = {str(i): i for i in train.ids.tolist()}
    _refuse_queries(train, queries, [text.partition("=")[0] for text in texts or ()], option)
    return [_pair(ids, text, option, is_value) for text in texts or ()]


def _pair(ids: dict[str, Id], text: str, option: str, is_value: Callable[[str], bool]) -> tuple[Id, str]:
    """The only split of the text whose left part is an id; if several are, the only one whose right part is a value."""
    places = [place for place, character in enumerate(text) if character == "="]
    if not places:
        raise typer.BadParameter(f"expected ID=VALUE, got {text!r}", param_hint=option)
    splits = [(text[:place], text[place + 1 :]) for place in places if text[:place] in ids]
    if len(splits) > 1:
        splits = [split for split in splits if is_value(split[1])] or splits
    if len(splits) > 1:
        readings = " or ".join(f"{value!r} for {identifier!r}" for identifier, value in splits)
        raise typer.BadParameter(f"{text!r} can mean {readings}; rename one of these ids", param_hint=option)
    if not splits:
        first = ", ".join(list(ids)[:5])
        raise typer.BadParameter(
            f"no training example has the id {text[: places[0]]!r}; ids look like {first}", param_hint=option
        )
    return ids[splits[0][0]], splits[0][1]


def _labels(train: Examples) -> set[str]:
    """The labels as they may be written."""
    return {str(label) for label in [*([] if train.y is None else train.y.tolist()), *train.labels.values()]}


def _is_factor(text: str) -> bool:
    return bool(POINT_NUMBER.fullmatch(text))


def _factor(text: str) -> float:
    if not _is_factor(text):
        raise typer.BadParameter(f"expected a number as factor, got {text!r}", param_hint="--reweight")
    return float(text)
