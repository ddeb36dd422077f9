"""Steps whose objective is not the mean over their examples, as a mean over the tokens of a step, and rewinding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import upweight as uw

N, STEPS = 12, 8
RNG = np.random.default_rng(0)
X, Y = torch.tensor(RNG.normal(size=(N + 3, 5))), torch.tensor(RNG.integers(0, 3, N + 3))
TOKENS = torch.tensor(RNG.integers(1, 9, N), dtype=torch.float64)
BATCHES = [RNG.choice(N, 4, replace=False) for _ in range(STEPS)]


def loss(net: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")


def plain_loop(weights: Tensor, trajectory: uw.Trajectory | None = None, steps: range = range(STEPS)) -> nn.Module:
    """Steps on Σ wᵢ ℓᵢ / tokens of the step, by torch alone."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3)).double()
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.02, weight_decay=0.1)
    if trajectory is not None:
        trajectory.resume(net, optimiser)
        trajectory.save(net, optimiser)
    for t in steps:
        where = torch.as_tensor(BATCHES[t])
        optimiser.zero_grad()
        losses = nn.functional.cross_entropy(net(X[where]), Y[where], reduction="none")
        total = TOKENS[where].sum()
        ((losses * weights[where]).sum() / total).backward()
        optimiser.step()
        if trajectory is not None:
            trajectory.record(net, optimiser, batch=where, shares=np.full(len(where), 1.0 / float(total)))
    return net


def sets() -> tuple[uw.Examples, uw.Examples]:
    return uw.Examples(X[:N].numpy(), Y[:N].numpy()), uw.Examples(X[N:].numpy(), Y[N:].numpy())


def test_scores_of_recorded_shares_are_finite_differences_of_the_loop(tmp_path: Path) -> None:
    train, queries = sets()
    net = plain_loop(torch.ones(N, dtype=torch.float64), uw.Trajectory(tmp_path))
    model = uw.TorchModel(net, loss, trajectory=uw.Trajectory(tmp_path))
    scores = uw.SOURCE().fit(model, train).attribute(queries)
    assert not [w for w in scores.diagnostics["warnings"] if "not the one that SOURCE replays" in w]
    changed, size = int(BATCHES[2][0]), 1e-6
    moved = []
    for sign in (1, -1):
        weights = torch.ones(N, dtype=torch.float64)
        weights[changed] += sign * size
        moved.append(uw.TorchModel(plain_loop(weights), loss).measure(queries))
    expected = (moved[0] - moved[1]) / (2 * size)
    assert np.allclose(scores.values[:, changed], expected, rtol=1e-5, atol=1e-8)


def test_shares_that_do_not_fit_the_batch_are_refused(tmp_path: Path) -> None:
    net = nn.Linear(2, 1)
    optimiser, trajectory = torch.optim.SGD(net.parameters(), lr=0.1), uw.Trajectory(tmp_path, every=5)
    with pytest.raises(ValueError, match="one finite number for each example"):
        trajectory.record(net, optimiser, batch=[0, 1], shares=[1.0])
    trajectory.record(net, optimiser, batch=[0, 1], shares=[0.5, 0.5])
    with pytest.raises(ValueError, match="shares= in every step or in none"):
        trajectory.record(net, optimiser, batch=[0, 1])


def test_shares_of_some_checkpoints_only_are_refused(tmp_path: Path) -> None:
    net = nn.Linear(2, 1)
    optimiser, trajectory = torch.optim.SGD(net.parameters(), lr=0.1), uw.Trajectory(tmp_path)
    trajectory.record(net, optimiser, batch=[0, 1], shares=[0.5, 0.5])
    trajectory.record(net, optimiser, batch=[0, 1])
    with pytest.raises(ValueError, match="shares of its examples for some of its steps only"):
        trajectory.shares()


def test_a_rewound_trajectory_goes_on_from_that_step(tmp_path: Path) -> None:
    ones = torch.ones(N, dtype=torch.float64)
    plain_loop(ones, uw.Trajectory(tmp_path / "whole", every=2))
    interrupted = uw.Trajectory(tmp_path / "parts", every=2)
    plain_loop(ones, interrupted)
    later = uw.Trajectory(tmp_path / "parts", every=2)
    later.rewind(4)
    assert [shard.step for shard in uw.Trajectory(tmp_path / "parts").shards] == [0, 2, 4]
    plain_loop(ones, later, range(4, STEPS))
    whole, parts = (uw.Trajectory(tmp_path / name) for name in ("whole", "parts"))
    assert whole.shards == parts.shards
    assert whole.batches() == parts.batches()
    with pytest.raises(ValueError, match="no checkpoint of step 5"):
        parts.rewind(5)
