"""Coming from other tools, the libraries' side: their own answers to the page's model; runs in their environment.

python -m benchmarks.coming_from_peers FOLDER          reads page.npz, writes answers.npz
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks import network_peers as peers
from benchmarks.nets import KINDS, Task
from torch import nn


def main() -> None:
    folder = Path(sys.argv[1])
    task, answers = page_task(folder / "page.npz"), {}
    for name, call in CALLS.items():
        try:
            answers[name] = np.asarray(torch.as_tensor(call(task)).detach(), dtype=np.float64)
        except Exception as error:
            answers[name] = np.array(f"{type(error).__name__}: {error}"[:200])
    np.savez(folder / "answers.npz", **answers)


def page_task(path: Path) -> Task:
    with np.load(path) as archive:
        arrays = {name: torch.from_numpy(archive[name]) for name in archive.files}
    net = nn.Sequential(nn.Linear(64, 10))
    net.load_state_dict({"0.weight": arrays["weight"].float(), "0.bias": arrays["bias"].float()})
    kind = replace(KINDS["softmax"], l2=float(arrays["l2"]))
    return Task(kind, arrays["x"].float(), arrays["y"], arrays["xq"].float(), arrays["yq"], net.eval())


def captum_tracin(task: Task) -> Any:
    return 0.1 * peers.captum_tracin(task)  # linear in what the loading function returns, which is 1 there


def captum_naive(task: Task) -> Any:
    from captum.influence import NaiveInfluenceFunction

    return peers.captum(
        NaiveInfluenceFunction,
        task,
        loss_fn=nn.CrossEntropyLoss(reduction="sum"),
        sample_wise_grads_per_batch=True,
        projection_dim=650,
        hessian_reg=len(task.x) * task.kind.l2,
        batch_size=len(task.x),
    )


CALLS: dict[str, Callable[[Task], Any]] = {
    "captum TracInCP": captum_tracin,
    "captum NaiveInfluenceFunction": captum_naive,
    "kronfluence identity": peers.kronfluence("identity"),
    "kronfluence EK-FAC": peers.kronfluence("ekfac", draws=40, damping_factor=1e-3),
    "pyDVL DirectInfluence": peers.pydvl("DirectInfluence"),
    "dattri IFAttributorExplicit": lambda task: peers.dattri_explicit(task).T,
    "dattri TracInAttributor": lambda task: peers.dattri_tracin(task).T,
    "TRAK, not projected": lambda task: peers.trak(None, lambda_reg=0.01)(task).T,
}


if __name__ == "__main__":
    main()
