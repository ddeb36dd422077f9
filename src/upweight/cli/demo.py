"""upweight demo."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from upweight.cli.app import AsJson, Out, Quiet, app, working_on, writable
from upweight.cli.explain import print_json, print_summary


@app.command()
def demo(
    out: Out = Path("report.html"),
    as_json: AsJson = False,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the report in the browser.")] = False,
    quiet: Quiet = False,
) -> None:
    """Explain and verify the worst mistakes of a small model that reads scanned digits."""
    writable(out)
    from upweight.demo import STAGES as DEMO_STAGES
    from upweight.demo import demo as run

    with working_on(DEMO_STAGES, quiet, as_json) as working:
        explained = run(out, working)
    if as_json:
        print_json(explained, out, k=3)
    elif not quiet:
        print_summary(explained, out, explained.queries.ids.tolist()[:1], k=3, noun="digit")
    if browser:
        webbrowser.open(out.resolve().as_uri())
