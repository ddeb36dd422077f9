"""On every odd net, the methods over checkpoints of a recorded training give the numbers of autograd."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import upweight as uw
from support.autograd_rows import gradients, is_sentence
from support.layer_nets import LAYER_NETS, REFUSED
from support.odd_nets import ODD_NETS

NETS = {**ODD_NETS, **LAYER_NETS}
RESHAPED = {"buffer that is assigned"}  # no checkpoint holds it
SPARSE = {"sparse embedding", "sparse embedding bag"}  # Adam does not train them
MOMENTUM, EPS, BETAS = 0.7, 1e-4, (0.8, 0.95)
OPTIMISERS: dict[str, Any] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=MOMENTUM),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, betas=BETAS, eps=EPS),
}
CHECKPOINTED = [
    (name, optimiser)
    for name in sorted(set(NETS) - REFUSED - RESHAPED)
    for optimiser in OPTIMISERS
    if optimiser != "adam" or name not in SPARSE
]
QUERIES = [0, 4, 9]


class State(NamedTuple):
    """What a training loop had at a checkpoint: steps, tensors of the net, and the optimiser's by parameter."""

    steps: int
    tensors: dict[str, torch.Tensor]
    moments: dict[str, dict[str, Any]]


class Recorded(NamedTuple):
    """A trained model with its data, and its checkpoints as the loop saw them."""

    optimiser: str
    model: uw.TorchModel
    train: uw.Examples
    states: list[State]

    def expected(self, method: str) -> np.ndarray:
        """Sum over the checkpoints of τ a_q·b_i, with the vectors that the method makes of gradients."""
        total = np.zeros((len(self.train), len(self.train)))
        tensors = dict(tensors_of(self.model.network.net))
        trained = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        for checkpoint, state in zip(self.model.checkpoints(), self.states, strict=True):
            write(tensors, state.tensors)
            rows = gradients(self.model, self.train).detach().numpy()
            of_queries, of_train = rows, rows
            if method != "TracIn":
                of_train = self.updates(rows, state) if method == "LESS" else rows
                of_queries, of_train = normalised(rows), normalised(of_train)
            total += checkpoint.learning_rate_sum * of_queries @ of_train.T
        write(tensors, trained)
        return total

    def updates(self, rows: np.ndarray, state: State) -> np.ndarray:
        """What the optimiser makes of the gradients of single examples at a checkpoint, from Xia et al. (2024)."""
        network = self.model.network

        def vector(kind: str) -> np.ndarray:
            parts = [state.moments[name].get(kind) for name in network.names]
            zeros = [torch.zeros(network.shapes[name]).double() for name in network.names]
            dense = [zero if p is None else p + zero for p, zero in zip(parts, zeros, strict=True)]
            return torch.cat([part.flatten() for part in dense]).numpy()

        if self.optimiser == "adam":
            first, second = (b * vector(kind) for b, kind in zip(BETAS, ("exp_avg", "exp_avg_sq"), strict=True))
            t = vector("step") + 1  # of this parameter, which torch leaves out where a batch does not use it
            first = (first + (1 - BETAS[0]) * rows) / (1 - BETAS[0] ** t)
            second = (second + (1 - BETAS[1]) * rows**2) / (1 - BETAS[1] ** t)
            return first / (np.sqrt(second) + EPS)
        return MOMENTUM * vector("momentum_buffer") + rows


def tensors_of(net: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*net.named_parameters(), *net.named_buffers()]


def write(tensors: dict[str, torch.Tensor], values: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])


