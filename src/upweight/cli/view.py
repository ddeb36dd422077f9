"""upweight view: scores that are too many for one page, in a browser on this machine."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source
from upweight.cli.option_groups import expand_options
from upweight.cli.options import PrintOptions, Quiet, Seed, Task
from upweight.cli.output import print_line
from upweight.cli.table_options import TableOptions

if TYPE_CHECKING:
    from upweight.core.examples import Examples
    from upweight.core.progress import Progress
    from upweight.core.scores import Scores

By = Annotated[
    list[str] | None,
    typer.Option(help="Column of the training set whose groups are summed over all queries; may be repeated."),
]


@app.command()
@expand_options
def view(  # noqa: PLR0913 - every option of the command is a parameter
    scores: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="Scores, from `explain --scores` or `scores.save`.")
    ],
    task: Task,
    *,
    table: TableOptions,
    against: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Scores of another method, to show side by side.")
    ] = None,
    by: By = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1; 0 for a free one.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Also open the address in a browser.")] = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Show scores of any size in a browser, page by page, until Ctrl-C. Only this machine reaches the address."""
    source = Source(task, table)
    from upweight.core.scores import Scores
    from upweight.report.viewer.viewer import Viewer

    stages = {"read": f"Reading {task.name}", "scores": f"Reading {scores.name}"}
    with show_progress(stages, PrintOptions(quiet=quiet)) as progress:
        progress("scores", 0, 1)
        shown = Scores.load(scores, mapped=True)
        other = None if against is None else Scores.load(against, mapped=True)
        progress("scores", 1, 1)
        train, queries = _examples(source, shown, progress, seed)
    try:
        viewer = Viewer(shown, train, queries, against=other, by=by or ())
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


def _examples(source: Source, scores: Scores, progress: Progress, seed: int) -> tuple[Examples, Examples]:
    """The training set and the queries; of a task file no model is read, and of a table the queries are held out."""
    if source.table.target is not None:
        inputs = source.read(progress, [str(i) for i in scores.query_ids.tolist()], seed)
        return inputs.train, inputs.queries
    from upweight.applications.task import read_task

    progress("read", 0, 1)
    _, train, queries = read_task(source.task)
    progress("read", 1, 1)
    return train, queries
