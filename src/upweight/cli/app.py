"""The application that the commands hang on: one file each, failures as one readable message."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import upweight

if TYPE_CHECKING:
    from upweight.report.terminal import Working

LEVEL = "UPWEIGHT_LOG_LEVEL"
log = logging.getLogger("upweight")


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

Removals = Annotated[int, typer.Option(min=0, help="Removals that are really retrained to check with; 0 = none.")]
OlderVerify = Annotated[int | None, typer.Option("--verify", min=0, hidden=True)]
OlderReport = Annotated[Path | None, typer.Option("--report", hidden=True)]
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


def newer(value: Any, older: Any, was: str, now: str, default: Any = None) -> Any:
    """The value of an option that may have been passed by its older name, which is logged."""
    if older is None:
        return value
    if value != default:
        raise typer.BadParameter(f"{was} is the older name of {now}; pass one of them", param_hint=was)
    log.warning("%s is now called %s", was, now)
    return older


def writable(out: Path) -> None:
    """Said before the work, not after it."""
    if not out.resolve().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {out.resolve().parent}; make it first", param_hint="--out")


def working_on(stages: dict[str, str], quiet: bool, as_json: bool) -> Working:
    """A context with one progress bar a stage, on stderr; silent where only JSON is wanted."""
    from rich.console import Console

    from upweight.report.terminal import Working

    return Working(Console(stderr=True, quiet=quiet or (as_json and not sys.stderr.isatty())), stages)
