"""Training loops as people write them: scores by steps equal differences of the loop, or a warning says why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import upweight as uw

N, RATE, EPS = 32, 0.3, 1e-4
RNG = np.random.default_rng(0)
X, ASKED = (torch.as_tensor(RNG.normal(size=(n, 4))) for n in (N, 4))
Y, LABELS = (x[:, 0] > 0 for x in (X, ASKED))
Y, LABELS = Y.long(), LABELS.long()
BATCHES = [b for _ in range(3) for b in np.split(RNG.permutation(N), 4)]
EXAMPLES = [0, 9, 30]


def losses(net: nn.Module, batch: Any) -> Tensor:
    return functional.cross_entropy(net(batch.x), batch.y, reduction="none")


class Loop:
    """A training of one weight per example; `trajectory` is None for differences."""

    def __init__(self, weights: Tensor, trajectory: uw.Trajectory | None) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
        self.weights, self.trajectory = weights, trajectory

    def sgd(self, lr: float = RATE, **settings: Any) -> torch.optim.SGD:
        return torch.optim.SGD(self.net.parameters(), lr=lr, **settings)

    def loss(self, batch: Any) -> Tensor:
        of_each = functional.cross_entropy(self.net(X[batch]), Y[batch], reduction="none")
        return (of_each * self.weights[batch]).sum() / len(batch)

    def save(self, optimiser: Any) -> None:
        if self.trajectory is not None:
            self.trajectory.save(self.net, optimiser)

    def record(self, optimiser: Any, batch: Any) -> None:
        if self.trajectory is not None:
            self.trajectory.record(self.net, optimiser, batch=batch)

    def steps(self, optimiser: Any, before: Callable[[int], Any] | None = None) -> None:
        """Plain steps; `before(t)` may do something first and return another optimiser."""
        self.save(optimiser)
        for t, batch in enumerate(BATCHES):
            optimiser = (before and before(t)) or optimiser
            optimiser.zero_grad()
            self.loss(batch).backward()
            optimiser.step()
            self.record(optimiser, batch)


def plain(loop: Loop) -> None:
    loop.steps(loop.sgd(momentum=0.5))


def schedule_per_epoch(loop: Loop) -> None:
    optimiser = loop.sgd()
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.5)
    loop.steps(optimiser, lambda t: schedule.step() if t and t % 4 == 0 else None)


def accumulated(loop: Loop) -> None:
    optimiser = loop.sgd(momentum=0.5)
    loop.save(optimiser)
    for batch in BATCHES:
        optimiser.zero_grad()
        parts = np.split(batch, [5])
        for part in parts:
            (loop.loss(part) / 2).backward()
        optimiser.step()
        loop.record(optimiser, parts)


def scaled(loop: Loop, lost: int | None = None) -> None:
    optimiser, scaler = loop.sgd(), torch.amp.GradScaler("cpu", init_scale=1024.0)
    loop.save(optimiser)
    for t, batch in enumerate(BATCHES):
        optimiser.zero_grad()
        scaler.scale(loop.loss(batch) * (np.inf if t == lost else 1.0)).backward()
        scaler.unscale_(optimiser)
        scaler.step(optimiser)
        scaler.update()
        loop.record(optimiser, batch)


def scaler_that_skips_a_step(loop: Loop) -> None:
    scaled(loop, lost=5)


def two_optimisers(loop: Loop) -> None:
    parts = [torch.optim.SGD(loop.net[place].parameters(), lr=RATE) for place in (0, 2)]
    loop.save(parts[0])
    for batch in BATCHES:
        loop.net.zero_grad()
        loop.loss(batch).backward()
        for optimiser in parts:
            optimiser.step()
        loop.record(parts[0], batch)


def lookahead(loop: Loop) -> None:
    optimiser, slow = loop.sgd(), [p.detach().clone() for p in loop.net.parameters()]
    loop.save(optimiser)
    for t, batch in enumerate(BATCHES):
        optimiser.zero_grad()
        loop.loss(batch).backward()
        optimiser.step()
        for p, q in zip(loop.net.parameters(), slow, strict=True) if t % 4 == 3 else ():
            p.data.copy_(q.lerp_(p.detach(), 0.5))
        loop.record(optimiser, batch)


def zero_grad_forgotten(loop: Loop) -> None:
    optimiser = loop.sgd(lr=0.05)
    loop.save(optimiser)
    for batch in BATCHES:
        loop.loss(batch).backward()
        optimiser.step()
        loop.record(optimiser, batch)


def frozen_half_way(loop: Loop) -> None:
    loop.steps(loop.sgd(momentum=0.5), lambda t: loop.net[0].requires_grad_(t < 6) and None)
    loop.net.requires_grad_(True)


def added_half_way(loop: Loop) -> None:
    optimiser = torch.optim.SGD(loop.net[2].parameters(), lr=RATE)
    added = {"params": list(loop.net[0].parameters())}
    loop.steps(optimiser, lambda t: optimiser.add_param_group(added) if t == 6 else None)


def another_optimiser_half_way(loop: Loop) -> None:
    loop.steps(loop.sgd(momentum=0.9), lambda t: loop.sgd(lr=0.1, momentum=0.9) if t == 6 else None)


def schedule_before_record(loop: Loop) -> None:
    optimiser = loop.sgd()
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.5)
    loop.save(optimiser)
    for t, batch in enumerate(BATCHES):
        optimiser.zero_grad()
        loop.loss(batch).backward()
        optimiser.step()
        if t % 4 == 3:
            schedule.step()
        loop.record(optimiser, batch)


FOLLOWED = [plain, schedule_per_epoch, accumulated, scaled]
MARKED = [
    scaler_that_skips_a_step,
    two_optimisers,
    lookahead,
    zero_grad_forgotten,
    frozen_half_way,
    added_half_way,
    another_optimiser_half_way,
    schedule_before_record,
]


def scores(train: Callable[[Loop], None], folder: Path, every: int = 1) -> uw.Scores:
    """Scores by the recorded steps."""
    loop = Loop(torch.ones(N).double(), uw.Trajectory(folder, every=every))
    train(loop)
    model = uw.TorchModel(loop.net.eval(), losses, trajectory=uw.Trajectory(folder))
    fitted = uw.SOURCE().fit(model, uw.Examples(X.numpy(), Y.numpy()))
    return fitted.attribute(uw.Examples(ASKED.numpy(), LABELS.numpy()))


def differences(train: Callable[[Loop], None]) -> np.ndarray:
    """Central differences of the measurements in the weights of some examples, by the loop itself."""

    def measured(example: int, change: float) -> Tensor:
        weights = torch.ones(N).double()
        weights[example] += change
        loop = Loop(weights, None)
        train(loop)
        with torch.no_grad():
            return -functional.cross_entropy(loop.net(ASKED), LABELS, reduction="none")

    columns = [(measured(example, EPS) - measured(example, -EPS)) / (2 * EPS) for example in EXAMPLES]
    return torch.stack(columns, dim=1).numpy()


@pytest.mark.parametrize("train", FOLLOWED, ids=lambda train: train.__name__)
def test_scores_are_the_derivatives_of_the_loop(tmp_path: Path, train: Callable[[Loop], None]) -> None:
    answer, truth = scores(train, tmp_path), differences(train)
    assert np.allclose(answer.values[:, EXAMPLES], truth, atol=1e-6 * np.abs(truth).max())
    assert answer.diagnostics["warnings"] == []


@pytest.mark.sweep(3)
@pytest.mark.parametrize("train", MARKED, ids=lambda train: train.__name__)
def test_what_steps_cannot_follow_is_said(tmp_path: Path, train: Callable[[Loop], None]) -> None:
    warnings = scores(train, tmp_path).diagnostics["warnings"]
    assert any("is not the one that SOURCE replays" in warning for warning in warnings)


@pytest.mark.parametrize("train", [lookahead, schedule_before_record], ids=lambda train: train.__name__)
def test_what_happens_just_before_a_checkpoint_is_said(tmp_path: Path, train: Callable[[Loop], None]) -> None:
    warnings = scores(train, tmp_path, every=4).diagnostics["warnings"]  # no checked step shows it
    assert any("does not end at the recorded net" in warning for warning in warnings)
