"""Steps of a recorded training equal the replay if every step has a checkpoint, else a dense reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import upweight as uw
from upweight.methods.source import FittedSOURCE, FittedSteps

N = 20
KINDS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.02, "schedule": "linear"},
    "nesterov": {"lr": 0.1, "momentum": 0.8, "nesterov": True},
    "adam": {"optimiser": "adam", "lr": 0.02, "weight_decay": 0.1},
    "adamw": {"optimiser": "adamw", "lr": 0.02, "weight_decay": 0.1, "schedule": "linear"},
}


def loss(net: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")


def fresh(_: int = 0) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3)).double()


@pytest.fixture(scope="module")
def data() -> tuple[uw.Examples, uw.Examples]:
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.5, 2.0, N)
    train = uw.Examples(rng.normal(size=(N, 5)), rng.integers(0, 3, N), weights=weights)
    return train, uw.Examples(rng.normal(size=(3, 5)), rng.integers(0, 3, 3))


def optimiser_of(training: uw.Training, net: nn.Module) -> Any:
    decay = {"lr": 1.0, "weight_decay": training.weight_decay}
    if training.optimiser == "sgd":
        return torch.optim.SGD(net.parameters(), momentum=training.momentum, nesterov=training.nesterov, **decay)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimiser](net.parameters(), **decay)


def recorded(
    model: uw.TorchModel, train: uw.Examples, folder: Any, every: int = 1, with_batches: bool = True
) -> uw.TorchModel:
    """The model's training made by a plain loop and recorded."""
    training, net = model.training, fresh()
    torch.manual_seed(training.seed)
    net = training.initial(training.seed)
    optimiser, trajectory = optimiser_of(training, net), uw.Trajectory(folder, every=every)
    batches = training.drawn(np.arange(N), training.seed)
    trajectory.save(net, optimiser)
    for where, rate in zip(batches, training.rates(len(batches)), strict=True):
        optimiser.param_groups[0]["lr"] = float(rate)
        optimiser.zero_grad()
        losses = loss(net, model.network.batch(train.take(where)))
        (losses * torch.as_tensor(train.weights[where])).mean().backward()
        optimiser.step()
        trajectory.record(net, optimiser, batch=where if with_batches else None)
    trajectory.save(net, optimiser)
    return uw.TorchModel(net, loss, objective=uw.Objective("mean", l2=training.l2), trajectory=uw.Trajectory(folder))


def trained(train: uw.Examples, **settings: Any) -> uw.TorchModel:
    training = uw.Training(epochs=3, batch_size=6, **settings)
    return uw.TorchModel.trained(fresh, loss, train, training=training)


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_with_a_checkpoint_at_every_step_scores_are_those_of_the_replay(
    data: Any, settings: dict[str, Any], tmp_path: Any
) -> None:
    train, queries = data
    model = trained(train, **settings)
    scored = uw.SOURCE().fit(recorded(model, train, tmp_path), train).attribute(queries).values
    expected = exact(model, train, queries)
    assert np.abs(scored - expected).max() <= 1e-9 * np.abs(expected).max()


def test_parameters_between_checkpoints_are_interpolated(data: Any, tmp_path: Any) -> None:
    train, queries = data
    model = trained(train, **KINDS["sgd"])
    source = recorded(model, train, tmp_path, every=5)
    assert [c.step for c in source.checkpoints()] == [0, 5, 10, 12]
    fitted = uw.SOURCE().fit(source, train)
    assert isinstance(fitted, FittedSteps)
    fitted.steps.max_growth = np.inf
    scored = fitted.attribute(queries).values
    expected = by_hessians(model, source, train, queries)
    assert np.abs(scored - expected).max() <= 1e-9 * np.abs(expected).max()
    assert np.allclose(fitted.self_influence().values, np.diag(by_hessians(model, source, train, train)))


def by_hessians(model: uw.TorchModel, source: uw.TorchModel, train: uw.Examples, queries: uw.Examples) -> np.ndarray:
    """Momentum's adjoint with dense Hessians of every batch at parameters between the checkpoints."""
    training, network = model.training, source.network
    shapes = [network.shapes[name] for name in network.names]
    sizes = [int(np.prod(shape)) for shape in shapes]

    def losses(theta: Tensor, where: np.ndarray) -> Tensor:
        parts = zip(network.names, theta.split(sizes), shapes, strict=True)
        named = {name: part.view(shape) for name, part, shape in parts}
        out = torch.func.functional_call(network.net, named, (torch.as_tensor(train.x[where]),))
        return nn.functional.cross_entropy(out, torch.as_tensor(train.y[where]), reduction="none")

    marks = [(c.step, torch.as_tensor(c.model().parameters)) for c in source.checkpoints()]
    steps = np.array([step for step, _ in marks])
    batches = training.drawn(np.arange(N), training.seed)
    a = torch.as_tensor(source.measure_rows(queries).dense())
    b, scores = torch.zeros_like(a), np.zeros((len(queries), N))
    for t, (where, rate) in reversed(list(enumerate(zip(batches, training.rates(len(batches)), strict=True)))):
        place = int(np.searchsorted(steps, t, side="right"))
        (before, low), (after, high) = marks[place - 1], marks[place]
        theta = low + (high - low) * (t - before) / (after - before)
        weights = torch.as_tensor(train.weights[where]) / len(where)

        def mean(at: Tensor, where: np.ndarray = where, weights: Tensor = weights) -> Tensor:
            return (weights * losses(at, where)).sum()

        b = b - float(rate) * a
        rows = torch.func.jacrev(lambda at, where=where: losses(at, where))(theta) * weights[:, None]
        scores[:, where] += (b @ rows.T).numpy()
        a = a + b @ torch.func.hessian(mean)(theta) + training.weight_decay * b
        b = training.momentum * b
    return scores


