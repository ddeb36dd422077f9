"""upweight view: scores that are too many for one page, in a browser on this machine."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.options import Quiet
from upweight.cli.output import print_line

By = Annotated[
    list[str] | None,
    typer.Option(help="Column of the training set whose groups are summed over all queries; may be repeated."),
]


@app.command()
def view(
    scores: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Scores, as `scores.save` writes them.")],
    task: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="The Python file with the train and queries behind them."),
    ],
    *,
    against: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Scores of another method, to show side by side.")
    ] = None,
    by: By = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1; 0 for a free one.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Also open the address in a browser.")] = False,
    quiet: Quiet = False,
) -> None:
    """Show scores of any size in a browser, page by page, until Ctrl-C. Only this machine reaches the address."""
    if task.suffix != ".py":
        raise typer.BadParameter(f"expected a .py file that defines train and queries, got {task.name}")
    from upweight.applications.task import read_task
    from upweight.core.scores import Scores
    from upweight.report.viewer.viewer import Viewer

    stages = {"read": f"Reading {task.name}", "scores": f"Reading {scores.name}"}
    with show_progress(stages, quiet, as_json=False) as progress:
        progress("scores", 0, 1)
        own = Scores.load(scores, mapped=True)
        other = None if against is None else Scores.load(against, mapped=True)
        progress("scores", 1, 1)
        progress("read", 0, 1)
        _, train, queries = read_task(task)
        progress("read", 1, 1)
    try:
        viewer = Viewer(own, train, queries, against=other, by=by or ())
    except KeyError as error:
        raise typer.BadParameter(str(error.args[0]), param_hint="--by") from None
    with viewer.serve(port) as server:
        print_line(f"Viewer: {server.url}")
        print_line("Ctrl-C ends it.")
        if open_browser:
            webbrowser.open(server.url)
        try:
            server.wait()
        except KeyboardInterrupt:
            print_line("The viewer is closed.")
