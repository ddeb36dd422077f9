"""Replayed: trainings that can be gone through again, from a net of 850 parameters to a small GPT, and their truth."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.nets import GPT, KINDS, Kind, texts, token_losses
from benchmarks.nets import train as pretrained
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import Tensor, nn

import upweight as uw

Array = NDArray[np.float64]
FOLDER = Path(tempfile.gettempdir()) / "upweight-benchmarks" / "metagradients"
WIDTH = 64  # of the GPT


@dataclass(frozen=True, eq=False)
class Task:
    """A training with its data, what is asked of it, and how many removals are retrained.

    `shares`: of the training set that removals leave out; `samples`: random training sets at which metagradients
    are averaged, beside the centre.
    """

    name: str
    title: str
    training: uw.Training
    fresh: Callable[[int], nn.Module]
    loss: Callable[[nn.Module, Any], Tensor]
    measure: Callable[[nn.Module, Any], Tensor] | None
    train: uw.Examples
    queries: uw.Examples
    subsets: int
    shares: tuple[float, ...]
    samples: int = 0

    @cached_property
    def model(self) -> uw.TorchModel:
        return uw.TorchModel.trained(self.fresh, self.loss, self.train, self.measure, training=self.training)

    @property
    def begins(self) -> Any:
        """Where the training begins."""
        with torch.random.fork_rng():
            torch.manual_seed(self.training.seed)
            return self.fresh(self.training.seed).state_dict()

    def removed(self, share: float) -> Array:
        """Weights (subsets, n) of random training sets without this share."""
        rng, n = np.random.default_rng(7), len(self.train)
        weights = np.ones((self.subsets, n))
        for row in weights:
            row[rng.choice(n, round(share * n), replace=False)] = 0.0
        return weights

    def truth(self, share: float, seed: int = 0) -> Array:
        """Measurements (m, subsets) after training without each removal; trained once, then read."""
        path = self.path(f"truth {share} {seed}")
        if not path.exists():
            models = uw.retrain(
                self.model,
                self.train,
                self.removed(share),
                [seed] * self.subsets,
                retraining=uw.Retraining(processes=1),
            )
            keep(path, values=models.measure(self.queries))
        return np.asarray(np.load(path)["values"])

    def path(self, what: str) -> Path:
        """Where something of this task is kept."""
        settings = f"{self.training} {len(self.train)} {self.queries.ids.tolist()} {self.subsets} {what}"
        return FOLDER / f"{self.name}-{blake2b(settings.encode(), digest_size=8).hexdigest()}.npz"

    def recorded(self, weights: Array, checkpoints: int, folder: str, steps: bool = False) -> uw.TorchModel:
        """The same training by a plain loop of torch, with these example weights and so many checkpoints.

        `steps`: with the batch of every step, and where the first began.
        """
        recipe, net = self.training, self.fresh(self.training.seed)
        settings = {"lr": 1.0, "weight_decay": recipe.weight_decay}
        kinds: dict[str, Callable[..., Any]] = {
            "sgd": lambda p: torch.optim.SGD(p, momentum=recipe.momentum, **settings),
            "adamw": lambda p: torch.optim.AdamW(p, betas=recipe.betas, eps=recipe.eps, **settings),
        }
        net.load_state_dict(self.begins)
        optimiser = kinds[recipe.optimiser](net.parameters())
        batches = recipe.drawn(np.arange(len(self.train)), recipe.seed)
        trajectory = uw.Trajectory(folder, every=len(batches) // checkpoints)
        if steps:
            trajectory.save(net, optimiser)
        for where, rate in zip(batches, recipe.rates(len(batches)), strict=True):
            optimiser.param_groups[0]["lr"] = float(rate)
            optimiser.zero_grad()
            losses = self.loss(net, self.model.network.batch(self.train.take(where)))
            (losses * torch.as_tensor(weights[where], dtype=losses.dtype)).sum().div(len(where)).backward()
            optimiser.step()
            trajectory.record(net, optimiser, batch=where if steps else None)
        trajectory.save(net, optimiser)
        return uw.TorchModel(
            net, self.loss, self.measure, objective=uw.Objective("mean", l2=recipe.l2), trajectory=trajectory
        )


def keep(path: Path, **arrays: Any) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part.npz")
    np.savez(partial, **arrays)
    partial.replace(path)


def loss(net: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")


def margin(net: nn.Module, batch: Any) -> Tensor:
    """Log odds of the label."""
    outputs = net(batch.x)
    others = outputs.scatter(1, batch.y[:, None], -torch.inf)
    return outputs.gather(1, batch.y[:, None])[:, 0] - others.logsumexp(dim=1)


def sequence_loss(net: nn.Module, batch: Any) -> Tensor:
    return token_losses(net(batch.x), batch.y)


def _mlp(_: int) -> nn.Module:
    return nn.Sequential(nn.Linear(784, 512), nn.GELU(), nn.Linear(512, 256), nn.GELU(), nn.Linear(256, 10))


def _small(_: int) -> nn.Module:
    return nn.Sequential(nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 10))


def _cnn(_: int) -> nn.Module:
    convolved = nn.Conv2d(1, 8, 5, stride=2), nn.GELU(), nn.Conv2d(8, 16, 5, stride=2), nn.GELU()
    return nn.Sequential(nn.Unflatten(1, (1, 28, 28)), *convolved, nn.Flatten(), nn.Linear(256, 10))


def mnist(data: Path, count: int, queries: int) -> tuple[uw.Examples, uw.Examples]:
    """Random digits, pixels of zero mean and unit variance."""
    rng = np.random.default_rng(0)
    parts = []
    with np.load(data / "mnist.npz") as archive:
        for part, chosen in (("tr", count), ("te", queries)):
            places = rng.choice(len(archive[f"x{part}"]), chosen, replace=False)
            x = (archive[f"x{part}"][places].reshape(chosen, -1) / 255 - 0.1307) / 0.3081
            parts.append(uw.Examples(x.astype(np.float32), archive[f"y{part}"][places].astype(np.int64)))
    return parts[0], parts[1]


def regime(name: str, data: Path, query_count: int = 16, **settings: Any) -> Task:
    """The 0.54-million-parameter net on 2,000 digits."""
    training = uw.Training(**{"epochs": 8, "batch_size": 100, "momentum": 0.9, "schedule": "linear", **settings})
    decays = training.schedule == "linear"
    rate = f"learning rate {training.lr} that decays to 0" if decays else f"constant learning rate {training.lr}"
    title = (
        "MLP 784-512-256-10, 0.54 million parameters, 2,000 MNIST digits, 160 steps of 100, SGD, "
        f"{rate}, {training.denominator} denominator"
    )
    train, queries = mnist(data, 2000, query_count)
    return Task(name, title, training, _mlp, loss, margin, train, queries, 40, (0.01, 0.1, 0.5))


def calm(data: Path) -> Task:
    return regime("calm", data, lr=0.01, weight_decay=1e-3)


def renormalised(data: Path) -> Task:
    task = regime("renormalised", data, lr=0.01, weight_decay=1e-3, denominator="renormalised")
    return replace(task, shares=(0.5,))


def hard(data: Path) -> Task:
    task = regime("hard", data, 8, lr=0.05, weight_decay=1e-4)
    return replace(task, shares=(0.1, 0.5), samples=4)


def rough(data: Path) -> Task:
    """No decay of the learning rate: another seed's retraining hardly agrees."""
    task = regime("rough", data, 8, lr=0.05, weight_decay=1e-4, schedule="constant")
    return replace(task, shares=(0.1,), samples=4)


