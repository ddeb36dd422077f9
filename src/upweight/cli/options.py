"""Options that several commands share, and checks of their values."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upweight.cli.reserved_stdout import reserve_stdout
from upweight.core.files import PAGE, Contents, destination

if TYPE_CHECKING:
    from upweight.core.attributor import Attributor


def _reserve_stdout(context: typer.Context, as_json: bool) -> bool:
    """Keep stdout for the document, from here to the end of the command."""
    if as_json:
        context.with_resource(reserve_stdout())
    return as_json


Task = Annotated[
    Path,
    typer.Argument(
        exists=True,
        dir_okay=False,
        help="A Python file that defines model, train and queries; or a table (text, Excel, Parquet, Feather), with "
        "--target.",
    ),
]
Query = Annotated[
    list[str] | None,
    typer.Option(help="Id of a query to explain; may be repeated. Default: the most confident mistakes."),
]
OneQuery = Annotated[
    str | None,
    typer.Option("--query", help="Id of the query to explain. Default: the most confident mistake."),
]
Label = Annotated[str | None, typer.Option(help="The label that is asked about, instead of the usual one.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed for splitting a table and for everything drawn at random.")]
Measure = Annotated[str | None, typer.Option(help="What to measure: loss (default), margin, or probability:CLASS.")]
At = Annotated[
    str | None,
    typer.Option(
        help="optimum: accept scores of the optimum even if the model, which stopped earlier, predicts something else."
    ),
]
Method = Annotated[
    str | None,
    typer.Option(help="Attribution method; `upweight methods` lists them. Default: the one that suits the model."),
]
Removals = Annotated[
    int, typer.Option(min=0, help="How many removals to retrain, to check the predicted effects; 0 for none.")
]
Seeds = Annotated[int, typer.Option(min=1, help="Trainings per removal, if training depends on its seed.")]
Folder = Annotated[
    Path | None,
    typer.Option(file_okay=False, help="Store every retraining here; an interrupted run continues from it."),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where to write the page.")]
OptionalOut = Annotated[Path | None, typer.Option("--out", "-o", help="Write a page with plots to this file.")]
AsJson = Annotated[
    bool, typer.Option("--json", callback=_reserve_stdout, help="Print JSON on stdout, and nothing else there.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors (and JSON, with --json).")]
OldVerify = Annotated[int | None, typer.Option("--verify", min=0, hidden=True)]
OldReport = Annotated[Path | None, typer.Option("--report", hidden=True)]


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """Options of commands that measure a model."""

    measure: Measure = None
    at: At = None
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Options of commands that score training examples with one method."""

    method: Method = None
    measure: Measure = None
    at: At = None
    seed: Seed = 0

    def recipe(self) -> Attributor | None:
        """The method of this name; None if none was passed. Raises a usage error if no method has this name."""
        from upweight.cli.inputs import recipe_for

        return None if self.method is None else recipe_for(self.method, self.seed)


@dataclass(frozen=True, kw_only=True)
class PrintOptions:
    """Options of commands that print a result."""

    as_json: AsJson = False
    quiet: Quiet = False


def renamed_option(value: Any, old_value: Any, old: str, new: str, default: Any = None) -> Any:
    """The value of an option that may have been passed under its old name. Use of the old name is logged."""
    if old_value is None:
        return value
    if value != default:
        raise typer.BadParameter(f"{old} is the old name of {new}; pass only one of them", param_hint=old)
    logging.getLogger("upweight").warning("%s is now called %s", old, new)
    return old_value


def require_output(out: Path | None, *inputs: Path | None, contents: Contents = PAGE, option: str = "--out") -> None:
    """Raise a usage error before the work if the output cannot be written there, or something would be lost by it.

    Args:
        out: the option.
        inputs: the files that the command reads.
        contents: what it writes.
        option: its name, if it is another one.
    """
    if out is None:
        return
    try:
        folder = destination(out, contents, [path for path in inputs if path is not None]).parent
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
    except OSError as error:
        raise typer.BadParameter(f"{out} cannot be written: {error.strerror}", param_hint=option) from None
    if not folder.is_dir():
        raise typer.BadParameter(f"there is no folder {folder}; make it first", param_hint=option)
