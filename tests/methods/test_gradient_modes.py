"""Every method answers the same inside a caller's `torch.inference_mode()` or `torch.no_grad()`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import upweight as uw
from support.token_nets import language_model, sequences

MODES = [torch.inference_mode, torch.no_grad]
X, Y = np.random.default_rng(0).normal(size=(24, 5)), np.arange(24) % 3
TRAIN = uw.Examples(X, Y)
QUERIES = TRAIN.take([0, 1, 5])
CURVATURES = [
    uw.GaussNewton(), uw.Hessian(), uw.Hessian(solver=uw.LiSSA(depth=20)), uw.Hessian(solver=uw.Arnoldi(rank=5)),
    uw.EmpiricalFisher(), uw.Diagonal(), uw.KFAC(), uw.DataInf(), uw.Identity(),
]  # fmt: skip


def fresh(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 3)).double()


def cross_entropy(net: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


OTHER_MODELS = (uw.BM25, uw.RepresenterPoints)  # they take texts, and nets that end in a linear head with l2


def recipes() -> Iterator[Any]:
    """Every method that a net with a recorded training can have, with its variants, and every curvature."""
    for name, method in uw.methods().items():
        if method in OTHER_MODELS or not all(issubclass(uw.TorchModel, need) for need in method.needs):
            continue
        for settings, given in {"default": {}, **method.variants}.items():
            yield pytest.param(method(**given), id=f"{name}-{settings}")
    for curvature in CURVATURES:
        yield pytest.param(uw.Influence(curvature=curvature, damping=0.1), id=f"influence-{curvature}")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> uw.TorchModel:
    """A net with its recorded training, which can be followed and repeated."""
    net, folder = fresh(0), tmp_path_factory.mktemp("run")
    optimiser, trajectory = torch.optim.SGD(net.parameters(), lr=0.1), uw.Trajectory(folder)
    trajectory.save(net, optimiser)
    for step in range(4):
        ids = np.arange(step % 2, 24, 2)
        optimiser.zero_grad()
        F.cross_entropy(net(torch.as_tensor(X[ids])), torch.as_tensor(Y[ids])).backward()
        optimiser.step()
        trajectory.record(net, optimiser, batch=ids)
    recorded = uw.Trajectory(folder)
    return uw.TorchModel(net, cross_entropy, training=recorded.training(TRAIN), trajectory=recorded)


def answers(fitted: uw.Fitted) -> list[np.ndarray]:
    top = fitted.top(QUERIES, 3)
    return [fitted.attribute(QUERIES).values, fitted.self_influence().values, top.values]


@pytest.mark.sweep(6)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("recipe", list(recipes()))
def test_every_method_answers_the_same_inside_a_mode_without_gradients(recipe, mode, model):
    fitted = recipe.fit(model, TRAIN)
    expected = answers(fitted)
    with mode():
        inside = [*answers(fitted), *answers(recipe.fit(model, TRAIN))]
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
        assert not torch.is_grad_enabled()
    for found, wanted in zip(inside, [*expected, *expected], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-12)


def scores(model: uw.TorchModel) -> uw.Scores:
    return uw.GradDot().fit(model, TRAIN).attribute(QUERIES)


GROUPS = {"a": [0], "b": [2, 3], "c": [7]}
CALLS: dict[str, Callable[[uw.TorchModel], Any]] = {
    "retraining": lambda m: m.retrain(TRAIN, np.ones(24)).parameters,
    "another training": lambda m: (
        uw.TorchModel.trained(
            m.network.net, cross_entropy, TRAIN, training=uw.Training(lr=0.1, epochs=1, batch_size=8)
        ).parameters
    ),
    "other parameters": lambda m: m.with_parameters(m.parameters + 1).loss_rows(TRAIN).dense(),
    "prototypes": lambda m: uw.prototypes(m, TRAIN, k=3, kernel=uw.FisherKernel()).values,
    "perturb": lambda m: uw.perturb(m, TRAIN, QUERIES).gradients,
    "pbrf": lambda m: uw.pbrf(m, TRAIN, QUERIES, GROUPS, steps=20).after,
    "influence_gap": lambda m: uw.influence_gap(m, TRAIN, QUERIES, scores(m), GROUPS).effects["linearisation"],
    "follow": lambda m: uw.follow(m, TRAIN, QUERIES, scores(m)).contributions,
    "slices": lambda m: uw.slices(m, TRAIN, QUERIES, {"side": X[:, 0] > 0}, removals=0).effects,
    "forget": lambda m: uw.forget(m, TRAIN, [0, 1], compare=False).model.parameters,
    "reweight": lambda m: uw.reweight(m, TRAIN, uw.Examples(X[:6] + 0.1, Y[:6])).weights,
}


@pytest.mark.sweep(4)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "call", [pytest.param(call, marks=[pytest.mark.slow] * (call == "influence_gap")) for call in CALLS]
)
def test_applications_answer_the_same_inside_a_mode_without_gradients(call, mode, model):
    expected = CALLS[call](model)
    with mode():
        found = CALLS[call](model)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("by", ["target", "position"])
def test_token_scores_are_the_same_inside_inference_mode(by):
    train = sequences()
    fitted = uw.GradDot().fit(language_model(), train)
    expected = uw.token_scores(fitted, train.take([0]), by=by).to_pandas()["score"]
    with torch.inference_mode():
        found = uw.token_scores(fitted, train.take([0]), by=by).to_pandas()["score"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.double(),
        lambda net: net.load_state_dict({name: p.clone() for name, p in net.state_dict().items()}, assign=True),
        lambda net: net.register_buffer("scale", torch.ones(5)),
    ],
    ids=["cast", "loaded", "buffer"],
)
def test_tensors_of_a_net_without_gradients_are_refused(change):
    net = nn.Linear(5, 3)
    with torch.inference_mode():
        change(net)
    with pytest.raises(ValueError, match=r"'(weight|scale)' was made, loaded or cast inside torch.inference_mode"):
        uw.TorchModel(net, cross_entropy)
    outside = uw.TorchModel(copy.deepcopy(net).double(), cross_entropy)
    assert uw.GradDot().fit(outside, TRAIN).attribute(QUERIES).values.any()


@pytest.mark.parametrize("recipe", [uw.Influence(damping=0.1), uw.GradDot(), uw.LeaveOneOut()])
def test_data_that_are_tensors_without_gradients_are_data(recipe, model):
    with torch.inference_mode():
        x, y = torch.tensor(X), torch.tensor(Y)
    tensors = uw.Examples(x, y), uw.Examples(x[:3], y[:3])
    expected = recipe.fit(model, TRAIN).attribute(TRAIN.take(np.arange(3))).values
    found = recipe.fit(model, tensors[0]).attribute(tensors[1]).values
    np.testing.assert_allclose(found, expected, rtol=1e-9)
