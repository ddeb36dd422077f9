"""upweight demo: the whole path once, on scanned digits."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.option_groups import expand_options
from upweight.cli.options import Out, PrintOptions, require_output
from upweight.cli.output import page_keys, print_json

STRONGEST_PRINTED = 3


@app.command()
@expand_options
def demo(
    *,
    out: Out = Path("report.html"),
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the report in the browser.")] = False,
    printing: PrintOptions,
) -> None:
    """Explain the worst mistakes of a small model that reads scanned digits, and verify the scores."""
    require_output(out)
    from upweight.demo import STAGES
    from upweight.demo import demo as run
    from upweight.report.terminal import print_explanation

    with show_progress(STAGES, printing) as progress:
        explained = run(out, progress)
    if printing.as_json:
        print_json({**explained.as_dict(STRONGEST_PRINTED), **page_keys(out)})
    elif not printing.quiet:
        print_explanation(explained, out, explained.queries.ids.tolist()[:1], STRONGEST_PRINTED, noun="digit")
    if browser:
        webbrowser.open(out.resolve().as_uri())
