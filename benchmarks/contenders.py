"""Contenders: exact first-order influence of a softmax regression, by several libraries, on the same parameters.

Runs in an environment that has the library, and answers on standard output, one line of JSON per line of input:

    python contenders.py problem.npz          then, line by line: NAME, and it is run once

Each contender returns scores [query, train] on one scale: −loss of the query with the training example minus without
it, l2 on the mean loss. What a library leaves out (the number of examples, the sign) is put in after the clock stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


class Task:
    """Training set, queries, parameters (classes, columns) and l2, as `problem.npz` holds them."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        self.l2 = float(self.arrays["l2"])
        self.count = len(self.arrays["x"])

    def tensors(self) -> tuple[Any, Any, Any, Any]:
        import torch

        names = ("x", "y", "x_queries", "y_queries")
        x, y, xq, yq = (torch.from_numpy(self.arrays[name]) for name in names)
        return x.float(), y, xq.float(), yq

    def module(self) -> Any:
        import torch

        theta = torch.from_numpy(self.arrays["theta"]).float()
        module = torch.nn.Sequential(torch.nn.Linear(theta.shape[1], theta.shape[0], bias=False))
        module.load_state_dict({"0.weight": theta})
        return module.eval()


def upweight(task: Task, correction: str | None = None) -> Callable[[], Any]:
    """The library's own estimator is given; everything after its fit is timed."""
    from sklearn.linear_model import LogisticRegression

    import upweight as uw

    a = task.arrays
    estimator = LogisticRegression(C=1 / (task.count * task.l2), fit_intercept=False)
    estimator.coef_, estimator.intercept_ = a["theta"], np.zeros(len(a["theta"]))
    estimator.classes_, estimator.n_features_in_ = np.arange(len(a["theta"])), a["x"].shape[1]

    def run() -> Any:
        train, queries = uw.Examples(a["x"], a["y"]), uw.Examples(a["x_queries"], a["y_queries"])
        fitted = uw.Influence(correction=correction).fit(uw.explainable(estimator, train), train)
        return fitted.attribute(queries).values

    return run


def upweight_corrected(task: Task) -> Callable[[], Any]:
    return upweight(task, "leverage")


def pydvl(task: Task) -> Callable[[], Any]:
    import torch
    from pydvl.influence.torch import DirectInfluence
    from torch.utils.data import DataLoader, TensorDataset

    x, y, xq, yq = task.tensors()
    module = task.module()

    def run() -> Any:
        influence = DirectInfluence(module, torch.nn.functional.cross_entropy, regularization=task.l2)
        fitted = influence.fit(DataLoader(TensorDataset(x, y), batch_size=task.count))
        return fitted.influences(xq, yq, x, y) / task.count

    return run


def dattri(task: Task) -> Callable[[], Any]:
    import torch
    from dattri.algorithm.influence_function import IFAttributorExplicit
    from dattri.task import AttributionTask
    from torch.utils.data import DataLoader, TensorDataset

    x, y, xq, yq = task.tensors()
    module = task.module()

    def loss(parameters: Any, data: Any) -> Any:
        inputs, labels = data
        outputs = torch.func.functional_call(module, parameters, inputs)
        return torch.nn.functional.cross_entropy(outputs, labels.flatten())

    def loader(inputs: Any, labels: Any) -> Any:
        return DataLoader(TensorDataset(inputs, labels), batch_size=len(inputs), shuffle=False)

    def run() -> Any:
        attribution = AttributionTask(loss_func=loss, model=module, checkpoints=module.state_dict())
        attributor = IFAttributorExplicit(task=attribution, regularization=task.l2)
        train = loader(x, y)
        attributor.cache(train)
        with torch.no_grad():
            return attributor.attribute(train, loader(xq, yq)).T / task.count

    return run


def captum(task: Task, batch: int | None = None) -> Callable[[], Any]:
    import torch
    from captum.influence._core.influence_function import NaiveInfluenceFunction
    from torch.utils.data import TensorDataset

    x, y, xq, yq = task.tensors()
    module = task.module()
    checkpoint = tempfile.NamedTemporaryFile(suffix=".pt", delete=False).name  # noqa: SIM115 - read again in every run
    torch.save(module.state_dict(), checkpoint)

    def load(model: Any, path: str) -> float:
        model.load_state_dict(torch.load(path))
        return 1.0

    def run() -> Any:
        influence = NaiveInfluenceFunction(
            module,
            TensorDataset(x, y),
            checkpoint,
            checkpoints_load_func=load,
            loss_fn=torch.nn.CrossEntropyLoss(reduction="sum"),
            batch_size=batch or task.count,
            sample_wise_grads_per_batch=True,
            projection_dim=sum(p.numel() for p in module.parameters()),
            hessian_reg=task.count * task.l2,
        )
        return influence.influence((xq, yq))

    return run


def captum_batches(task: Task) -> Callable[[], Any]:
    return captum(task, 256)


CONTENDERS: dict[str, Callable[[Task], Callable[[], Any]]] = {
    "upweight": upweight,
    "upweight, corrected": upweight_corrected,
    "pyDVL": pydvl,
    "dattri": dattri,
    "captum": captum,
    "captum, batches of 256": captum_batches,
}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    task, ready = Task(Path(sys.argv[1])), {}
    for line in sys.stdin:
        name = line.strip()
        try:
            if name not in ready:
                with contextlib.suppress(ImportError):
                    import torch

                    torch.set_num_threads(1)
                ready[name] = CONTENDERS[name](task)
            cpu, wall = time.process_time(), time.perf_counter()
            scores = ready[name]()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            scores = scores.detach().numpy() if hasattr(scores, "detach") else scores
            expected = task.arrays.get("scores")
            far = None if expected is None else float(np.abs(scores - expected).max() / np.abs(expected).max())
            package = name.split(",")[0]
            answers.write(json.dumps({"cpu": cpu, "wall": wall, "far": far, "version": version(package)}) + "\n")
            if expected is None:
                np.save(Path(sys.argv[1]).with_name("scores.npy"), scores)
        except Exception as error:
            answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"[:300]}) + "\n")


if __name__ == "__main__":
    main()
