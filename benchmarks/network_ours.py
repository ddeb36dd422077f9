"""Network contenders of our own: every curvature for networks, with nothing chosen by hand."""

from __future__ import annotations

from typing import Any

from benchmarks.nets import Task

import upweight as uw
from upweight.curvature.limits import Limits
from upweight.curvature.registry import build


def influence(recipe: Any, limits: Limits | None = None) -> Any:
    """Scores (queries, train) of `Influence(curvature=recipe)`, from net and tensors in memory."""

    def run(task: Task) -> Any:
        kind = task.kind
        train = uw.Examples(task.x.numpy(), task.y.numpy())
        queries = uw.Examples(task.xq.numpy(), task.yq.numpy())
        model = uw.TorchModel(
            task.net, lambda net, batch: kind.losses(net(batch.x), batch.y), objective=uw.Objective("mean", l2=kind.l2)
        )
        if limits is not None:
            model.restored_curvature = lambda train, recipe, damping, _: build(model, train, recipe, damping, limits)
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
ALL = 10**9  # examples: more than there are
ALL_DIRECTIONS = Limits(exact_numbers=1 << 50)
CONTENDERS = {f"upweight {name}": influence(recipe) for name, recipe in RECIPES.items()}
CONTENDERS |= {
    "upweight EKFAC, all directions": influence(uw.EKFAC(), ALL_DIRECTIONS),
    "upweight EKFAC, eigenvalues from all": influence(uw.EKFAC(eigenvalue_examples=ALL)),
    "upweight EKFAC, eigenvalues from 100": influence(uw.EKFAC(eigenvalue_examples=100)),
    "upweight default": influence(None),
}
LEFT_OUT = {
    "softmax": (),
    "mnist": (),
    "mlp": ("Hessian",),
    "cnn": ("Hessian",),
    "spoken": ("Hessian",),
    "lstm": ("Hessian",),
    "adult": ("Hessian",),
    "narrow": ("Hessian",),
    "resnet": ("Hessian", "GaussNewton"),
    "depthwise": ("Hessian", "GaussNewton"),
    "gpt": ("Hessian", "GaussNewton"),  # a product with all sequences for each query and step
    "lora": ("Hessian", "GaussNewton"),
}
RUNS = {
    task: [
        name
        for name in CONTENDERS
        if name.removeprefix("upweight ") not in left
        and ("EKFAC, " not in name or task in ("cnn", "narrow", "resnet", "depthwise"))
    ]
    for task, left in LEFT_OUT.items()
}
