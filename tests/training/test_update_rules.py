"""Update rules of the user, and what parameter groups and other settings of a training refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import upweight as uw

N = 12
RNG = np.random.default_rng(0)
TRAIN = uw.Examples(RNG.normal(size=(N, 4)), RNG.integers(0, 3, N))
QUERIES = uw.Examples(RNG.normal(size=(2, 4)), [0, 1])


def loss(net: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")


def fresh(seed: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def trained(**settings: Any) -> uw.TorchModel:
    training = uw.Training(**{"lr": 0.02, "epochs": 3, "batch_size": 4, **settings})
    return uw.TorchModel.trained(fresh, loss, TRAIN, training=training)


def lion(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], lr: float, t: int) -> Any:
    update = (0.9 * state["m"] + 0.1 * gradient).sign()
    return parameter - lr * (update + 0.01 * parameter), {"m": 0.99 * state["m"] + 0.01 * gradient}


def adam(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], lr: float, t: int) -> Any:
    m, s = 0.9 * state["m"] + 0.1 * gradient, 0.999 * state["s"] + 0.001 * gradient.square()
    step = (m / (1 - 0.9 ** (t + 1))) / ((s / (1 - 0.999 ** (t + 1)) + 1e-8).sqrt())
    return parameter - lr * step, {"m": m, "s": s}


def orthogonal(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], lr: float, t: int) -> Any:
    """A step of Newton and Schulz towards the polar factor of matrices, which needs their shape."""
    if gradient.ndim == 2:
        gradient = gradient / (gradient.norm() + 1e-3)
        gradient = 1.5 * gradient - 0.5 * gradient @ gradient.T @ gradient
    return parameter - lr * gradient, {}


def in_place(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], lr: float, t: int) -> Any:
    return parameter - lr * torch.from_numpy(gradient.numpy() * 2), {}


def without_state(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], lr: float, t: int) -> Any:
    return parameter - lr * gradient, {}


def test_a_rule_by_signs_is_retrained_and_has_no_derivative() -> None:
    model = trained(optimiser=uw.UpdateRule(lion, ("m",)))
    weights = np.ones((2, N))
    weights[1, 3] = 0.0
    assert uw.retrain(model, TRAIN, weights).measure(QUERIES).shape == (2, 2)
    with pytest.raises(ValueError, match=r"rules by signs.*Use a method that retrains"):
        uw.Metagradient(at="full", removals=0).fit(model, TRAIN)


def test_a_rule_that_torch_cannot_follow_is_refused() -> None:
    model = trained(optimiser=uw.UpdateRule(in_place))
    with pytest.raises(ValueError, match="cannot be differentiated"):
        model.replay(TRAIN, np.ones(N))
    with pytest.raises(ValueError, match=r"a dict of the state \('m',\)"):
        trained(optimiser=uw.UpdateRule(without_state, ("m",)))
    with pytest.raises(TypeError, match="expected step"):
        uw.UpdateRule("lion")  # type: ignore[arg-type]


def overwrites_the_state(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], lr: float, t: int) -> Any:
    return parameter - lr * state["m"].mul_(0.9).add_(gradient), state


def overwrites_the_parameter(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], lr: float, t: int) -> Any:
    return parameter.sub_(lr * gradient), state


@pytest.mark.parametrize("rule", [overwrites_the_state, overwrites_the_parameter])
def test_a_rule_that_overwrites_its_arguments_is_refused_by_derivatives(rule: Any) -> None:
    model = trained(optimiser=uw.UpdateRule(rule, ("m",)))
    with pytest.raises(ValueError, match=r"overwrites one of its arguments.*return new tensors"):
        uw.Metagradient(at="full", removals=0).fit(model, TRAIN).attribute(QUERIES)


def test_a_rule_has_to_return_a_pair() -> None:
    with pytest.raises(ValueError, match=r"to return \(parameter, state\), got Tensor"):
        trained(optimiser=uw.UpdateRule(lambda parameter, gradient, state, lr, t: parameter - lr * gradient))


def test_adam_as_a_rule_gives_the_scores_of_adam() -> None:
    recipe = uw.Metagradient(at="full", removals=0)
    models = [
        trained(optimiser=uw.UpdateRule(adam, ("m", "s"))),
        trained(optimiser="adam", eps=0.0, eps_root=1e-8),
    ]
    own, built_in = (recipe.fit(model, TRAIN).attribute(QUERIES).values for model in models)
    assert np.abs(own - built_in).max() <= 1e-10 * np.abs(built_in).max()


def test_a_rule_sees_the_shapes_of_the_parameters() -> None:
    model = trained(optimiser=uw.UpdateRule(orthogonal), groups=[uw.ParameterGroup(parameters="2", lr=0.05)])
    values = uw.Metagradient(at="full", removals=0).fit(model, TRAIN).attribute(QUERIES).values

    def measured(by: float) -> np.ndarray:
        return model.retrain(TRAIN, np.where(np.arange(N) == 4, 1 + by, 1.0)).measure(QUERIES)

    slopes = (measured(1e-5) - measured(-1e-5)) / 2e-5
    assert np.allclose(values[:, 4], slopes, rtol=0, atol=1e-6 * np.abs(values).max())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a pattern that matches nothing": (
        {"groups": [uw.ParameterGroup(parameters="head")]},
        "'head', which matches none",
    ),
    "a parameter in two groups": (
        {"groups": [uw.ParameterGroup(parameters="*.bias"), uw.ParameterGroup(parameters="0")]},
        "'0.bias' in two",
    ),
    "rates of another length": ({"groups": [uw.ParameterGroup(parameters="0", lr=[0.1, 0.2])]}, "for every step"),
    "counts of other examples": ({"counts": [1.0, 2.0]}, "for each of 12 examples, got 2"),
    "counts below 0": ({"counts": [-1.0] * N}, "one number ≥ 0"),
    "batches and accumulation": ({"epochs": None, "batches": [[0], [1]], "accumulate": 2}, "leave accumulate out"),
    "an average that forgets nothing": ({"ema": 1.0}, r"in \[0, 1\)"),
    "momentum of adam": ({"optimiser": "adam", "momentum": 0.9}, "not of adam"),
    "nesterov of rmsprop": (
        {"optimiser": "rmsprop", "momentum": 0.9, "nesterov": True},
        "nesterov is a setting of sgd",
    ),
    "a centre of sgd": ({"centred": True}, "centred is a setting of rmsprop"),
    "another mean": ({"mean_over": "epoch"}, "mean_over to be one of"),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.values(), ids=REFUSED)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trained(**settings)


def test_groups_are_parameter_groups_and_decay_is_not_negative() -> None:
    with pytest.raises(TypeError, match=r"uw\.ParameterGroup"):
        uw.Training(lr=0.1, epochs=1, groups=[{"params": "0"}])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="weight_decay to be a number ≥ 0"):
        uw.ParameterGroup(parameters="0", weight_decay=-1.0)


def test_a_clipped_adjoint_is_not_taken_of_an_average() -> None:
    model = trained(ema=0.9)
    with pytest.raises(ValueError, match="Leave clip out"):
        uw.Metagradient(at="full", removals=0, clip=0.99).fit(model, TRAIN).attribute(QUERIES)
