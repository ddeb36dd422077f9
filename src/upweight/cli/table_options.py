"""The options of every command that are about a table: how it is read, and which columns are used for what."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

import typer

PANEL = "Options for tables"  # of the help


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Options for tables. Each is None if it was not passed.

    Attributes:
        target: the column to predict.
        identifier: the column with the ids of the rows.
    """

    target: Annotated[str | None, typer.Option(help="The column to predict.", rich_help_panel=PANEL)] = None
    identifier: Annotated[
        str | None, typer.Option("--id", help="The column with the ids of the rows.", rich_help_panel=PANEL)
    ] = None

    @property
    def passed(self) -> list[str]:
        """The names of the options that were passed."""
        names = {"identifier": "id"}
        return [
            f"--{names.get(field.name, field.name).replace('_', '-')}"
            for field in fields(self)
            if getattr(self, field.name) is not None
        ]
