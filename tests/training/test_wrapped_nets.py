"""Nets that are compiled, wrapped for several processes, or in channels-last memory are explained like plain ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import upweight as uw

N = 16
X = torch.randn(N, 2, 4, 4, generator=torch.Generator().manual_seed(0)).double()
Y = torch.arange(N) % 3
TRAIN, QUERIES = uw.Examples(X.numpy(), Y.numpy()), uw.Examples(X[:2].numpy() + 0.1, Y[:2].numpy())
BATCHES = [list(range(8)), list(range(8, 16)), [0, 9, 3, 12]]


def loss(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.GELU(), nn.Flatten(), nn.Linear(12, 3)
    ).double()


@pytest.fixture
def one_process(tmp_path: Any) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPERS: dict[str, Any] = {
    "compiled": lambda net: torch.compile(net, backend="eager"),
    "for several processes": nn.parallel.DistributedDataParallel,
    "channels last": lambda net: net.to(memory_format=torch.channels_last),
}


def explain(folder: Any, wrap: Any) -> tuple[np.ndarray, np.ndarray]:
    """SOURCE from a recorded loop, and the metagradient of the same training."""
    initial, wrapped = plain(), wrap(plain())
    optimiser, trajectory = torch.optim.SGD(wrapped.parameters(), 0.1, momentum=0.9), uw.Trajectory(folder)
    trajectory.save(wrapped, optimiser)
    for ids in BATCHES:
        optimiser.zero_grad()
        F.cross_entropy(wrapped(X[ids]), Y[ids]).backward()
        optimiser.step()
        trajectory.record(wrapped, optimiser, batch=ids)
    training = uw.training_of(wrapped, optimiser, batches=BATCHES, initial=wrap(initial))
    model = uw.TorchModel(wrapped.eval(), loss, training=training, trajectory=uw.Trajectory(folder))
    source = uw.SOURCE().fit(model, TRAIN).attribute(QUERIES)
    assert source.diagnostics["warnings"] == list(model.notes)
    return source.values, uw.Metagradient(at="full", removals=0).fit(model, TRAIN).attribute(QUERIES).values


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapped_net_gives_the_scores_of_the_plain_one(tmp_path: Any, wrap: Any, one_process: None) -> None:
    expected = explain(tmp_path / "plain", lambda net: net)
    for values, plain_values in zip(explain(tmp_path / "wrapped", wrap), expected, strict=True):
        assert np.allclose(values, plain_values, rtol=0, atol=1e-9 * np.abs(plain_values).max())
    assert np.allclose(*expected, rtol=0, atol=1e-9 * np.abs(expected[0]).max())
