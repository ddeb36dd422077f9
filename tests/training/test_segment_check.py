"""SOURCE by segments names what a recorded training did that it does not model, and warns of no other training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import upweight as uw
from upweight.training.trajectory import Trajectory

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 5)), RNG.integers(0, 3, 24)
BATCHES = [batch for _ in range(3) for batch in np.array_split(RNG.permutation(24), 3)]


def loss(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def warnings_of(
    folder: Any, net: nn.Module, *, clip: float | None = None, batches: bool = True, ids: Any = None, **settings: Any
) -> tuple[str, int]:
    """The warnings of SOURCE by segments after a training in a user's loop, and how many steps it checked."""
    net = net.double().train()
    rule, trajectory = torch.optim.SGD(net.parameters(), 0.1, **settings), Trajectory(folder, every=3)
    trajectory.save(net, rule)
    for batch in BATCHES:
        rule.zero_grad()
        F.cross_entropy(net(torch.tensor(X[batch])), torch.tensor(Y[batch])).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(net.parameters(), clip)
        rule.step()
        trajectory.record(net, rule, batch=batch if batches else None)
    train = uw.Examples(X, Y, ids=ids)
    fitted = uw.SOURCE(segments=2).fit(uw.TorchModel(net.eval(), loss, trajectory=Trajectory(folder)), train)
    return " ".join(fitted.diagnostics["warnings"]), fitted.diagnostics["checked_steps"]


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


def with_layer(layer: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), layer, nn.Tanh(), nn.Linear(6, 3))


@pytest.mark.parametrize("batches", [True, False])
def test_a_training_on_the_examples_own_gradients_has_no_warning(tmp_path: Any, batches: bool) -> None:
    assert warnings_of(tmp_path, plain(), batches=batches) == ("", 3 * batches)


def test_recorded_batches_show_clipped_gradients(tmp_path: Any) -> None:
    assert "gradients were clipped" in warnings_of(tmp_path, plain(), clip=0.1)[0]


@pytest.mark.parametrize("batches", [True, False])
@pytest.mark.parametrize(("layer", "word"), [(nn.BatchNorm1d(6), "batch norm '1'"), (nn.Dropout(), "dropout '1'")])
def test_batch_statistics_and_dropout_are_named(tmp_path: Any, layer: nn.Module, word: str, batches: bool) -> None:
    text = warnings_of(tmp_path, with_layer(layer), batches=batches)[0]
    assert word in text.replace("('", "'") and "do not act on them" in text


@pytest.mark.parametrize("settings", [{"momentum": 0.5, "dampening": 0.5}, {"ids": np.arange(100, 124)}])
def test_steps_that_cannot_be_replayed_are_no_error_of_segments(tmp_path: Any, settings: Any) -> None:
    assert warnings_of(tmp_path, plain(), **settings) == ("", 0)