def test_the_order_of_the_training_set_does_not_matter(data: Any, tmp_path: Any) -> None:
    train, queries = data
    source, order = (
        recorded(trained(train, **KINDS["sgd"]), train, tmp_path, 4),
        np.random.default_rng(1).permutation(N),
    )
    expected = uw.SOURCE().fit(source, train).attribute(queries).values
    scored = uw.SOURCE().fit(source, train.take(order)).attribute(queries).values
    assert np.allclose(scored, expected[:, order], rtol=1e-9, atol=1e-12)


def test_without_recorded_batches_source_uses_segments(data: Any, tmp_path: Any) -> None:
    train, _ = data
    model = trained(train, **KINDS["sgd"])
    assert isinstance(
        uw.SOURCE().fit(recorded(model, train, tmp_path / "without", 3, with_batches=False), train), FittedSOURCE
    )
    with_batches = recorded(model, train, tmp_path / "with", 3)
    assert isinstance(uw.SOURCE(segments=2).fit(with_batches, train), FittedSOURCE)
    assert isinstance(uw.SOURCE(curvature=uw.EKFAC()).fit(with_batches, train), FittedSOURCE)


def test_recorded_steps_that_cannot_be_followed_are_refused(data: Any, tmp_path: Any) -> None:
    train, _ = data
    source = recorded(trained(train, **KINDS["sgd"]), train, tmp_path / "run", 3)
    with pytest.raises(ValueError, match="took examples that the training set does not have"):
        uw.SOURCE().fit(source, train.take(np.arange(15)))
    net = fresh()
    dampened = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, dampening=0.5)
    plain = torch.optim.SGD(net.parameters(), lr=0.1)
    trajectory = uw.Trajectory(tmp_path / "dampened")
    trajectory.save(net, dampened)
    trajectory.record(net, dampened, batch=[1, 2])
    with pytest.raises(ValueError, match="dampening"):
        uw.SOURCE().fit(uw.TorchModel(net, loss, trajectory=trajectory), train)
    trajectory = uw.Trajectory(tmp_path / "partly", every=2)
    trajectory.save(net, plain)
    trajectory.record(net, plain, batch=torch.tensor([3]))
    with pytest.raises(ValueError, match="every step or in none, step 2"):
        trajectory.record(net, plain)
    trajectory.record(net, plain, batch=[4])
    for _ in range(2):
        trajectory.record(net, plain)
    with pytest.raises(ValueError, match="some of its steps only"):
        uw.SOURCE().fit(uw.TorchModel(net, loss, trajectory=trajectory), train)
    with pytest.raises(ValueError, match="expected ids of examples for the batch of step 0"):
        uw.Trajectory(tmp_path / "strange").record(net, plain, batch=[0.5])


def test_a_backward_pass_whose_cotangents_grow_too_long_ends_early(data: Any, tmp_path: Any) -> None:
    train, queries = data
    model = trained(train, **KINDS["sgd"])
    source = recorded(model, train, tmp_path, every=5)
    whole = uw.SOURCE().fit(source, train)
    whole.steps.max_growth = np.inf
    expected = whole.attribute(queries).values
    assert not whole.diagnostics["warnings"]
    fitted = uw.SOURCE().fit(source, train)
    fitted.steps.max_growth = 0.0
    scores = fitted.attribute(queries)
    scored = scores.values
    last = model.training.drawn(np.arange(N), 0)[-1]
    assert not scored[:, np.setdiff1d(np.arange(N), last)].any()  # no step but the last one
    assert scored[:, last].all()
    assert any("ended early for 3 queries (the first at step 11)" in text for text in scores.diagnostics["warnings"])
    assert not fitted.diagnostics["warnings"]  # such a warning belongs to the answer
    assert any(f"for {N} queries" in text for text in fitted.self_influence().diagnostics["warnings"])
    assert np.abs(scored - expected).max() > 0
    every_step = recorded(model, train, tmp_path / "all")
    assert np.allclose(uw.SOURCE().fit(every_step, train).attribute(queries).values, exact(model, train, queries))


def exact(model: uw.TorchModel, train: uw.Examples, queries: uw.Examples) -> np.ndarray:
    return uw.Metagradient(at="full", removals=0).fit(model, train).attribute(queries).values


def test_examples_in_no_step_are_reported_and_the_initial_checkpoint_is_needed(data: Any, tmp_path: Any) -> None:
    train, queries = data
    for folder, kind in (("start", FittedSteps), ("none", FittedSOURCE)):
        net = fresh()
        optimiser, trajectory = torch.optim.SGD(net.parameters(), lr=0.1), uw.Trajectory(tmp_path / folder, every=2)
        if folder == "start":
            trajectory.save(net, optimiser)
        for _ in range(6):
            trajectory.record(net, optimiser, batch=np.arange(1, N))
        fitted = uw.SOURCE().fit(uw.TorchModel(net, loss, trajectory=trajectory), train)
        assert isinstance(fitted, kind)
        if kind is FittedSteps:
            assert not fitted.attribute(queries).values[:, 0].any()
            assert any("1 of 20 examples took part in no step" in text for text in fitted.diagnostics["warnings"])
