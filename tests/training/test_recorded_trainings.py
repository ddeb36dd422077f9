"""SOURCE from a checkpoint at every step, against differences of a weight through the same loop of a user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import upweight as uw
from upweight.gradients.batches import Batch

N = 24
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, 5)), RNG.integers(0, 3, N)
QUERIES = uw.Examples(RNG.normal(size=(3, 5)), [0, 1, 2])
BATCHES = [b for _ in range(3) for b in np.array_split(RNG.permutation(N), 4)]
ROWS = [0, 4, 9]


def loss(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


class FrozenNorm(nn.BatchNorm1d):
    """A batch norm that stays in eval mode."""

    def train(self, mode: bool = True) -> FrozenNorm:
        return super().train(False)


def plain_net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 3))


def by_layer(kind: Any, first: dict[str, Any], second: dict[str, Any]) -> Callable[[nn.Module], Any]:
    return lambda net: kind([{"params": net[:-1].parameters(), **first}, {"params": net[-1].parameters(), **second}])  # type: ignore[index]


def halve_the_head(optimiser: Any, t: int) -> None:
    optimiser.param_groups[-1]["lr"] *= 0.5 if t == 5 else 1.0


TRAININGS: dict[str, dict[str, Any]] = {
    "clipping": {"optimiser": lambda net: torch.optim.SGD(net.parameters(), 0.1, momentum=0.9), "clip": 0.3},
    "clipping, adam": {"optimiser": lambda net: torch.optim.Adam(net.parameters(), 0.02), "clip": 0.3},
    "rates by group": {
        "optimiser": by_layer(torch.optim.SGD, {"lr": 0.05, "momentum": 0.8}, {"lr": 0.2, "momentum": 0.8}),
        "schedule": halve_the_head,
    },
    "rates and decay by group": {
        "optimiser": by_layer(torch.optim.AdamW, {"lr": 0.01}, {"lr": 0.03, "weight_decay": 2.0}),
        "schedule": halve_the_head,
    },
    "rmsprop": {"optimiser": lambda net: torch.optim.RMSprop(net.parameters(), 0.01, weight_decay=0.1)},
    "rmsprop, centred": {
        "optimiser": lambda net: torch.optim.RMSprop(net.parameters(), 0.01, centered=True, eps=1e-3, momentum=0.5),
        "clip": 0.3,
    },
    "batch norm": {
        "make": lambda: nn.Sequential(nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6), nn.GELU(), nn.Linear(6, 3)),
        "optimiser": lambda net: torch.optim.SGD(net.parameters(), 0.1, momentum=0.9),
    },
    "frozen batch norm": {
        "make": lambda: nn.Sequential(
            nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6), nn.GELU(), FrozenNorm(6), nn.Linear(6, 3)
        ),
        "optimiser": lambda net: torch.optim.AdamW(net.parameters(), 0.01),
    },
    "dropout": {
        "make": lambda: nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.3), nn.GELU(), nn.Linear(6, 3)),
        "optimiser": lambda net: torch.optim.AdamW(net.parameters(), 0.01),
        "random": True,
    },
    "augmentation": {
        "optimiser": lambda net: torch.optim.SGD(net.parameters(), 0.1, momentum=0.9),
        "augment": lambda batch, generator: replace(batch, x=batch.x + 0.5 * torch.randn_like(batch.x)),
        "random": True,
    },
    "all at once": {
        "make": lambda: nn.Sequential(
            nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6, momentum=None), nn.Dropout(0.3), nn.GELU(), nn.Linear(6, 3)
        ),
        "optimiser": by_layer(torch.optim.AdamW, {"lr": 0.01}, {"lr": 0.03, "weight_decay": 2.0}),
        "augment": lambda batch, generator: replace(batch, x=batch.x + 0.5 * torch.randn_like(batch.x)),
        "random": True,
        "accumulate": 2,
        "clip": 0.5,
    },
    "accumulation": {"optimiser": lambda net: torch.optim.SGD(net.parameters(), 0.1, momentum=0.9), "accumulate": 3},
}


def train(weights: Tensor, trajectory: uw.Trajectory | None, settings: dict[str, Any]) -> nn.Module:
    """The training of a user, with one weight for every example."""
    torch.manual_seed(0)
    net = settings.get("make", plain_net)().double().train()
    optimiser, count = settings["optimiser"](net), settings.get("accumulate", 1)
    x, y = torch.tensor(X), torch.tensor(Y)
    if trajectory is not None:
        trajectory.save(net, optimiser)
    for t, batch in enumerate(BATCHES):
        optimiser.zero_grad()
        if trajectory is not None and settings.get("random"):
            trajectory.start_step()
        parts = [batch] if count == 1 else [part for part in np.array_split(batch, count) if len(part)]
        for part in parts:
            inputs = Batch(x[part], y[part])
            inputs = settings["augment"](inputs, torch.default_generator) if "augment" in settings else inputs
            losses = F.cross_entropy(net(inputs.x), y[part], reduction="none")
            ((losses * weights[part]).mean() / len(parts)).backward()
        if "clip" in settings:
            nn.utils.clip_grad_norm_(net.parameters(), settings["clip"])
        optimiser.step()
        if trajectory is not None:
            trajectory.record(net, optimiser, batch=batch if count == 1 else parts)
        if "schedule" in settings:
            settings["schedule"](optimiser, t)
    if trajectory is not None:
        trajectory.save(net, optimiser)
    return net.eval()


def differences(settings: dict[str, Any]) -> np.ndarray:
    def measured(i: int, by: float) -> np.ndarray:
        net = train(1.0 + by * F.one_hot(torch.tensor(i), N).double(), None, settings)
        return uw.TorchModel(net, loss).measure(QUERIES)

    return np.stack([(measured(i, 1e-5) - measured(i, -1e-5)) / 2e-5 for i in ROWS], axis=1)


def explain(folder: Any, settings: dict[str, Any], clip: float | None, every: int = 1) -> Any:
    net = train(torch.ones(N).double(), uw.Trajectory(folder, every, clip=clip), settings)
    model = uw.TorchModel(net, loss, trajectory=uw.Trajectory(folder, augment=settings.get("augment")))
    return uw.SOURCE().fit(model, uw.Examples(X, Y)).attribute(QUERIES)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("settings", TRAININGS.values(), ids=TRAININGS)
def test_what_a_recorded_training_did_is_followed(tmp_path: Any, settings: dict[str, Any]) -> None:
    scores = explain(tmp_path, settings, settings.get("clip"))
    assert scores.diagnostics["checked_steps"] == len(BATCHES) and scores.diagnostics["warnings"] == []
    expected = differences(settings)
    assert np.abs(scores.values[:, ROWS] - expected).max() <= 1e-6 * np.abs(expected).max()


def test_a_clip_can_be_named_when_the_trajectory_is_read(tmp_path: Any) -> None:
    settings = TRAININGS["clipping"]
    recorded = explain(tmp_path / "named", settings, 0.3)
    unnamed = explain(tmp_path / "unnamed", settings, None)
    assert "uw.Trajectory(folder, clip=…)" in " ".join(unnamed.diagnostics["warnings"])
    net = train(torch.ones(N).double(), None, settings)
    model = uw.TorchModel(net, loss, trajectory=uw.Trajectory(tmp_path / "unnamed", clip=0.3))
    scores = uw.SOURCE().fit(model, uw.Examples(X, Y)).attribute(QUERIES)
    assert np.array_equal(scores.values, recorded.values) and scores.diagnostics["warnings"] == []


@pytest.mark.sweep(3)
@pytest.mark.parametrize("settings", TRAININGS.values(), ids=TRAININGS)
def test_steps_between_sparse_checkpoints_are_checked(tmp_path: Any, settings: dict[str, Any]) -> None:
    scores = explain(tmp_path, settings, settings.get("clip"), every=5)
    assert scores.diagnostics["checked_steps"] == 3
    assert not any("not the one that SOURCE replays" in text for text in scores.diagnostics["warnings"])


def test_learning_rates_of_groups_are_stored_and_their_mean_is_the_rate(tmp_path: Any) -> None:
    train(torch.ones(N).double(), uw.Trajectory(tmp_path), TRAININGS["rates by group"])
    rates = uw.Trajectory(tmp_path).recorded_rates()
    assert rates.groups is not None
    assert np.allclose(rates.groups[[0, 5, 6, 11]], [[0.05, 0.2], [0.05, 0.2], [0.05, 0.1], [0.05, 0.1]])
    assert np.allclose(rates.mean[0], (0.05 * 36 + 0.2 * 21) / 57)


def test_the_recipe_of_a_loop_is_read_from_its_optimiser() -> None:
    net = plain_net()
    optimiser = by_layer(torch.optim.AdamW, {"lr": 0.01}, {"lr": 0.03, "weight_decay": 2.0})(net)
    training = uw.training_of(net, optimiser, epochs=2, clip=1.0)
    group = uw.ParameterGroup(parameters=("2.weight", "2.bias"), lr=0.03, weight_decay=2.0)
    expected = uw.Training(optimiser="adamw", lr=0.01, weight_decay=0.01, groups=[group], epochs=2, clip=1.0)
    assert repr(training) == repr(expected)
    model = uw.TorchModel(net, loss, training=uw.training_of(net, optimiser, epochs=2, initial=net))
    assert not any("Weight decay differs" in note for note in model.notes)
    coupled = by_layer(torch.optim.SGD, {"lr": 0.01}, {"lr": 0.03, "weight_decay": 2.0})(net)
    model = uw.TorchModel(net, loss, training=uw.training_of(net, coupled, epochs=2, initial=net))
    assert any("Weight decay differs" in note for note in model.notes)
    with pytest.raises(TypeError, match=r"Adagrad is not supported.*uw\.UpdateRule"):
        uw.training_of(net, torch.optim.Adagrad(net.parameters()), epochs=1)


def test_a_recipe_begins_with_the_learning_rates_from_which_a_scheduler_started() -> None:
    net = plain_net()
    optimiser = by_layer(torch.optim.SGD, {"lr": 0.4}, {"lr": 0.8})(net)
    plain = uw.training_of(net, optimiser, epochs=2, schedule=quarter)
    torch.optim.lr_scheduler.LambdaLR(optimiser, quarter)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.1)
    assert repr(uw.training_of(net, optimiser, epochs=2, schedule=quarter)) == repr(plain)
    for settings in ({}, {"lr": [0.1, 0.2]}):
        with pytest.raises(ValueError, match=r"a scheduler has changed the learning rates.*pass schedule="):
            uw.training_of(net, optimiser, epochs=2, **settings)
    rates = {"lr": [0.1, 0.2], "groups": [uw.ParameterGroup(parameters="2", lr=[0.2, 0.4])]}
    assert uw.training_of(net, optimiser, epochs=2, **rates).lr == [0.1, 0.2]


def test_parameters_that_the_optimiser_does_not_hold_are_named() -> None:
    net = plain_net()
    optimiser = torch.optim.SGD(net[2].parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"does not hold 0\.weight, 0\.bias; call requires_grad_\(False\)"):
        uw.training_of(net, optimiser, epochs=1)
    net[0].requires_grad_(False)
    assert uw.training_of(net, optimiser, epochs=1).groups == ()


def quarter(step: int) -> float:
    return min(1.0, (step + 1) / 4)


def test_what_segments_and_means_leave_out_is_said(tmp_path: Any) -> None:
    net = train(torch.ones(N).double(), uw.Trajectory(tmp_path / "clip", clip=0.3), TRAININGS["clipping"])
    model = uw.TorchModel(net, loss, trajectory=uw.Trajectory(tmp_path / "clip"))
    warnings = uw.SOURCE(segments=2).fit(model, uw.Examples(X, Y)).diagnostics["warnings"]
    assert any("which SOURCE by segments leaves out" in text for text in warnings)
    net = train(torch.ones(N).double(), uw.Trajectory(tmp_path / "groups"), TRAININGS["rates by group"])
    model = uw.TorchModel(net, loss, trajectory=uw.Trajectory(tmp_path / "groups"))
    for method in (uw.TracIn(), uw.SOURCE(segments=2)):
        warnings = method.fit(model, uw.Examples(X, Y)).diagnostics["warnings"]
        assert any("differ between parameter groups" in text for text in warnings)


def test_random_numbers_that_were_not_recorded_are_refused_or_reported(tmp_path: Any) -> None:
    settings = {**TRAININGS["augmentation"], "random": False}
    with pytest.raises(ValueError, match="start_step"):
        explain(tmp_path / "augment", settings, None)
    settings = {**TRAININGS["dropout"], "random": False}
    assert "(dropout '1')" in " ".join(explain(tmp_path / "dropout", settings, None).diagnostics["warnings"])
    trajectory = uw.Trajectory(tmp_path / "partly", every=3)
    net = plain_net()
    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    trajectory.start_step()
    trajectory.record(net, optimiser, batch=[1])
    with pytest.raises(ValueError, match="every step or in none"):
        trajectory.record(net, optimiser, batch=[2])


def test_segments_say_that_they_leave_batch_norm_out(tmp_path: Any) -> None:
    net = train(torch.ones(N).double(), uw.Trajectory(tmp_path), TRAININGS["batch norm"])
    model = uw.TorchModel(net, loss, trajectory=uw.Trajectory(tmp_path))
    warnings = uw.SOURCE(segments=2).fit(model, uw.Examples(X, Y)).diagnostics["warnings"]
    assert any("had the batch norm '1' in training mode" in text for text in warnings)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("settings", TRAININGS.values(), ids=TRAININGS)
def test_a_recorded_run_is_a_recipe_that_can_be_replayed(tmp_path: Any, settings: dict[str, Any]) -> None:
    clip, augment = settings.get("clip"), settings.get("augment")
    net = train(torch.ones(N).double(), uw.Trajectory(tmp_path, 5, clip=clip), settings)
    trajectory = uw.Trajectory(tmp_path, augment=augment)
    examples = uw.Examples(X, Y).take(np.random.default_rng(2).permutation(N))
    if settings is TRAININGS["frozen batch norm"]:
        with pytest.raises(ValueError, match="a net in training mode"):
            trajectory.training(examples)
        return
    model = uw.TorchModel(net, loss, training=trajectory.training(examples))
    again = model.retrain(examples, np.ones(N))
    assert np.allclose(again.parameters, model.parameters, rtol=0, atol=1e-10)
    scores = uw.Metagradient(at="full", removals=0).fit(model, examples).attribute(QUERIES)
    expected = differences(settings)
    columns = [examples.ids.tolist().index(i) for i in ROWS]
    assert np.abs(scores.values[:, columns] - expected).max() <= 1e-6 * np.abs(expected).max()


def test_a_run_without_what_a_recipe_needs_is_refused(tmp_path: Any) -> None:
    net = plain_net()
    optimiser, trajectory = torch.optim.SGD(net.parameters(), 0.1), uw.Trajectory(tmp_path)
    trajectory.record(net, optimiser, batch=[1])
    with pytest.raises(ValueError, match="before the loop, and pass batch=ids"):
        trajectory.training(uw.Examples(X, Y))
    with pytest.raises(ValueError, match="random_states of each step"):
        uw.Training(lr=0.1, batches=[[0], [1]], random_states=[torch.get_rng_state()])
