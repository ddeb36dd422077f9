"""The table of a command with the decisions of a patch carried out, in the form in which it came."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from upweight.cli.inputs import Source
from upweight.cli.options import require_output
from upweight.cli.table_files.changed_table import changed_table
from upweight.cli.table_files.compression import contents_of
from upweight.cli.table_files.read import COMPRESSED_SUFFIXES, SUFFIXES, is_table, read_table
from upweight.cli.table_files.table_format import Kind
from upweight.core.files import Contents, open_atomically

if TYPE_CHECKING:
    from upweight.applications.patch import Patch

TABLE = Contents("a table", (*SUFFIXES, *COMPRESSED_SUFFIXES))
BINARY_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "excel": (".xlsx",),
    "parquet": (".parquet", ".pq"),
    "feather": (".feather", ".arrow"),
}


def require_table_output(out: Path | None, source: Source, decisions: Path) -> None:
    """Raise a usage error before the work if the cleaned table cannot be written to this file."""
    if out is None:
        return
    if source.table.target is None:
        raise typer.BadParameter(f"{source.task.name} is not a table, so no table can be written", param_hint="--out")
    require_output(out, source.task, decisions, contents=TABLE)
    kind = contents_of(source.task.read_bytes(), source.task.name).kind
    named = next((each for each, suffixes in BINARY_SUFFIXES.items() if out.suffix.lower() in suffixes), "text")
    if not is_table(out) or named != kind:
        expected = " or ".join(BINARY_SUFFIXES.get(kind, (".csv", ".tsv")))
        raise typer.BadParameter(
            f"the table is written in the form in which it came: name a {expected} file, got {out.name}",
            param_hint="--out",
        )


def write_cleaned(out: Path, source: Source, patch: Patch) -> None:
    """Write the table with the labels of the patch, and without the rows that it drops."""
    target = str(source.table.target)
    row_of = {str(identifier): row for row, identifier in enumerate(source.read_table().frame.index.tolist())}
    values = {row_of[str(d.id)]: d.new for d in patch.decisions if d.new is not None and d.new != d.old}
    dropped = [row_of[str(d.id)] for d in patch.decisions if d.new is None]
    columns = tuple(filter(None, (target, source.table.identifier)))
    table = read_table(source.task, replace(source.table.reading(), columns=columns), [target])
    data = changed_table(source.task, table, target, values, dropped, out)
    with open_atomically(out, TABLE) as file:
        file.write(data)
