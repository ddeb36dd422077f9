"""The output of commands on stdout: tables, sentences, JSON, and where the page is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from upweight.cli.reserved_stdout import write_document
from upweight.core.printable import printable

if TYPE_CHECKING:
    from upweight.cli.inputs import Inputs
    from upweight.cli.options import PrintOptions


def print_application(result: Any, inputs: Inputs, out: Path, printing: PrintOptions, lines: Sequence[str]) -> None:
    """Write the page of an application's result; print notes, its warnings and these lines, or the result as JSON."""
    from upweight.report.write_page import write_page

    write_page(out, result, description=inputs.description)
    if printing.as_json:
        print_json({**result.as_dict(), **inputs.as_dict(), "notes": list(inputs.notes), "page": str(out.resolve())})
    elif not printing.quiet:
        print_model(inputs)
        for note in inputs.notes:
            print_line(f"Note: {note}")
        for warning in result.diagnostics["warnings"]:
            print_line(f"Warning: {warning}")
        for line in lines:
            print_line(line)
        print_line(f"Page: {out}")


def verdict_line(result: Any) -> str:
    """The verdict on a result of `slices` or `what_if`, with the numbers behind it."""
    from upweight.evaluate.agreement import formatted
    from upweight.evaluate.verdict import result_words

    judgement = result.judgement
    if judgement is None or judgement.verdict is None:
        return f"Verdict: {result_words(judgement)}."
    agreed = judgement.agreement
    slope = f", slope {formatted(agreed.slope, 2)}" if isfinite(agreed.slope) else ""
    numbers = f"Pearson {formatted(agreed.pearson, 2)}{slope}"
    return f"Verdict: {result_words(judgement)}. Effects compared with retraining: {numbers}."


def print_model(inputs: Inputs) -> None:
    """What the default model of a table is, and how good. Nothing is printed for the model of a task file."""
    if inputs.table is not None:
        for sentence in inputs.table.description:
            print_line(sentence)


def print_json(value: Any) -> None:
    """Print JSON on stdout."""
    write_document(json.dumps(value, allow_nan=False))


def print_line(text: str) -> None:
    """Print a line on stdout. Control characters of the data are shown."""
    typer.echo(printable(text))


def page_keys(page: Path | None) -> dict[str, Any]:
    """Where the page is, for JSON, under the key `page` and under its older name `report`."""
    path = None if page is None else str(page.resolve())
    return {"page": path, "report": path}


def signed(value: float) -> str:
    """A number with its sign and a true minus, to four digits."""
    return f"{value:+.4g}".replace("-", "−")


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout: names on the left, numbers aligned on the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column, name in enumerate(head):
        table.add_column(Text(printable(name)), justify="right" if column else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(printable(cell, keep="")) for cell in row))
    console = Console(highlight=False)
    console.print(Text(printable(f"\n{title}"), "bold"))
    console.print(table)


def print_notes(notes: Sequence[str], warnings: Sequence[str], page: Path | None) -> None:
    """Sentences on stdout, then the warnings, then where the page is."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for note in notes:
        console.print(Text(printable(note), "dim"))
    for warning in warnings:
        console.print(Text(printable(f"! {warning}"), "yellow"))
    if page is not None:
        console.print(Text.assemble(("\nReport  ", "bold"), page.resolve().as_uri()), soft_wrap=True)
