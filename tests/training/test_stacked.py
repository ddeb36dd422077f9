import numpy as np
import pytest
import torch
from torch import nn

from support.network_families import Transformer
from support.small_trainings import N, convolving, dropping, fresh, model, train
from upweight.training import stacked, stacked_operations, trainer
from upweight.training.traced_step import UntraceableError, trace

RNG = np.random.default_rng(0)
SUBSETS = (RNG.uniform(size=(5, N)) < 0.7) * RNG.uniform(0.5, 1.5, (5, N))
SGD = {"momentum": 0.9, "weight_decay": 0.01, "schedule": "linear", "clip": 1.0}
ADAM = {"optimiser": "adamw", "lr": 0.01, "weight_decay": 0.1}


@pytest.fixture(params=[2, 1000], ids=["traced", "by python"])
def min_traced_steps(request):
    """Trace the steps of a shape if there are two of them, or never."""
    return request.param


def attending(seed):
    return Transformer().double()


class Cooling(nn.Module):
    """Counts its steps in Python, which a trace does not see; after the given step its outputs change."""

    def __init__(self, since):
        super().__init__()
        self.linear, self.since, self.steps = nn.Linear(64, 3).double(), since, 0

    def forward(self, x):
        self.steps += self.training
        return self.linear(x) * (2.0 if self.steps > self.since else 1.0)


