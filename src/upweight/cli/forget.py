"""upweight forget: an estimator without some training examples, and a certificate of what that is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from upweight.cli.app import app, show_progress
from upweight.cli.inputs import Source, ids_in_file, train_id
from upweight.cli.option_groups import expand_options
from upweight.cli.options import Out, PrintOptions, Seed, Task, require_output
from upweight.cli.output import print_application
from upweight.cli.table_options import TableOptions
from upweight.core.files import CERTIFICATE, Contents, open_atomically

ESTIMATOR = Contents("a saved estimator", (".joblib", ".pkl", ".pt", ".pth"), b"", (b"{", b"[", b"<"))


@app.command()
@expand_options
def forget(  # noqa: PLR0913 - every option of the command is a parameter
    task: Task,
    *,
    table: TableOptions,
    example: Annotated[
        list[str] | None, typer.Option("--example", help="Id of a training example to forget; may be repeated.")
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A text file with one id to forget per line.")
    ] = None,
    refit: Annotated[bool, typer.Option(help="Train again without them in any case, which is a deletion.")] = False,
    compare: Annotated[
        bool | None,
        typer.Option(help="Measure the distance to a retrained model. Default: if the result is not a deletion."),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="Write the certificate to this JSON file.")] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Write the new estimator to this file: by joblib, or the state_dict of a network."),
    ] = None,
    out: Out = Path("forget.html"),
    seed: Seed = 0,
    printing: PrintOptions,
) -> None:
    """Make an estimator without these training examples, and say whether that is a deletion."""
    source = Source(task, table)
    require_output(out, task)
    require_output(certificate, task, contents=CERTIFICATE)
    require_output(save, task, contents=ESTIMATOR)
    texts = [*(example or []), *ids_in_file(ids)]
    if not texts:
        raise typer.BadParameter("say which training examples to forget", param_hint="--example / --ids")
    import upweight

    stages = {"read": f"Reading {task.name}", "fit": "Forgetting"}
    with show_progress(stages, printing) as progress:
        inputs = source.read(progress, None, seed)
        named = [train_id(inputs.train, text, "--example / --ids") for text in texts]
        has_labels = inputs.queries.y is not None
        progress("fit", 0, 1)
        result = upweight.forget(
            inputs.model,
            inputs.train,
            named,
            unseen=inputs.queries if has_labels else None,
            refit=refit,
            compare=compare,
        )
        progress("fit", 1, 1)
    lines = [result.sentence]
    lines += [f"{step.name} ({step.kind}): {step.remembers}." for step in result.remembering]
    lines += [
        f"AUC of losses, forgotten against unseen, {check.model}: {check.auc:.3f} "
        f"({check.interval[0]:.2f} to {check.interval[1]:.2f})."
        for check in result.membership
    ]
    if certificate is not None:
        result.save_certificate(certificate)
        lines.append(f"Certificate: {certificate}")
    if save is not None:
        _save(result.estimator, save)
        lines.append(f"Estimator: {save}")
    print_application(result, inputs, out, printing, [*lines, *result.diagnostics["notes"]])


def _save(estimator: Any, path: Path) -> None:
    """Write an estimator by joblib, as scikit-learn advises; of a network, its state_dict."""
    with open_atomically(path, ESTIMATOR) as file:
        if hasattr(estimator, "state_dict"):
            import torch

            torch.save(estimator.state_dict(), file)
        else:
            import joblib

            joblib.dump(estimator, file)
