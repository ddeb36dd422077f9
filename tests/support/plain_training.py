"""A plain training loop with `torch.optim`, as users write it, with one weight for every example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import upweight as uw
from upweight.training.initial_network import prepare_network

Loss = Callable[[nn.Module, Any], Tensor]


class HeavyBall(torch.optim.Optimizer):
    """A rule that torch does not have: v ← 0.9 v − η g / √(g² + 0.1), θ ← θ + v."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
                velocity.mul_(0.9).sub_(group["lr"] * p.grad / (p.grad.square() + 0.1).sqrt())
                p.add_(velocity)


def optimiser_of(training: uw.Training, net: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of torch with the settings of a recipe; groups are by the end of the parameters' names."""
    decay: dict[str, Any] = {"weight_decay": training.weight_decay}
    settings: dict[str, Any]
    groups: list[dict[str, Any]] = []
    rest = dict(net.named_parameters())
    for group in training.groups:
        ends = [group.parameters] if isinstance(group.parameters, str) else list(group.parameters)
        names = [name for name in rest if any(name.endswith(end.lstrip("*")) for end in ends)]
        settings = {"lr": group.lr, "weight_decay": group.weight_decay}
        groups.append({"params": [rest.pop(n) for n in names], **{k: v for k, v in settings.items() if v is not None}})
    parameters: Any = [{"params": list(rest.values())}, *groups]
    lr: Any = training.lr
    match training.optimiser:
        case "sgd":
            settings = {"momentum": training.momentum, "nesterov": training.nesterov, **decay}
            return torch.optim.SGD(parameters, lr, **settings)
        case "rmsprop":
            settings = {"alpha": training.alpha, "eps": training.eps, "centered": training.centred, **decay}
            return torch.optim.RMSprop(parameters, lr, momentum=training.momentum, **settings)
        case "adam" | "adamw":
            kind: Any = torch.optim.Adam if training.optimiser == "adam" else torch.optim.AdamW
            made: torch.optim.Optimizer = kind(parameters, lr, betas=training.betas, eps=training.eps, **decay)
            return made
    return HeavyBall(parameters, lr)


def train_plainly(model: uw.TorchModel, train: uw.Examples, weights: np.ndarray) -> nn.Module:
    """The trained net, in eval mode, of the same batches, seeds and settings as the recipe of the model."""
    training = model.training
    assert isinstance(training, uw.Training)
    net = prepare_network(training, model.network, training.seed).net
    steps = training.drawn(np.arange(len(train)), training.seed)
    seeds, optimiser = training.noise(len(steps), training.seed), optimiser_of(training, net)
    average = None if training.ema is None else AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(training.ema))
    factors = training.rates(len(steps), 1.0)
    first_rates = [group["lr"] for group in optimiser.param_groups]
    counts = np.ones(len(train)) if training.counts is None else np.array(training.counts)
    for t, where in enumerate(steps):
        for group, lr in zip(optimiser.param_groups, first_rates, strict=True):
            group["lr"] = lr * factors[t]
        optimiser.zero_grad()
        parts = [where[part] for part in training.passes(t, len(where))]
        totals = [(counts * (weights if training.denominator == "renormalised" else 1.0))[p].sum() for p in parts]
        for number, part in enumerate(parts):
            batch = model.network.batch(train.take(part))
            if training.augment is not None:
                batch = training.augment(batch, torch.Generator().manual_seed(seeds[t] + number))
            torch.manual_seed(seeds[t] + number)
            losses = model.network.loss(net, batch) * torch.as_tensor(weights[part])
            total = sum(totals) if training.mean_over == "step" else totals[number] * len(parts)
            (losses.sum() / total).backward()
        if training.clip is not None:
            nn.utils.clip_grad_norm_(net.parameters(), training.clip)
        optimiser.step()
        if average is not None:
            average.update_parameters(net)
    trained: nn.Module = net if average is None else average.module
    return trained.eval()


def central_differences(
    model: uw.TorchModel, train: uw.Examples, weights: np.ndarray, queries: uw.Examples, rows: list[int], by: float
) -> np.ndarray:
    """∂m_q/∂wᵢ of these training examples by two plain trainings each, (m, rows)."""
    columns = []
    for i in rows:
        ends = []
        for sign in (1.0, -1.0):
            shifted = weights * (np.ones(len(train)) if train.weights is None else train.weights)
            shifted[i] += sign * by * (1.0 if train.weights is None else train.weights[i])
            net = train_plainly(model, train, shifted)
            ends.append(model.with_net(net).measure(queries))
        columns.append((ends[0] - ends[1]) / (2 * by))
    return np.stack(columns, axis=1)
