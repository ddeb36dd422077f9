"""Small network families: trained elsewhere, trained by a recipe, or with a record of every training step (torch)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import nn

from upweight.core.examples import Examples
from upweight.core.objective import Objective
from upweight.models.pytorch.torch_model import TorchModel
from upweight.testing.copies import WeightedExamples, WeightedModels
from upweight.testing.family import Family
from upweight.training.recipe import Training
from upweight.training.trajectory import Trajectory

TRAJECTORY_FOLDERS: list[Any] = []  # temporary folders of trajectories, removed when the process ends


def digits() -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the digits 0, 1 and 2 with pixels from 0 to 1."""
    from sklearn.datasets import load_digits

    x, y = load_digits(n_class=3, return_X_y=True)
    return x / 16, y


def mlp() -> nn.Module:
    """Return a net with one hidden layer of ten units."""
    return nn.Sequential(nn.Linear(64, 10), nn.GELU(), nn.Linear(10, 3))


def cross_entropy(net: nn.Module, batch: Any) -> torch.Tensor:
    """The cross-entropy of every example."""
    losses: torch.Tensor = F.cross_entropy(net(batch.x), batch.y, reduction="none")
    return losses


def smoothed(net: nn.Module, batch: Any) -> torch.Tensor:
    """Another loss: cross-entropy with a label smoothing of 0.1."""
    losses: torch.Tensor = F.cross_entropy(net(batch.x), batch.y, reduction="none", label_smoothing=0.1)
    return losses


def margin(net: nn.Module, batch: Any) -> torch.Tensor:
    """Another measurement: the output of the label minus the mean output."""
    outputs: torch.Tensor = net(batch.x)
    return outputs.gather(1, batch.y[:, None])[:, 0] - outputs.mean(dim=1)


def _folder() -> str:
    TRAJECTORY_FOLDERS.append(tempfile.TemporaryDirectory())
    return str(TRAJECTORY_FOLDERS[-1].name)


@cache
def pretrained(make: Callable[[], nn.Module]) -> tuple[dict[str, torch.Tensor], Trajectory]:
    """Return the parameters after a short training on the first sixty digits, and its trajectory."""
    torch.manual_seed(0)
    trajectory = Trajectory(_folder(), every=15)
    net = make().double()
    x, y = (torch.as_tensor(part[:60]) for part in digits())
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        trajectory.record(net, optimiser)
    return net.state_dict(), trajectory


@dataclass(frozen=True, repr=False, eq=False)
class NetworkFamily(Family):
    """A net for sixty digits and twelve queries, in float64: the same net for every training set."""

    name: str
    make: Callable[[], nn.Module]
    not_retrained_as_copies = "a batch holds a fixed number of examples, whatever their weights"

    def examples(self) -> tuple[Examples, Examples]:
        """Return training set and queries, with ids that are not positions."""
        x, y = digits()
        whole = Examples(x, y, ids=[f"d{i}" for i in range(len(y))])
        return whole.take(np.arange(60)), whole.take(np.arange(60, 72))

    def model(self, train: Examples) -> Any:
        """Return the pretrained net, whatever the examples and their order."""
        net = self.make().double()
        state, trajectory = pretrained(self.make)
        net.load_state_dict(state)
        return TorchModel(net, cross_entropy, objective=Objective("mean", l2=0.01), trajectory=trajectory)

    def belongings(self, model: Any) -> bytes:
        """The bytes of the parameters, gradients, modes and hooks of the net, and of torch's random state."""
        net = model.network.net
        state = b"".join(v.numpy().tobytes() for v in net.state_dict().values())
        hooks = sum(len(m._forward_hooks) + len(m._backward_hooks) + len(m._forward_pre_hooks) for m in net.modules())
        grads = [p.grad is None and p.requires_grad for p in net.parameters()]
        return state + repr((hooks, grads, [m.training for m in net.modules()], torch.random.get_rng_state())).encode()

    def others(self, model: Any) -> Mapping[str, Any]:
        """Return the net with another loss, l2, reduction, measurement or training, and with other parameters."""
        net, loss = model.network.net, cross_entropy
        unchanged = {"objective": model.objective, "training": model.training, "trajectory": model.trajectory}
        others = {
            "measurement": TorchModel(net, loss, margin, **unchanged),
            "loss": TorchModel(net, smoothed, **unchanged),
            "parameters": model.with_parameters(model.parameters + 1e-9),
        }
        if model.training is None:
            others["l2"] = TorchModel(net, loss, **{**unchanged, "objective": Objective("mean", 0.02)})
            others["reduction"] = TorchModel(net, loss, **{**unchanged, "objective": Objective("sum", 0.01)})
        else:
            longer = replace(model.training, lr=0.04)
            others["training"] = TorchModel(net, loss, objective=model.objective, training=longer)
        return others


@dataclass(frozen=True, repr=False, eq=False)
class TrainedFamily(NetworkFamily):
    """A net trained in full batches by a recipe that can be replayed: the order of examples does not matter."""

    def model(self, train: Examples) -> Any:
        """Train a net on this training set."""
        return self._trained(train, "fixed")

    def weighted_models(self, both: WeightedExamples) -> WeightedModels:
        """Train a net on each of the two sets, with losses averaged over the weights."""
        return WeightedModels(*(self._trained(train, "renormalised") for train in (both.weighted, both.expanded)))

    def _trained(self, train: Examples, denominator: Any) -> Any:
        random = torch.random.get_rng_state()
        torch.manual_seed(0)
        net = self.make().double()
        torch.random.set_rng_state(random)
        size = len(train)
        training = Training(lr=0.1, momentum=0.9, weight_decay=0.01, epochs=8, batch_size=size, denominator=denominator)
        return TorchModel.trained(net, cross_entropy, train, training=training)


@dataclass(frozen=True, repr=False, eq=False)
class RecordedFamily(NetworkFamily):
    """A net trained in full batches, with the examples of every step recorded: the order of examples does not matter.

    Attributes:
        has_recipe: whether the model knows its training recipe, with which it can be retrained.
    """

    has_recipe: bool = True

    def model(self, train: Examples) -> Any:
        """Train a net on this training set and record its trajectory."""
        net, trajectory = self.make().double(), Trajectory(_folder(), every=8)
        initial = pretrained(self.make)[0]
        net.load_state_dict(initial)
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        trajectory.save(net, optimiser)
        x, y = torch.as_tensor(train.x), torch.as_tensor(train.y)
        weights = torch.ones(len(train)) if train.weights is None else torch.as_tensor(train.weights)
        for _ in range(16):
            optimiser.zero_grad()
            losses = F.cross_entropy(net(x), y, reduction="none")
            (losses.mean() if train.weights is None else losses @ weights / weights.sum()).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            trajectory.record(net, optimiser, batch=train.ids)
        training = self._recipe(train) if self.has_recipe else None
        return TorchModel(
            net, cross_entropy, objective=Objective("mean", l2=0.01), training=training, trajectory=trajectory
        )

    def _recipe(self, train: Examples) -> Training:
        """The training loop as a recipe: full batches, with losses averaged over the weights."""
        return Training(
            lr=0.1,
            momentum=0.9,
            weight_decay=0.01,
            epochs=16,
            batch_size=len(train),
            denominator="renormalised",
            initial=pretrained(self.make)[0],
        )
