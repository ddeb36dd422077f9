"""Network contenders of our own: every curvature for networks, with nothing chosen by hand."""

from __future__ import annotations

from typing import Any

from benchmarks.nets import Task

import upweight as uw


def influence(recipe: Any) -> Any:
    """Scores (queries, train) of `Influence(curvature=recipe)`, from net and tensors in memory."""

    def run(task: Task) -> Any:
        kind = task.kind
        train = uw.Examples(task.x.numpy(), task.y.numpy())
        queries = uw.Examples(task.xq.numpy(), task.yq.numpy())
        model = uw.TorchModel(
            task.net, lambda net, batch: kind.losses(net(batch.x), batch.y), objective=uw.Objective("mean", l2=kind.l2)
        )
        return uw.Influence(curvature=recipe).fit(model, train).attribute(queries).values

    return run


RECIPES = {
    "Identity": uw.Identity(),
    "Diagonal": uw.Diagonal(),
    "EmpiricalFisher": uw.EmpiricalFisher(),
    "KFAC": uw.KFAC(),
    "EKFAC": uw.EKFAC(),
    "GaussNewton": uw.GaussNewton(),
    "Hessian": uw.Hessian(),
    **{name: getattr(uw, name)() for name in ("DataInf",) if name in uw.__all__},
}
CONTENDERS = {f"upweight {name}": influence(recipe) for name, recipe in RECIPES.items()}
LEFT_OUT = {
    "softmax": (),
    "mnist": (),
    "mlp": ("Hessian",),
    "cnn": ("Hessian",),
    "gpt": ("Hessian", "GaussNewton"),  # a product with all sequences for each query and step
}
RUNS = {
    task: [name for name in CONTENDERS if name.removeprefix("upweight ") not in left] for task, left in LEFT_OUT.items()
}
