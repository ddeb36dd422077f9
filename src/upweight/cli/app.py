"""The command-line application that every command registers with. A failure is printed as one readable message."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import upweight
from upweight.cli.plain_characters import PLAIN
from upweight.cli.reserved_stdout import divert_stdout
from upweight.cli.stopping import exit_status, listen_for_signals, stop_sentence
from upweight.core.printable import printable
from upweight.retraining.interruption import unfinished_of

if TYPE_CHECKING:
    from upweight.cli.options import PrintOptions
    from upweight.report.progress_display import ProgressDisplay

JSON_OPTION = "--json"
LOG_LEVEL_VARIABLE = "UPWEIGHT_LOG_LEVEL"
HELP_ORDER = (
    "demo",
    "explain",
    "verify",
    "evaluate",
    "mislabeled",
    "export-labels",
    "import-labels",
    "patch",
    "slices",
    "discover",
    "audit",
    "prototypes",
    "poisoned",
    "local-model",
    "growing-spheres",
    "global-explanation",
    "inputs",
    "neurons",
    "tokens",
    "tree",
    "perturb",
    "fgsm",
    "flip-set",
    "what-if",
    "forget",
    "reweight",
    "store",
    "retrieve",
    "view",
    "methods",
)
log = logging.getLogger("upweight")


class Commands(TyperGroup):
    """The commands. Every failure inside one is printed as one readable message, with exit code 1.

    A command that is interrupted or terminated says how to continue, and exits with 130 or 143.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order of `HELP_ORDER`, then any others."""
        names = super().list_commands(ctx)
        return [*(name for name in HELP_ORDER if name in names), *(name for name in names if name not in HELP_ORDER)]

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Usage errors and exits are left to the parser."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except typer.BadParameter as error:
            error.message = printable(error.message)
            raise
        except KeyboardInterrupt as error:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            has_folder = command is not None and any(parameter.name == "folder" for parameter in command.params)
            typer.echo(f"\n{printable(stop_sentence(unfinished_of(error), has_folder))}", err=True)
            raise typer.Exit(exit_status(error)) from None
        except Exception as error:
            if hasattr(error, "exit_code"):  # another error of the parser, whichever parser typer brings
                raise
            log.debug("failed", exc_info=True)
            # The text of a KeyError is the repr of its message.
            message = error.args[0] if isinstance(error, KeyError) and error.args else error
            typer.echo(f"Error: {printable(str(message)) or type(error).__name__}", err=True)
            unfinished = unfinished_of(error)
            if unfinished is not None and unfinished.done and unfinished.folder is not None:
                typer.echo(printable(str(unfinished)), err=True)
            raise typer.Exit(1) from None


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


def main() -> None:
    """Entry point of `upweight` and `python -m upweight`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=PLAIN)  # a terminal without a true minus prints the plain one
    listen_for_signals()
    warnings.formatwarning = _printable_warning
    try:
        app()
    finally:
        if JSON_OPTION in sys.argv:
            divert_stdout()  # from what still prints when Python exits


def _printable_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
    format_warning: Callable[..., str] = warnings.formatwarning,
) -> str:
    return printable(format_warning(message, category, filename, lineno, line))


class PrintableFormatter(logging.Formatter):
    """Log messages in which control characters of the data are shown."""

    def format(self, record: logging.LogRecord) -> str:
        """The message as a text that a terminal can print."""
        return printable(super().format(record))


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"upweight {upweight.__version__}")
        raise typer.Exit()


VERSION = typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)


@app.callback()
def root(version: Annotated[bool, VERSION] = False) -> None:
    """Which training examples caused this prediction, and what would change without them?"""
    level = os.environ.get(LOG_LEVEL_VARIABLE, "WARNING").upper()
    if level not in logging.getLevelNamesMapping():
        raise typer.BadParameter(f"expected DEBUG, INFO, WARNING or ERROR, got {level}", param_hint=LOG_LEVEL_VARIABLE)
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(levelname)s %(name)s: %(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(level)


@contextmanager
def show_progress(stages: dict[str, str], printing: PrintOptions) -> Iterator[ProgressDisplay]:
    """One line per stage on stderr while the context lasts. With JSON output it is silent, except on a terminal."""
    from rich.console import Console

    from upweight.core.announcements import announcements
    from upweight.report.progress_display import ProgressDisplay

    silent = printing.quiet or (printing.as_json and not sys.stderr.isatty())
    before, announcements.disabled = announcements.disabled, silent
    try:
        with ProgressDisplay(Console(stderr=True, quiet=silent), stages) as progress:
            yield progress
    finally:
        announcements.disabled = before