class Branching(nn.Module):
    """Branches in Python on the values of the batch."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 3).double()

    def forward(self, x):
        return self.linear(x) * (2.0 if x.mean() > 0 else 1.0)


class SharedGradient(nn.Module):
    """Two parameters with the same gradient, and one without a gradient."""

    def __init__(self):
        super().__init__()
        self.linear, self.more = nn.Linear(64, 3).double(), nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.idle = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, x):
        return self.linear(x) + self.more


def one_by_one(trained, weights, seeds):
    return np.stack([trained.retrain(train(), w, s).parameters for w, s in zip(weights, seeds, strict=True)])


def together(trained, weights, seeds, min_traced_steps=stacked.MIN_TRACED_STEPS):
    nets = trainer.train_networks(
        trained.training, trained.network, train(), weights, seeds, min_traced_steps=min_traced_steps
    )
    return np.stack([trained.with_net(net).parameters for net in nets])


@pytest.mark.sweep(3)
@pytest.mark.parametrize("settings", [SGD, ADAM], ids=["sgd", "adamw"])
@pytest.mark.parametrize("make", [fresh, dropping, convolving, attending])
def test_copies_trained_together_are_those_trained_alone(make, settings, min_traced_steps):
    trained = model(make, **settings)
    assert trained.stack(train()).size > 1
    stacked_parameters = together(trained, SUBSETS, [0] * 5, min_traced_steps)
    assert np.allclose(stacked_parameters, one_by_one(trained, SUBSETS, [0] * 5), rtol=0, atol=1e-10)
    assert np.array_equal(stacked_parameters, together(trained, SUBSETS, [0] * 5, min_traced_steps))


def test_retrain_many_trains_the_copies_together():
    trained = model(fresh, **SGD)
    retrained = [m.parameters for m in trained.retrain_many(train(), SUBSETS, [0] * 5)]
    assert np.array_equal(retrained, together(trained, SUBSETS, [0] * 5))


def test_copies_of_other_seeds_begin_elsewhere_and_take_other_batches(min_traced_steps):
    trained = model(fresh, **SGD)
    seeds = [0, 1, 2, 1, 0]
    stacked_parameters = together(trained, SUBSETS, seeds, min_traced_steps)
    assert np.allclose(stacked_parameters, one_by_one(trained, SUBSETS, seeds), rtol=0, atol=1e-10)


def test_copies_with_different_random_numbers_or_batch_sizes_are_trained_too(min_traced_steps):
    trained, seeds = model(dropping, **SGD), [0, 1, 0]
    stacked_parameters = together(trained, SUBSETS[:3], seeds, min_traced_steps)
    assert np.allclose(stacked_parameters, one_by_one(trained, SUBSETS[:3], seeds), rtol=0, atol=1e-10)
    trained, weights = model(fresh, denominator="rebatched", **SGD), np.ones((3, N))
    weights[0, :8], weights[1, 3:30] = 0, 0
    stacked_parameters = together(trained, weights, [0] * 3, min_traced_steps)
    assert np.allclose(stacked_parameters, one_by_one(trained, weights, [0] * 3), rtol=0, atol=1e-10)


def test_a_copy_does_not_depend_on_the_other_copies(min_traced_steps):
    trained = model(fresh, **SGD)
    alone = together(trained, SUBSETS[2:3], [0], min_traced_steps)
    # One matrix may be multiplied by another kernel than five of them, to other last bits.
    assert np.abs(together(trained, SUBSETS, [0] * 5, min_traced_steps)[2] - alone[0]).max() <= 1e-13


@pytest.mark.sweep(3)
@pytest.mark.parametrize("denominator", ["fixed", "renormalised", "rebatched"])
def test_every_meaning_of_removal_is_the_same_together(denominator, min_traced_steps):
    trained = model(fresh, denominator=denominator, **SGD)
    weights = np.ones((3, N))
    weights[0, :8] = weights[1, 20:28] = weights[2, 30:38] = 0
    stacked_parameters = together(trained, weights, [0] * 3, min_traced_steps)
    assert np.allclose(stacked_parameters, one_by_one(trained, weights, [0] * 3), rtol=0, atol=1e-10)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("since", [1, 4, 8])
def test_steps_that_differ_in_python_are_all_made_by_python(since, min_traced_steps):
    trained = model(lambda seed: Cooling(since), **SGD)
    same = model(lambda seed: Cooling(since), **SGD)
    stacked_parameters = together(trained, SUBSETS[:2], [0, 0], min_traced_steps)
    assert np.allclose(stacked_parameters, one_by_one(same, SUBSETS[:2], [0, 0]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("make", [Branching, SharedGradient])
def test_nets_with_branches_and_with_shared_or_missing_gradients(make, min_traced_steps):
    trained = model(lambda seed: make(), **SGD)
    stacked_parameters = together(trained, SUBSETS[:2], [0, 0], min_traced_steps)
    assert np.allclose(stacked_parameters, one_by_one(trained, SUBSETS[:2], [0, 0]), rtol=0, atol=1e-10)


def test_plain_cross_entropies_are_computed_for_the_whole_stack(monkeypatch):
    calls, compute = [], stacked_operations._cross_entropy
    monkeypatch.setattr(stacked_operations, "_cross_entropy", lambda *given: calls.append(1) or compute(*given))
    together(model(fresh, **SGD), SUBSETS[:2], [0, 0])
    assert calls


def test_most_steps_repeat_a_trace(monkeypatch, min_traced_steps):
    calls, gradient = [], stacked.StackedRuns.gradient
    monkeypatch.setattr(stacked.StackedRuns, "gradient", lambda *given: calls.append(1) or gradient(*given))
    together(model(fresh, epochs=20, batch_size=20, **SGD), SUBSETS[:2], [0, 0], min_traced_steps)
    # Two calls make the trace, and two compare it with Python at the second and at the last step.
    assert len(calls) == (4 if min_traced_steps == 2 else 40)


def test_a_trace_repeats_the_call_and_refuses_shapes_that_depend_on_numbers():
    weight, x = torch.randn(3, 3), torch.randn(5, 3)

    def work(fixed, inputs):
        columns = inputs[0].clone().mul_(2.0)[:, [0, 2]]
        return [columns @ fixed[0].T[:, :2].T, *torch.split(inputs[0], [1, 4]), torch.rand(2)]

    repeat, other = trace(work, [weight], [x]), torch.randn(5, 3)
    weight.add_(1.0)
    torch.manual_seed(0)
    outputs = repeat(other)
    torch.manual_seed(0)
    assert all(torch.equal(a, b) for a, b in zip(outputs, work([weight], [other]), strict=True))
    with pytest.raises(UntraceableError):
        trace(lambda fixed, inputs: [inputs[0][inputs[0] > 0]], [weight], [x])
