"""Derivatives through training by autograd, with a graph through every step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import upweight as uw
from upweight.gradients.functional import LossModule, plain_attention
from upweight.gradients.network import Network
from upweight.training import trainer
from upweight.training.initial_network import preserve_random_state
from upweight.training.optimiser_step import OptimiserState, initial_state
from upweight.training.run import flatten


class LimitedGrowth(torch.autograd.Function):
    """Identity on parameters and state; backward, limits a cotangent to `clip` times the norm of the previous one."""

    @staticmethod
    def forward(ctx: Any, clip: float, last: list[Tensor], theta: Tensor, *state: Tensor) -> Any:
        ctx.clip, ctx.last = clip, last
        return (theta.clone(), *(part.clone() for part in state))

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        norm = cotangents[0].norm()
        factor = min(1.0, float(ctx.clip * ctx.last[-1] / norm)) if ctx.last else 1.0
        ctx.last.append(norm * factor)
        return (None, None, *(v * factor for v in cotangents))


def block_at_zero(second: Tensor | None) -> None:
    """Pass no cotangent through the second moment s where s is exactly 0, because autograd's 0 · ∂√s is NaN there.

    Every gradient g so far was 0 then, and the first moment m with it. The step m/(√s + eps) moves with m alone: m√s is
    of second order in g. The bias of a key in attention has no gradient; whether it is computed as 0 or as 1e-18
    depends on the processor's rounding.
    """
    if second is not None:
        alive = second.detach() > 0
        second.register_hook(lambda cotangent: torch.where(alive, cotangent, torch.zeros_like(cotangent)))


class PlainNorm(nn.Module):
    """A batch norm as in a textbook, whose running statistics are tensors with a graph."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.bias, self.eps, self.momentum = norm.weight, norm.bias, norm.eps, norm.momentum
        self.mean, self.var, self.count = norm.running_mean.clone(), norm.running_var.clone(), 0

    def forward(self, x: Tensor) -> Tensor:
        columns = x.transpose(0, 1).flatten(1)  # (channels, numbers)
        mean, var = self.mean, self.var
        if self.training:
            self.count += 1
            factor = 1 / self.count if self.momentum is None else self.momentum
            mean, var = columns.mean(1), columns.var(1, unbiased=False)
            self.mean = (1 - factor) * self.mean + factor * mean
            self.var = (1 - factor) * self.var + factor * columns.var(1)
        shape = (1, -1, *[1] * (x.ndim - 2))
        out = (x - mean.view(shape)) / (var.view(shape) + self.eps).sqrt()
        return out if self.weight is None else out * self.weight.view(shape) + self.bias.view(shape)


def with_plain_norms(network: Network) -> Network:
    """The same network with textbook batch norms."""
    net = network.net
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            parent, _, own = name.rpartition(".")
            setattr(net.get_submodule(parent), own, PlainNorm(module))
    return Network(net, network.loss, network.measure, network.collate)


def totals_of(training: uw.Training, weights: Tensor, part: Tensor) -> Any:
    """What the losses of a batch are divided by."""
    counts = torch.ones(len(part)) if training.counts is None else torch.tensor(training.counts)[part]
    return (weights[part] * counts).sum() if training.denominator == "renormalised" else counts.sum()


def by_autograd(
    model: uw.TorchModel, train: uw.Examples, weights: np.ndarray, queries: uw.Examples, clip: float = np.inf
) -> np.ndarray:
    """∂m_q/∂wᵢ with a graph through every step, whose cotangents grow by at most the factor `clip` per step."""
    assert isinstance(model.training, uw.Training)
    (run,) = trainer.make_runs(model.training, model.network, train, weights[None], [0])
    variable = torch.tensor(weights, requires_grad=True)
    effective = variable * torch.tensor(train.weights)
    network = with_plain_norms(run.network)
    whole = LossModule(network, "loss")

    def evaluate(theta: Tensor, module: nn.Module, batch: Any) -> Tensor:
        sizes = [p.numel() for p in network.parameters().values()]
        parts = zip(network.names, theta.split(sizes), strict=True)
        named = {f"net.{name}": part.view(network.shapes[name]) for name, part in parts}
        return torch.func.functional_call(module, named, (batch,))

    theta = flatten(list(network.parameters().values())).requires_grad_()
    state = initial_state(run.training, theta)
    last: list[Tensor] = []

    def limit_growth(theta: Tensor, state: OptimiserState) -> tuple[Tensor, OptimiserState]:
        theta, *parts = LimitedGrowth.apply(clip, last, theta, *state.values())
        return theta, dict(zip(state, parts, strict=True))

    with preserve_random_state(network.device), plain_attention():
        for t in range(run.steps):
            theta, state = limit_growth(theta, state)
            objective = torch.zeros((), dtype=torch.float64)
            parts = [torch.tensor(run.positions[t][part]) for part in run.passes(t)]
            totals = [totals_of(run.training, effective, part) for part in parts]
            for number, part in enumerate(parts):
                total = sum(totals) if run.training.mean_over == "step" else totals[number] * len(parts)
                objective = objective + (evaluate(theta, whole, run.batch(t, number)) * effective[part]).sum() / total
            (gradient,) = torch.autograd.grad(objective, theta, create_graph=True)
            theta, state = run.take_step(theta, state, gradient, t)
            block_at_zero(state.get("second"))
        network.net.eval()
        theta, state = limit_growth(theta, state)
        end = theta if run.training.ema is None else state["average"]
        measured = torch.cat(
            [evaluate(end, LossModule(network, "measure"), network.batch(query)) for query in queries.batches(1)]
        )
        rows = []
        for m in measured:
            last.clear()
            rows.append(torch.autograd.grad(m, variable, retain_graph=True)[0])
    return torch.stack(rows).numpy()


def measured_gradients(
    model: uw.TorchModel, replay: Any, queries: uw.Examples, clip: float | None = None
) -> np.ndarray:
    """∂m_q/∂wᵢ by the replay."""
    return replay.gradients(model.after(replay).outcome_rows(queries, replay), clip=clip)
