"""upweight poisoned: which predictions are targets of an attack on the training set, and which examples attack them?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Inputs, Source, ids_in_file, named_queries, recipe_for
from upweight.cli.option_groups import expand_options
from upweight.cli.options import Method, Out, PrintOptions, Seed, Task, require_output
from upweight.cli.output import print_application
from upweight.cli.table_options import TableOptions

if TYPE_CHECKING:
    from upweight.applications.poisoned import Poisoned
    from upweight.core.examples import Examples

QUERIES_PRINTED = 20


@app.command()
@expand_options
def poisoned(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    query: Annotated[
        list[str] | None,
        typer.Option(help="Id of a query whose attackers are removed, flagged or not; may be repeated."),
    ] = None,
    targets: Annotated[
        int, typer.Option(min=0, help="How many flagged queries to check by retraining; 0 for none.")
    ] = 3,
    k: Annotated[
        int,
        typer.Option(min=1, help="A query is judged by its k-th strongest training example; not above the poisons."),
    ] = 3,
    level: Annotated[float, typer.Option(help="The share of clean queries that may be flagged.")] = 0.01,
    clean: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A text file with one id per line: queries known to be clean, with which the others are compared.",
        ),
    ] = None,
    out: Out = Path("poisoned.html"),
    method: Method = None,
    seed: Seed = 0,
    printing: PrintOptions,
) -> None:
    """Flag predictions that look like targets of poisoned training examples, and retrain without these to check it."""
    source = Source(task, table)
    require_output(out, task)
    recipe, known = None if method is None else recipe_for(method, seed), ids_in_file(clean)
    if clean is not None and not known:
        raise typer.BadParameter(f"{clean.name} lists no query", param_hint="--clean")
    import upweight

    fit = upweight.FIT(k=k, level=level)
    stages = {
        "read": f"Reading {task.name}",
        "fit": "Fitting the method",
        "attribute": "Scoring the training set",
        "retrain": "Retraining without attackers",
    }
    with show_progress(stages, printing) as progress:
        option = "--query / --clean" if known else "--query"
        inputs = source.read(progress, [*(query or []), *known] or None, seed, option)
        if known:
            inputs, reference = _set_apart(inputs, known, query or [])
            fit = replace(fit, clean=reference)
        result = upweight.poisoned(
            inputs.model,
            inputs.train,
            inputs.queries,
            recipe,
            fit=fit,
            targets=named_queries(inputs.queries, query) if query else targets,
            retraining=upweight.Retraining(seeds=[seed], progress=progress),
        )
    print_application(result, inputs, out, printing, [*_lines(result), *result.diagnostics["notes"]])


def _set_apart(inputs: Inputs, known: list[str], query: list[str]) -> tuple[Inputs, Examples]:
    """(the inputs without the queries that are known to be clean, these)."""
    clean = named_queries(inputs.queries, known, "--clean")
    both = [text for text in query if text in set(known)]
    if both:
        raise typer.BadParameter(f"{both[0]!r} is named by --query too; name it once", param_hint="--clean")
    others = [i for i in inputs.queries.ids.tolist() if i not in set(clean)]
    if not others:
        raise typer.BadParameter("all queries are known to be clean; none is left to be judged", param_hint="--clean")
    return inputs._replace(queries=inputs.queries.select(others)), inputs.queries.select(clean)


def _lines(result: Poisoned) -> list[str]:
    """What is printed: the queries that are flagged or were tried, the filter, and the accuracy after removal."""
    shown = [suspect for suspect in result.suspects if suspect.flagged or suspect.mitigation is not None]
    lines = [f"{result!r}."]
    lines += [f"{s.id} (predicted {s.predicted}): {s.sentence}" for s in shown[:QUERIES_PRINTED]]
    if len(shown) > QUERIES_PRINTED:
        lines.append(f"and {len(shown) - QUERIES_PRINTED:,} more, on the page and in --json.")
    if result.neighbours is not None:
        lines.append(f"{result.neighbours!r}.")
    before, after = result.accuracy
    if before is not None and after is not None and result.removed:
        lines.append(
            f"{len(result.removed):,} training examples removed: accuracy on queries that are not flagged "
            f"{before:.3f} before, {after:.3f} after."
        )
    return lines