def normalised(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def record(name: str, optimiser: str, folder: Path) -> Recorded:
    """Four steps in training mode, with a checkpoint before them and after every second one."""
    untrained, train = NETS[name].model(), NETS[name].examples()
    network, net = untrained.network, untrained.network.net
    rule, trajectory, states = OPTIMISERS[optimiser](net.parameters()), uw.Trajectory(folder, every=2), list[State]()

    def keep(steps: int) -> None:
        moments = {
            n: {k: v.to_dense().clone() for k, v in rule.state.get(p, {}).items() if isinstance(v, torch.Tensor)}
            for n, p in network.parameters().items()
        }
        states.append(State(steps, {n: tensor.detach().clone() for n, tensor in tensors_of(net)}, moments))

    net.train()
    trajectory.save(net, rule)
    keep(0)
    for step in range(4):
        ids = np.arange(step % 3, len(train), 3)
        rule.zero_grad()
        network.loss(net, network.batch(train.take(ids))).mean().backward()
        rule.step()
        trajectory.record(net, rule, batch=ids)
        if step % 2:
            keep(step + 1)
    model = uw.TorchModel(net.eval(), untrained.network.loss, trajectory=uw.Trajectory(folder))
    return Recorded(optimiser, model, train, states)


@pytest.mark.sweep(10)
@pytest.mark.parametrize(("name", "optimiser"), CHECKPOINTED)
def test_methods_over_checkpoints_are_autograds(name: str, optimiser: str, tmp_path: Path) -> None:
    recorded = record(name, optimiser, tmp_path)
    recipes: list[uw.Attributor] = [uw.TracIn(), uw.GAS(), uw.LESS()] if optimiser == "sgd" else [uw.LESS()]
    for recipe in recipes:
        expected = recorded.expected(type(recipe).__name__)
        fitted = recipe.fit(recorded.model, recorded.train)
        scores = fitted.attribute(recorded.train.take(QUERIES)).values
        np.testing.assert_allclose(scores, expected[QUERIES], rtol=1e-7, atol=1e-10 * np.abs(expected).max())
        own = fitted.self_influence().values[0]
        np.testing.assert_allclose(own, np.diag(expected), rtol=1e-7, atol=1e-10 * np.abs(expected).max())


@pytest.mark.sweep(8)
@pytest.mark.parametrize("name", sorted(set(NETS) - REFUSED))
def test_whitened_cosines_are_those_of_autograds_gradients(name: str) -> None:
    model, train = NETS[name].model(), NETS[name].examples()
    rows = gradients(model, train).detach().numpy()
    moments = (rows**2).mean(axis=0)
    rows = np.divide(rows, np.sqrt(moments), out=np.zeros_like(rows), where=moments > 1e-12 * moments.max())
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    white = normalised(rows @ (vectors / np.sqrt(values.clip(0) + 0.1 * values.mean())) @ vectors.T)
    fitted = uw.TrackStar(damping=0.1).fit(model, train)
    scores = fitted.attribute(train.take(QUERIES)).values
    np.testing.assert_allclose(scores, white[QUERIES] @ white.T, atol=1e-8)
    np.testing.assert_allclose(fitted.self_influence().values[0], (white**2).sum(axis=1), atol=1e-8)


def test_checkpoints_of_a_buffer_that_changes_its_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not belong to this net: expected 'last' of shape"):
        record("buffer that is assigned", "sgd", tmp_path)


@pytest.mark.parametrize("name", sorted(SPARSE))
def test_sparse_embeddings_are_trained_as_dense_ones(name: str) -> None:
    net, loss, train = NETS[name].model().network.net, NETS[name].loss, NETS[name].examples()
    training = uw.Training(lr=0.05, epochs=2, batch_size=7, momentum=0.5)
    sparse = uw.TorchModel.trained(net, loss, train, training=training)
    for module in net.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            module.sparse = False
    dense = uw.TorchModel.trained(net, loss, train, training=training)
    np.testing.assert_array_equal(sparse.parameters, dense.parameters)
    scores = [uw.LeaveOneOut().fit(m, train).attribute(train.take([0])).values for m in (sparse, dense)]
    np.testing.assert_allclose(*scores, rtol=1e-9)


# Buffers that a step changes, forward mode that operators lack, nets that cannot be copied.
NO_DERIVATIVE = {
    "embedding bag", "sparse embedding bag", "bag with padding and scale", "derivative in the loss", "weight norm",
    "spectral norm", "packed LSTM", "buffer that counts", "checkpointed", "function with its own gradient",
}  # fmt: skip
NOT_COPIED = {"old weight norm", "buffer that is assigned"}
BUFFERED = {"spectral norm"}  # without its buffers the parameters are no retrained model


@pytest.mark.sweep(12)
@pytest.mark.parametrize("name", sorted(set(NETS) - REFUSED - NOT_COPIED))
def test_retraining_and_its_derivative_agree_or_are_refused_in_a_sentence(name: str) -> None:
    train, queries = NETS[name].examples(), NETS[name].examples().take([0, 1])
    training = uw.Training(lr=0.05, epochs=2, batch_size=7, momentum=0.5)
    model = uw.TorchModel.trained(NETS[name].model().network.net, NETS[name].loss, train, training=training)

    def measured(weight: float) -> np.ndarray:
        return model.retrain(train, np.where(np.arange(len(train)) == 3, weight, 1.0)).measure(queries)

    if name in BUFFERED:
        with pytest.raises(ValueError, match=r"retrain one at a time with model.retrain"):
            uw.LeaveOneOut().fit(model, train)
    else:
        effects = uw.LeaveOneOut().fit(model, train).attribute(queries).values[:, 3]
        np.testing.assert_allclose(effects, model.measure(queries) - measured(0.0), rtol=1e-6, atol=1e-10)
    recipe, step = uw.Metagradient(removals=0, at="full"), 1e-4
    if name in NO_DERIVATIVE:
        with pytest.raises(ValueError, match=r"forward mode|training changes the buffer") as refusal:
            recipe.fit(model, train).attribute(queries)
        assert is_sentence(refusal.value)
        return
    scores = recipe.fit(model, train).attribute(queries).values[:, 3]
    differences = (measured(1 + step) - measured(1 - step)) / (2 * step)
    np.testing.assert_allclose(scores, differences, rtol=1e-4, atol=1e-7)


def test_a_recorded_training_with_hooks_on_gradients_is_not_the_one_that_is_replayed(tmp_path: Path) -> None:
    recorded = record("gradient hook of the user", "sgd", tmp_path)
    warnings = uw.SOURCE().fit(recorded.model, recorded.train).diagnostics["warnings"]
    assert any("not the one that SOURCE replays" in warning for warning in warnings)
