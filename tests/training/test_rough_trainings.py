"""Derivatives through a training that does not respond smoothly to its examples are marked; calm ones have no mark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import upweight as uw
from upweight.core.checkpoints import Stepwise
from upweight.methods.parts.repeated_removals import Effects, RepeatedRemovals, removal_facts

N, QUERIES, BATCH, EPOCHS = 100, 8, 20, 8
DIGITS = load_digits()
X, Y = torch.as_tensor(DIGITS.data / 16.0), torch.as_tensor(DIGITS.target)
TRAIN = uw.Examples(X[:N].numpy(), Y[:N].numpy())
ASKED = uw.Examples(X[N : N + QUERIES].numpy(), Y[N : N + QUERIES].numpy())
BATCHES = [b for _ in range(EPOCHS) for b in np.split(np.random.default_rng(0).permutation(N), N // BATCH)]
PLAIN = lambda: nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))  # noqa: E731
NORMED = lambda: nn.Sequential(nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10))  # noqa: E731
MOMENTUM, ADAM = {"momentum": 0.9}, {"kind": torch.optim.Adam}


class Unlabelled(uw.Trajectory):
    """A trajectory that never learns which examples a step takes."""

    def record(self, net: Any, optimiser: Any, **_: Any) -> None:
        super().record(net, optimiser)


def losses(net: nn.Module, batch: Any) -> Tensor:
    return functional.cross_entropy(net(batch.x), batch.y, reduction="none")


def trained(make: Any, rate: float, settings: Any, weights: Tensor, trajectory: Any = None) -> nn.Module:
    """The net after a plain loop, with one weight for every example."""
    torch.manual_seed(0)
    net = make().double().train()
    options = {"kind": torch.optim.SGD, **settings}
    optimiser = options.pop("kind")(net.parameters(), lr=rate, **options)
    if trajectory is not None:
        trajectory.save(net, optimiser)
    for batch in BATCHES:
        optimiser.zero_grad()
        (functional.cross_entropy(net(X[batch]), Y[batch], reduction="none") * weights[batch]).sum().div(
            BATCH
        ).backward()
        optimiser.step()
        if trajectory is not None:
            trajectory.record(net, optimiser, batch=batch)
    return net.eval()


def measured(net: nn.Module) -> Tensor:
    with torch.no_grad():
        return -functional.cross_entropy(net(X[N : N + QUERIES]), Y[N : N + QUERIES], reduction="none")


def explained(folder: Path, recipe: uw.SOURCE, *training: Any) -> tuple[uw.Scores, float]:
    """Scores, and their correlation with leaving out single examples in the plain loop."""
    net = trained(*training, torch.ones(N, dtype=X.dtype), uw.Trajectory(folder))
    model = uw.TorchModel(net, losses, trajectory=uw.Trajectory(folder))
    scores, base, effects = recipe.fit(model, TRAIN).attribute(ASKED), measured(net), []
    for example in range(0, N, 10):
        weights = torch.ones(N, dtype=X.dtype)
        weights[example] = 0.0
        effects.append(base - measured(trained(*training, weights)))
    actual = torch.stack(effects, dim=1).numpy()
    return scores, float(np.corrcoef(actual.ravel(), scores.values[:, ::10].ravel())[0, 1])


@pytest.mark.sweep(2)
@pytest.mark.parametrize(
    ("make", "rate", "settings"),
    [(PLAIN, 0.1, {}), (PLAIN, 1e-3, ADAM), (NORMED, 0.1, {})],
    ids=["sgd", "adam", "batch norm"],
)
def test_a_calm_training_has_no_warning(tmp_path, make, rate, settings):
    scores, correlation = explained(tmp_path, uw.SOURCE(), make, rate, settings)
    assert correlation > 0.8
    assert scores.diagnostics["agreement"] > 0.8 and scores.diagnostics["removals"] <= 4
    assert scores.diagnostics["warnings"] == []


@pytest.mark.sweep(3)
@pytest.mark.parametrize("curvature", [None, uw.EKFAC()], ids=["gauss-newton", "ek-fac"])
@pytest.mark.parametrize(("rate", "settings"), [(0.1, {}), (0.03, MOMENTUM)], ids=["sgd", "momentum"])
def test_segments_of_a_calm_training_have_no_warning(tmp_path, rate, settings, curvature):
    scores, correlation = explained(tmp_path, uw.SOURCE(curvature=curvature, segments=3), PLAIN, rate, settings)
    assert correlation > 0.8
    assert scores.diagnostics["agreement"] > 0.8 and scores.diagnostics["removals"] <= 4
    assert scores.diagnostics["warnings"] == []


@pytest.mark.parametrize(
    ("make", "rate", "settings"),
    [(PLAIN, 0.3, MOMENTUM), (NORMED, 3.0, {})],
    ids=["momentum", "batch norm"],
)
def test_a_rough_training_is_marked(tmp_path, make, rate, settings):
    scores, correlation = explained(tmp_path, uw.SOURCE(), make, rate, settings)
    assert correlation < 0.5
    (warning,) = scores.diagnostics["warnings"]
    assert "contradicts these scores" in warning and "do not act on single examples" in warning


@pytest.mark.sweep(2)
@pytest.mark.parametrize("curvature", [None, uw.EKFAC()], ids=["gauss-newton", "ek-fac"])
@pytest.mark.parametrize(("rate", "settings"), [(0.3, MOMENTUM), (0.03, ADAM)], ids=["momentum", "adam"])
def test_segments_that_do_not_describe_a_training_are_marked(tmp_path, rate, settings, curvature):
    scores, correlation = explained(tmp_path, uw.SOURCE(curvature=curvature, segments=3), PLAIN, rate, settings)
    assert correlation < 0.5
    (warning,) = scores.diagnostics["warnings"]
    assert "contradicts these scores" in warning and "Segments of constant curvature do not describe" in warning


def test_segments_without_recorded_batches_say_that_nothing_was_compared(tmp_path):
    net = trained(PLAIN, 0.3, MOMENTUM, torch.ones(N, dtype=X.dtype), Unlabelled(tmp_path))
    fitted = uw.SOURCE().fit(uw.TorchModel(net, losses, trajectory=uw.Trajectory(tmp_path)), TRAIN)
    for scores in (fitted.attribute(ASKED), fitted.self_influence()):
        assert (
            scores.diagnostics["removals"] == 0
            and "need the examples of every step" in scores.diagnostics["not_compared"]
        )
        assert scores.diagnostics["warnings"] == []


def test_scores_of_some_modules_are_not_compared(tmp_path):
    net = trained(PLAIN, 0.1, {}, torch.ones(N, dtype=X.dtype), uw.Trajectory(tmp_path))
    model = uw.TorchModel(net, losses, trajectory=uw.Trajectory(tmp_path))
    assert "some modules" in uw.SOURCE(modules="last").fit(model, TRAIN).attribute(ASKED).diagnostics["not_compared"]


def test_the_removals_are_those_of_a_plain_loop(tmp_path):
    net = trained(NORMED, 0.1, {}, torch.ones(N, dtype=X.dtype), uw.Trajectory(tmp_path))
    fitted = uw.SOURCE().fit(uw.TorchModel(net, losses, trajectory=uw.Trajectory(tmp_path)), TRAIN)
    assert (fitted.removals.left_out.sum(axis=1) == 2).all()  # 2 % of the examples
    effects = fitted.removals.effects(ASKED, np.zeros((QUERIES, 8)))
    assert effects.repeated is not effects.measured and effects.actual.shape == (QUERIES, 4)
    assert np.allclose(effects.repeated, effects.measured, atol=1e-10)
    for column, left_out in enumerate(fitted.removals.left_out[:4]):
        again = measured(trained(NORMED, 0.1, {}, torch.as_tensor(1.0 - left_out)))
        assert np.allclose(effects.actual[:, column], (measured(net) - again).numpy(), atol=1e-10)


def test_what_a_training_did_between_the_checked_steps_is_seen_at_its_end(tmp_path):
    def averaged_net(trajectory):
        torch.manual_seed(0)
        net = PLAIN().double().train()
        optimiser, average = torch.optim.SGD(net.parameters(), lr=0.1), torch.optim.swa_utils.AveragedModel(net)
        trajectory.save(net, optimiser)
        for t, batch in enumerate(BATCHES):
            optimiser.zero_grad()
            functional.cross_entropy(net(X[batch]), Y[batch]).backward()
            optimiser.step()
            average.update_parameters(net)
            if t == len(BATCHES) - 1:
                net.load_state_dict(average.module.state_dict())
            trajectory.record(net, optimiser, batch=batch)
        return net.eval()

    net = averaged_net(uw.Trajectory(tmp_path, every=4))  # the step after each checkpoint is as recorded
    scores = uw.SOURCE().fit(uw.TorchModel(net, losses, trajectory=uw.Trajectory(tmp_path)), TRAIN).attribute(ASKED)
    assert any("does not end at the recorded net" in warning for warning in scores.diagnostics["warnings"])


@pytest.mark.parametrize("segments", [None, 3])
def test_self_influence_is_marked_too(tmp_path, segments):
    net = trained(PLAIN, 0.3, MOMENTUM, torch.ones(N, dtype=X.dtype), uw.Trajectory(tmp_path))
    model = uw.TorchModel(net, losses, trajectory=uw.Trajectory(tmp_path))
    (warning,) = uw.SOURCE(segments=segments).fit(model, TRAIN).self_influence().diagnostics["warnings"]
    assert "contradicts these scores" in warning


class Trainings(Stepwise):
    """Steps that train a model which measures the same for every query, plus noise of their own."""

    def __init__(self, effect: float, noise: float) -> None:
        self.effect, self.noise, self.made = effect, noise, 0

    def retrained(self, model: Any, weights: Any) -> Any:
        self.made += len(weights)
        rng = np.random.default_rng(self.made)
        return [Constant(1.0 - self.effect * (1.0 - row).sum(), self.noise, rng) for row in weights]

    def gradients(self, rows: Any) -> Any:
        raise NotImplementedError


class Constant:
    def __init__(self, value: float, noise: float = 0.0, rng: Any = None) -> None:
        self.value, self.noise, self.rng = value, noise, rng

    def measure(self, queries: Any) -> Any:
        value = np.full(len(queries), self.value)
        return value + self.noise * self.rng.normal(size=len(queries)) if self.noise else value


@pytest.mark.parametrize(("queries", "most"), [(1, 4), (2, 2), (8, 1)])
def test_a_sure_verdict_takes_few_trainings(queries, most):
    steps = Trainings(0.1, 0.01)
    queried, predicted = ASKED.take(np.arange(queries)), np.full((queries, 8), 0.2)
    effects = RepeatedRemovals(Constant(1.0), TRAIN, steps).effects(queried, predicted)
    assert steps.made == most and effects.agreement > 0.9
    steps = Trainings(0.1, 1.0)
    RepeatedRemovals(Constant(1.0), TRAIN, steps).effects(queried, predicted)
    assert steps.made == (9 if queries < 4 else 5)


def test_effects_of_the_size_of_rounding_say_nothing():
    effects = 1e-9 * np.random.default_rng(0).normal(size=(2, 3, 4))
    ones = np.ones(3)
    assert "rounding" in removal_facts(Effects(ones, ones + 1e-9, *effects), "")["not_compared"]
    (warning,) = removal_facts(Effects(ones, ones + 1e-9, *(1e9 * effects)), "Beware.")["warnings"]
    assert "contradicts these scores" in warning and warning.endswith("Beware.")
    assert removal_facts(Effects(ones, ones, *np.empty((2, 3, 0))), "")["removals"] == 0
