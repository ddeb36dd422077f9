"""LESS against torch's own optimisers, which make a step of each example at every checkpoint."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import upweight as uw

N, STEPS, TOKENS = 12, 7, 4.0
OPTIMISERS: dict[str, Any] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.03, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.2),
    "adam": lambda p: torch.optim.Adam(p, lr=0.03, eps=1e-6),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.7),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.7, nesterov=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.02, momentum=0.5),
    "centred": lambda p: torch.optim.RMSprop(p, lr=0.02, centered=True),
}


def loss(net: nn.Module, batch: Any) -> Any:
    return TOKENS * nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")


def run(folder: Path, make: Any, weights: Any = None) -> Any:
    """(model, train, queries, [(net, optimiser) at every checkpoint]); a step has the mean over four terms each."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N + 4, 5)), rng.integers(0, 3, N + 4)
    train = uw.Examples(x[:N], y[:N], weights=weights)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3)).double()
    optimiser, trajectory, states = make(net.parameters()), uw.Trajectory(folder, every=3), []
    trajectory.save(net, optimiser)
    states.append(copy.deepcopy((net, optimiser.state_dict())))
    for _ in range(STEPS):
        where = rng.choice(N, 4, replace=False)
        optimiser.zero_grad()
        batch = type("Batch", (), {"x": torch.tensor(x[where]), "y": torch.tensor(y[where])})
        (loss(net, batch).sum() / (4 * TOKENS)).backward()
        optimiser.step()
        trajectory.record(net, optimiser, batch=where, shares=np.full(4, 1 / (4 * TOKENS)))
        if trajectory.shards[-1].step == len(trajectory.rates()) and len(trajectory) > len(states):
            states.append(copy.deepcopy((net, optimiser.state_dict())))
    trajectory.save(net, optimiser)
    states.append(copy.deepcopy((net, optimiser.state_dict())))
    model = uw.TorchModel(net, loss, trajectory=uw.Trajectory(folder))
    return model, train, uw.Examples(x[N:], y[N:]), states


def gradient(net: nn.Module, example: uw.Examples) -> list[torch.Tensor]:
    batch = type("Batch", (), {"x": torch.tensor(example.x), "y": torch.tensor(example.y)})
    return list(torch.autograd.grad(loss(net, batch).sum(), list(net.parameters())))


def flat(tensors: Any) -> np.ndarray:
    return torch.cat([t.detach().flatten() for t in tensors]).numpy()


def by_torch(train: uw.Examples, queries: uw.Examples, states: Any, rates: Any, make: Any) -> np.ndarray:
    """Σ τ cos(−∇m, Γ), where the optimiser itself makes Γ: a step of rate 1 without decay from zero."""
    total = np.zeros((len(queries), len(train)))
    for (net, state), rate in zip(states, rates, strict=True):
        directions = np.stack([-flat(gradient(net, example)) for example in queries.batches(1)])
        updates = []
        for example in train.batches(1):
            moved = copy.deepcopy(net)
            optimiser = make(moved.parameters())
            optimiser.load_state_dict(copy.deepcopy(state))
            for group in optimiser.param_groups:
                group["lr"], group["weight_decay"] = 1.0, 0.0
            for p, g in zip(moved.parameters(), gradient(net, example), strict=True):
                p.grad = g / TOKENS
            optimiser.step()
            updates.append(flat(net.parameters()) - flat(moved.parameters()))
        a, b = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (directions, np.stack(updates)))
        total -= rate * a @ b.T
    return total


@pytest.mark.sweep(3)
@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
def test_updates_are_those_of_torch(make: Any, tmp_path: Path) -> None:
    model, train, queries, states = run(tmp_path, make)
    rates = [checkpoint.learning_rate_sum for checkpoint in model.checkpoints()]
    assert [checkpoint.step for checkpoint in model.checkpoints()] == [0, 3, 6, 7]
    fitted = uw.LESS().fit(model, train)
    expected = by_torch(train, queries, states, rates, make)
    assert np.allclose(fitted.attribute(queries).values, expected, rtol=1e-8, atol=1e-10)
    own = by_torch(train, train, states, rates, make)
    assert np.allclose(fitted.self_influence().values[0], np.diag(own), rtol=1e-8, atol=1e-10)


def test_without_momentum_of_sgd_it_is_gas(tmp_path: Path) -> None:
    model, train, queries, _ = run(tmp_path, OPTIMISERS["momentum"])
    for modules in (None, ["0"]):
        scores = uw.LESS(momentum=False, modules=modules).fit(model, train).attribute(queries)
        cosines = uw.GAS(modules=modules).fit(model, train).attribute(queries)
        assert np.allclose(scores.values, cosines.values, rtol=1e-9)


def test_a_row_of_weight_three_is_three_copies(tmp_path: Path) -> None:
    model, train, queries, _ = run(tmp_path, OPTIMISERS["adamw"])
    heavy = train.replaced(weights=np.where(np.arange(N) == 2, 3.0, np.where(np.arange(N) == 5, 0.0, 1.0)))
    one, three = (uw.LESS().fit(model, t).attribute(queries).values for t in (train, heavy))
    assert np.allclose(three[:, 2], 3 * one[:, 2])
    assert (three[:, 5] == 0).all()


def test_rows_of_an_embedding_are_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Embedding(6, 4), nn.Flatten(), nn.Linear(8, 3))
    optimiser, trajectory = torch.optim.Adam(net.parameters(), lr=0.1), uw.Trajectory(tmp_path)
    nn.functional.cross_entropy(net(torch.tensor([[1, 2]])), torch.tensor([0])).backward()
    optimiser.step()
    trajectory.record(net, optimiser)
    train = uw.Examples(np.array([[1, 2], [3, 4]]), [0, 1])
    model = uw.TorchModel(net, loss, trajectory=trajectory)
    with pytest.raises(ValueError, match="choose whole modules"):
        uw.LESS(modules={"0": [1, 2]}).fit(model, train).attribute(train)