def digits(_: Path) -> Task:
    """The small net on which most was measured."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order] / 16.0, y[order]
    x = PCA(24, random_state=0).fit(x[:600]).transform(x).astype(np.float32)
    training = uw.Training(lr=0.15, epochs=12, batch_size=50, momentum=0.9, schedule="linear", weight_decay=1e-3)
    title = "MLP 24-24-10, 850 parameters, 600 digits in 24 components, 144 steps of 50, SGD"
    train, queries = uw.Examples(x[:600], y[:600]), uw.Examples(x[600:640], y[600:640])
    return Task("digits", title, training, _small, loss, margin, train, queries, 100, (0.01, 0.1, 0.5))


def cnn(data: Path) -> Task:
    training = uw.Training(lr=0.02, epochs=8, batch_size=100, momentum=0.9, schedule="linear", weight_decay=1e-3)
    title = "CNN (two convolutions, one layer), 6,000 parameters, 1,000 MNIST digits, 80 steps of 100, SGD"
    train, queries = mnist(data, 1000, 12)
    return Task("cnn", title, training, _cnn, loss, margin, train, queries, 40, (0.1, 0.5))


def gpt(data: Path) -> Task:
    """Fine-tuned from a net that has read 6,000 other sequences."""
    kind = replace(KINDS["gpt"], make=lambda: GPT(WIDTH))
    *arrays, before, after = texts(data, kind)
    x, y, xq, yq = (a.numpy() for a in arrays)
    training = uw.Training(
        optimiser="adamw", lr=1e-3, epochs=3, batch_size=32, schedule="linear", warmup=6, weight_decay=0.01
    )
    start = pretrained_gpt(f"{WIDTH}", kind, before, after)

    def fresh(_: int) -> nn.Module:
        net = GPT(WIDTH)
        net.load_state_dict(start)
        return net

    title = "GPT (4 blocks, width 64), 0.2 million parameters, 256 film reviews of 64 characters, 24 steps of 32, AdamW"
    train, queries = uw.Examples(x, y), uw.Examples(xq[:8], yq[:8])
    return Task("gpt", title, training, fresh, sequence_loss, None, train, queries, 30, (0.1,))


def pretrained_gpt(name: str, kind: Kind, before: Tensor, after: Tensor) -> dict[str, Tensor]:
    """Parameters after one epoch on these sequences; trained once, then read by this name."""
    path = FOLDER / f"gpt-start-{name}.npz"
    if not path.exists():
        net = pretrained(kind, before, after, None, 0, epochs=1)
        keep(path, **{name: tensor.numpy() for name, tensor in net.state_dict().items()})
    with np.load(path) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


TASKS: dict[str, Callable[[Path], Task]] = {
    task.__name__: task for task in (digits, calm, renormalised, hard, rough, cnn, gpt)
}
