"""TrackStar against its definition, with dense gradients of single examples and matrix functions of scipy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import nn

import upweight as uw

N = 14
SETTINGS: dict[str, dict[str, Any]] = {
    "gradients": {},
    "optimiser": {"second_moments": "optimiser"},
    "none": {"second_moments": None, "damping": 0.01},
    "projected": {"directions": 9, "seed": 3},
    "a module": {"modules": ["2"]},
}


def loss(net: nn.Module, batch: Any) -> Any:
    return nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")


@pytest.fixture(scope="module")
def run(tmp_path_factory: Any) -> Any:
    """(model, train, queries) of a recorded training with AdamW."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N + 5, 5)), rng.integers(0, 3, N + 5)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3)).double()
    optimiser, trajectory = torch.optim.AdamW(net.parameters(), lr=0.05), uw.Trajectory(tmp_path_factory.mktemp("run"))
    for _ in range(5):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(torch.tensor(x[:N])), torch.tensor(y[:N])).backward()
        optimiser.step()
        trajectory.record(net, optimiser)
    return uw.TorchModel(net, loss, trajectory=trajectory), uw.Examples(x[:N], y[:N]), uw.Examples(x[N:], y[N:])


def gradients(net: nn.Module, examples: uw.Examples, names: list[str]) -> np.ndarray:
    rows = []
    for example in examples.batches(1):
        value = nn.functional.cross_entropy(net(torch.tensor(example.x)), torch.tensor(example.y))
        named = dict(net.named_parameters())
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, [named[n] for n in names])]).numpy())
    return np.stack(rows)


def by_definition(run: Any, settings: dict[str, Any]) -> np.ndarray:
    model, train, queries = run
    net = model.network.net
    names = [n for n, _ in net.named_parameters() if "modules" not in settings or n.startswith("2.")]
    of_train, of_queries = (gradients(net, examples, names) for examples in (train, queries))
    roots = np.sqrt((of_train**2).mean(axis=0))
    if settings.get("second_moments", "gradients") is None:
        roots = np.ones_like(roots)
    elif "second_moments" in settings:
        state = model.trajectory.read(len(model.trajectory) - 1)
        second = torch.cat([state[f"optimiser.exp_avg_sq.{name}"].flatten() for name in names]).numpy()
        roots = np.sqrt(second / (1 - 0.999**5)) + 1e-8
    of_train, of_queries = of_train / roots, of_queries / roots
    if "directions" in settings:
        directions = np.random.default_rng([3, 0]).normal(scale=1 / 3, size=(len(roots), 9))
        of_train, of_queries = of_train @ directions, of_queries @ directions
    covariance = of_train.T @ of_train / N
    covariance += settings.get("damping", 0.1) * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    root = np.linalg.inv(linalg.sqrtm(covariance).real)
    a, b = (rows @ root / np.linalg.norm(rows @ root, axis=1, keepdims=True) for rows in (of_queries, of_train))
    return a @ b.T  # the measurement is −loss, so that its gradient is the negative one


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_scores_are_those_of_the_definition(run: Any, settings: dict[str, Any]) -> None:
    model, train, queries = run
    fitted = uw.TrackStar(**settings).fit(model, train)
    expected = by_definition(run, settings)
    assert np.allclose(fitted.attribute(queries).values, expected, rtol=1e-6, atol=1e-8)
    own = np.diag(by_definition((model, train, train), settings))
    assert np.allclose(fitted.self_influence().values[0], own, rtol=1e-6, atol=1e-8)


def test_many_directions_and_few_parameters_at_a_time_change_nothing(run: Any, monkeypatch: Any) -> None:
    from upweight.gradients import dense_parts
    from upweight.methods import trackstar

    model, train, queries = run
    whole = uw.TrackStar().fit(model, train).attribute(queries).values
    monkeypatch.setattr(dense_parts, "MAX_CACHED_NUMBERS", 100)
    assert np.allclose(uw.TrackStar().fit(model, train).attribute(queries).values, whole)
    monkeypatch.setattr(trackstar, "PROJECTION_ROWS", 7)
    some = uw.TrackStar(directions=38).fit(model, train).attribute(queries).values
    assert np.corrcoef(some.ravel(), whole.ravel())[0, 1] > 0.5


def test_second_moments_that_were_not_recorded_are_refused(run: Any, tmp_path: Path) -> None:
    _, train, _ = run
    net = nn.Sequential(nn.Linear(5, 3)).double()
    optimiser, trajectory = torch.optim.SGD(net.parameters(), lr=0.1), uw.Trajectory(tmp_path)
    nn.functional.cross_entropy(net(torch.tensor(train.x)), torch.tensor(train.y)).backward()
    optimiser.step()
    trajectory.record(net, optimiser)
    model = uw.TorchModel(net, loss, trajectory=trajectory)
    with pytest.raises(ValueError, match="which SGD has not recorded"):
        uw.TrackStar(second_moments="optimiser").fit(model, train)
    with pytest.raises(TypeError, match="no checkpoints"):
        uw.TrackStar(second_moments="optimiser").fit(uw.TorchModel(net, loss), train)
