"""The same metagradients by bergson, whose MAGIC is autograd through every step, one query after the other.

pip install --no-deps --target DIR bergson torchopt optree simple-parsing jaxtyping wadler-lindig natsort petname \
    docstring-parser ml_dtypes datasets pyarrow dill multiprocess xxhash pandas peft accelerate
Its other requirements, torchvision among them, are not used here.
"""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.replayed import Task
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import upweight as uw

NAME = "bergson 2.5.1, MAGIC"
EPS_ROOT = 1e-17  # bergson's default


class Weighted(nn.Module):
    """The net with its training loss, as bergson's trainer calls it."""

    def __init__(self, net: nn.Module, task: Task) -> None:
        super().__init__()
        self.net, self._task = net, task

    def forward(self, where: Tensor, example_weight: Tensor, **_: Any) -> Tensor:
        batch = self._task.model.network.batch(self._task.train.take(where.numpy()))
        return (self._task.loss(self.net, batch) * example_weight).sum() / len(where)


class Stream:
    """Batches in the order of the training, weights to be differentiated in."""

    def __init__(self, task: Task) -> None:
        self._batches = task.training.drawn(np.arange(len(task.train)), task.training.seed)
        self.weights = nn.Parameter(torch.ones(len(task.train)))
        self.device = torch.device("cpu")
        self.requires_grad = False

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, t: int) -> dict[str, Tensor]:
        where = torch.from_numpy(np.array(self._batches[t]))
        return {"where": where, "example_weight": self.weights[where], "shift_loss_mask": torch.ones(len(where))}


def magic(task: Task, installed: Path | None = None) -> NDArray[np.float64]:
    """Scores (m, n) at the full set; `installed` is the folder of bergson, if it is not on the path."""
    if installed is not None:
        sys.path.append(str(installed))
    os.environ["TQDM_DISABLE"] = "1"
    from bergson.magic.trainer import BackwardState, Trainer

    recipe, stream = task.training, Stream(task)
    net = task.fresh(recipe.seed)
    net.load_state_dict(task.begins)
    trainer, state = Trainer.initialize(Weighted(net, task), _optimiser(recipe, len(stream)))
    scores = []
    with tempfile.TemporaryDirectory() as folder, sdpa_kernel(SDPBackend.MATH):  # which has second derivatives
        end = trainer.train(state, stream, save_dir=folder, save_mode="sqrt")
        for row in _cotangents(task, end):
            moments = [torch.zeros_like(t) for t in end.differentiable_tensors()[len(end.params) :]]
            back = BackwardState(row, moments, torch.zeros_like(stream.weights))
            finished = trainer.backward(folder, stream, back, copy.copy(end), cleanup=False)
            scores.append(finished.weight_grads.detach().double().numpy())
    return np.stack(scores)


def _optimiser(recipe: uw.Training, steps: int) -> Any:
    """The training's optimiser in torchopt; AdamW with bergson's ε under the root, without which √0 has no slope."""
    import torchopt

    rates = torch.from_numpy(recipe.rates(steps))
    settings: dict[str, Any] = {"lr": lambda t: float(rates[int(t)]), "weight_decay": recipe.weight_decay}
    if recipe.optimiser == "adamw":
        return torchopt.adamw(betas=recipe.betas, eps=recipe.eps, eps_root=EPS_ROOT, **settings)
    return torchopt.sgd(momentum=recipe.momentum, **settings)


def _cotangents(task: Task, end: Any) -> list[dict[str, Tensor]]:
    """Each query's gradient of the measurement at the trained parameters, by name."""
    theta = torch.cat([value.detach().reshape(-1) for value in end.params.values()])
    rows = torch.from_numpy(task.model.with_parameters(theta.numpy()).measure_rows(task.queries).dense()).float()
    sizes = [value.numel() for value in end.params.values()]
    return [
        {name: part.view(value.shape) for part, (name, value) in zip(row.split(sizes), end.params.items(), strict=True)}
        for row in rows
    ]
