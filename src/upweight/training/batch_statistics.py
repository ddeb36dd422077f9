"""Batch norms whose batch statistics and running statistics can be differentiated."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upweight.core.examples import Examples
from upweight.gradients.copied_net import copy_net
from upweight.gradients.functional import LossModule, plain_attention
from upweight.gradients.network import BATCH_NORMS, Network

SYNCHRONISED = (
    "is a SyncBatchNorm, whose statistics are over the batches of all processes; one process that follows the training "
    "needs them as one batch. Rebuild the net with BatchNorm layers (the state dict stays the same), and give every "
    "step the examples of all processes together"
)


class BatchStatistics:
    """The batch norms of a net, on a copy of it.

    Args:
        network: the net; its copy keeps the mode of every module.
        names: the batch norms whose running statistics are followed.

    Attributes:
        network: the copy. Its batch norms read and write the statistics of the current `call`.
        buffers: the names of the followed buffers, means and variances in turn.
        size: how many numbers they hold.
    """

    def __init__(self, network: Network, names: tuple[str, ...]) -> None:
        self.names = names
        net = copy_net(network.net)
        self._modules: dict[str, Any] = {name: net.get_submodule(name) for name in names}
        self._current: dict[str, tuple[Tensor, Tensor]] = {}
        self._calls_before = 0
        for name, module in self._modules.items():
            module.forward = partial(self._normalise, name)
        self.network = Network(net, network.loss, network.measure, network.collate)
        self.network = self.network.narrowed(network.names)
        self.buffers = tuple(f"{name}.{kind}" for name in names for kind in ("running_mean", "running_var"))
        self._sizes = [int(self._modules[name].num_features) for name in names for _ in range(2)]
        self._batches_seen = {name: _batches_seen_by(module) for name, module in self._modules.items()}
        self.size = sum(self._sizes)

    def start(self, statistics: Tensor, calls_before: int = 0) -> None:
        """Begin a call of the net with these statistics (size,); `calls_before` calls came before it."""
        parts = iter(torch.split(statistics, self._sizes))
        self._current = {name: (next(parts), next(parts)) for name in self.names}
        self._calls_before = calls_before

    def finish(self) -> Tensor:
        """The statistics (size,) after the call."""
        return torch.cat([part for name in self.names for part in self._current.pop(name)])

    def read(self, net: nn.Module) -> Tensor:
        """The statistics (size,) of a net with the same modules."""
        buffers = dict(net.named_buffers())
        return torch.cat([buffers[name].detach() for name in self.buffers])

    def _normalise(self, name: str, x: Tensor) -> Tensor:
        module = self._modules[name]
        mean, variance = self._current[name]
        dims, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        if module.training:
            running_mean, running_variance = mean, variance
            mean = x.mean(dims)
            variance = (x - mean.view(shape)).square().mean(dims)
            count, factor = x.numel() // len(mean), self._factor(name)
            unbiased = variance * (count / max(count - 1, 1))
            self._current[name] = (running_mean.lerp(mean, factor), running_variance.lerp(unbiased, factor))
        scale = (variance + module.eps).rsqrt()
        if module.weight is None:
            normalised: Tensor = (x - mean.view(shape)) * scale.view(shape)
            return normalised
        affine: Tensor = (x - mean.view(shape)) * (scale * module.weight).view(shape) + module.bias.view(shape)
        return affine

    def _factor(self, name: str) -> float:
        momentum = self._modules[name].momentum
        return 1.0 / (self._batches_seen[name] + self._calls_before + 1) if momentum is None else float(momentum)


def followed_norms(network: Network, changed: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The batch norms whose statistics a training step changed.

    Args:
        network: the net.
        changed: the buffers that the step changed.

    Raises ValueError for buffers of real numbers that other modules change: they have no derivative here.
    """
    norms = [
        name
        for name, module in network.net.named_modules()
        if isinstance(module, BATCH_NORMS)
        and type(module).forward is nn.modules.batchnorm._BatchNorm.forward
        and f"{name}.running_mean" in changed
    ]
    followed = {f"{name}.{kind}" for name in norms for kind in ("running_mean", "running_var")}
    for name, buffer in changed.items():
        if buffer.is_floating_point() and name not in followed:
            owner = type(network.net.get_submodule(name.rpartition(".")[0])).__name__
            raise ValueError(
                f"training changes the buffer {name!r} of a {owner}, which replay does not differentiate: only the "
                "running statistics of BatchNorm1d, BatchNorm2d and BatchNorm3d are followed. Use one of them or a "
                "norm without statistics (GroupNorm, LayerNorm), or a method that takes the trained net with its "
                "buffers as constants (Influence) or retrains (LeaveOneOut, Datamodels)"
            )
    return tuple(norms)


def require_no_synchronised_norm(net: nn.Module) -> None:
    """Raise ValueError for a SyncBatchNorm."""
    for name, module in net.named_modules():
        if isinstance(module, nn.SyncBatchNorm) and module.training:
            raise ValueError(f"{name!r} {SYNCHRONISED}")


def statistic_gradients(network: Network, queries: Examples, names: tuple[str, ...]) -> NDArray[np.float64]:
    """The derivatives (m, size) of the measurement of every query in the running statistics of these batch norms."""
    statistics = BatchStatistics(network, names)
    net = statistics.network.net.eval()
    module, values = LossModule(statistics.network, "measure"), statistics.read(net)
    rows = []
    with statistics.network.preserved(), plain_attention(), torch.enable_grad():
        for query in queries.batches(1):
            at = values.clone().requires_grad_()
            statistics.start(at)
            (row,) = torch.autograd.grad(module(network.batch(query)).sum(), at)
            rows.append(row.double().cpu().numpy())
    return np.stack(rows)


def read_norm_buffers(net: nn.Module) -> NDArray[np.float64]:
    """All running statistics and counts of the batch norms of a net, as one vector."""
    parts = [buffer.detach().reshape(-1).double().cpu().numpy() for buffer in _norm_buffers(net)]
    return np.concatenate(parts) if parts else np.empty(0)


def write_norm_buffers(net: nn.Module, values: NDArray[np.float64]) -> None:
    """Write back a vector of `read_norm_buffers`."""
    buffers = _norm_buffers(net)
    ends = np.cumsum([buffer.numel() for buffer in buffers])
    with torch.no_grad():
        for buffer, part in zip(buffers, np.split(values, ends[:-1]), strict=False):
            buffer.copy_(torch.from_numpy(np.array(part)).reshape(buffer.shape))


def _norm_buffers(net: nn.Module) -> list[Tensor]:
    norms = (module for module in net.modules() if isinstance(module, BATCH_NORMS))
    return [buffer for module in norms for buffer in module.buffers(recurse=False)]


def _batches_seen_by(module: nn.Module) -> int:
    """How many batches the running statistics have seen."""
    tracked = getattr(module, "num_batches_tracked", None)
    return 0 if tracked is None else int(tracked)
