"""The options of every command that are about a table: how it is read, and which columns are used for what."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

import typer

from upweight.cli.table_files.table_format import ReadingOptions

PANEL = "Options for tables"  # of the help


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Options for tables. Each is None if it was not passed.

    Attributes:
        target: the column to predict.
        target_is: `classes` or `number`.
        identifier: the column with the ids of the rows.
        sep, encoding, decimal, thousands, header: how the file is written, as texts; found out if not passed.
        use, leave_out: columns to predict from, and columns not to predict from.
        model: the name of the model to fit.
    """

    target: Annotated[str | None, typer.Option(help="The column to predict.", rich_help_panel=PANEL)] = None
    target_is: Annotated[
        str | None,
        typer.Option(help="How to read the target: classes or number. Default: by its values.", rich_help_panel=PANEL),
    ] = None
    identifier: Annotated[
        str | None, typer.Option("--id", help="The column with the ids of the rows.", rich_help_panel=PANEL)
    ] = None
    use: Annotated[
        list[str] | None,
        typer.Option(
            help="A column to predict from even if it looks like an id; may be repeated.", rich_help_panel=PANEL
        ),
    ] = None
    leave_out: Annotated[
        list[str] | None, typer.Option(help="A column not to predict from; may be repeated.", rich_help_panel=PANEL)
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            help="The model: logistic, ridge, linear-svm, poisson, lightgbm, xgboost, catboost, gradient-boosting, "
            "random-forest or extra-trees. Default: logistic for classes, ridge for a number.",
            rich_help_panel=PANEL,
        ),
    ] = None

    sep: Annotated[
        str | None,
        typer.Option(
            help="What separates the columns: a character, or comma, semicolon, tab, pipe, space.",
            rich_help_panel=PANEL,
        ),
    ] = None
    encoding: Annotated[
        str | None, typer.Option(help="The encoding of the file, such as utf-8 or cp1252.", rich_help_panel=PANEL)
    ] = None
    decimal: Annotated[str | None, typer.Option(help="The decimal mark: . or ,", rich_help_panel=PANEL)] = None
    thousands: Annotated[
        str | None,
        typer.Option(
            help="What stands between thousands, if the numbers do not show it: comma, point, space or apostrophe.",
            rich_help_panel=PANEL,
        ),
    ] = None
    header: Annotated[
        str | None,
        typer.Option(
            metavar="LINE",
            help="The line with the names of the columns, counted from 1; or none.",
            rich_help_panel=PANEL,
        ),
    ] = None

    def reading(self) -> ReadingOptions:
        """How the file is written. Raises a usage error for values that no file has."""
        try:
            return ReadingOptions.parsed(self.sep, self.encoding, self.decimal, self.header, self.thousands)
        except ValueError as error:
            option, message = error.args
            raise typer.BadParameter(message, param_hint=option) from None

    @property
    def passed(self) -> list[str]:
        """The names of the options that were passed."""
        return list(self._values)

    def as_arguments(self) -> list[str]:
        """The options that were passed, with their values, as a command line has them."""
        texts = {name: [value] if isinstance(value, str) else value for name, value in self._values.items()}
        return [argument for name, values in texts.items() for value in values for argument in (name, value)]

    @property
    def _values(self) -> dict[str, str | list[str]]:
        names = {"identifier": "id"}
        values = {names.get(field.name, field.name): getattr(self, field.name) for field in fields(self)}
        return {f"--{name.replace('_', '-')}": value for name, value in values.items() if value not in (None, [])}
