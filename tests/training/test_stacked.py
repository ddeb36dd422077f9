import numpy as np
import pytest
import torch
from recipes import N, convolving, dropping, fresh, model, train
from torch import nn

from network_families import Transformer
from upweight.training import stacked, stacked_operations
from upweight.training.traced_step import UntraceableError, trace

RNG = np.random.default_rng(0)
SUBSETS = (RNG.uniform(size=(5, N)) < 0.7) * RNG.uniform(0.5, 1.5, (5, N))
SGD = {"momentum": 0.9, "weight_decay": 0.01, "schedule": "linear", "clip": 1.0}
ADAM = {"optimiser": "adamw", "lr": 0.01, "weight_decay": 0.1}


@pytest.fixture(params=[2, 1000], ids=["taped", "by python"], autouse=True)
def taping(request, monkeypatch):
    """Steps by tape from the second of a shape on, or never."""
    monkeypatch.setattr(stacked, "TAPED", request.param)
    return request.param == 2


def attending(seed):
    return Transformer().double()


class Cooling(nn.Module):
    """Counts its steps in Python, which no tape sees: from the given one on its outputs are others."""

    def __init__(self, since):
        super().__init__()
        self.linear, self.since, self.steps = nn.Linear(64, 3).double(), since, 0

    def forward(self, x):
        self.steps += self.training
        return self.linear(x) * (2.0 if self.steps > self.since else 1.0)


class Branching(nn.Module):
    """Asks the batch a question in Python."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 3).double()

    def forward(self, x):
        return self.linear(x) * (2.0 if x.mean() > 0 else 1.0)


class Twice(nn.Module):
    """Two parameters with one gradient between them, and one without any."""

    def __init__(self):
        super().__init__()
        self.linear, self.more = nn.Linear(64, 3).double(), nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.idle = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, x):
        return self.linear(x) + self.more


def one_by_one(trained, weights, seeds):
    return np.stack([trained.retrain(train(), w, s).parameters for w, s in zip(weights, seeds, strict=True)])


def together(trained, weights, seeds):
    return np.stack([m.parameters for m in trained.retrain_many(train(), weights, seeds)])


@pytest.mark.parametrize("settings", [SGD, ADAM], ids=["sgd", "adamw"])
@pytest.mark.parametrize("make", [fresh, dropping, convolving, attending])
def test_copies_trained_together_are_those_trained_alone(make, settings):
    trained = model(make, **settings)
    assert trained.stack(train()).size > 1
    found = together(trained, SUBSETS, [0] * 5)
    assert np.allclose(found, one_by_one(trained, SUBSETS, [0] * 5), rtol=0, atol=1e-10)
    assert np.array_equal(found, together(trained, SUBSETS, [0] * 5))


def test_copies_of_other_seeds_begin_elsewhere_and_take_other_batches():
    trained = model(fresh, **SGD)
    seeds = [0, 1, 2, 1, 0]
    found = together(trained, SUBSETS, seeds)
    assert np.allclose(found, one_by_one(trained, SUBSETS, seeds), rtol=0, atol=1e-10)


def test_seeds_with_noise_of_their_own_and_subsets_of_other_sizes_are_trained_all_the_same():
    trained, seeds = model(dropping, **SGD), [0, 1, 0]
    found = together(trained, SUBSETS[:3], seeds)
    assert np.allclose(found, one_by_one(trained, SUBSETS[:3], seeds), rtol=0, atol=1e-10)
    trained, weights = model(fresh, denominator="rebatched", **SGD), np.ones((3, N))
    weights[0, :8], weights[1, 3:30] = 0, 0
    assert np.allclose(together(trained, weights, [0] * 3), one_by_one(trained, weights, [0] * 3), rtol=0, atol=1e-10)


def test_a_copy_does_not_depend_on_who_is_trained_beside_it():
    trained = model(fresh, **SGD)
    alone = together(trained, SUBSETS[2:3], [0])
    # One matrix may be multiplied by another kernel than five of them, to other last bits.
    assert np.abs(together(trained, SUBSETS, [0] * 5)[2] - alone[0]).max() <= 1e-13


@pytest.mark.parametrize("denominator", ["fixed", "renormalised", "rebatched"])
def test_every_meaning_of_removal_is_the_same_together(denominator):
    trained = model(fresh, denominator=denominator, **SGD)
    weights = np.ones((3, N))
    weights[0, :8] = weights[1, 20:28] = weights[2, 30:38] = 0
    assert np.allclose(together(trained, weights, [0] * 3), one_by_one(trained, weights, [0] * 3), rtol=0, atol=1e-10)


@pytest.mark.parametrize("since", [1, 4, 8])
def test_steps_that_python_makes_differ_are_all_made_by_python(since):
    trained = model(lambda seed: Cooling(since), **SGD)
    again = model(lambda seed: Cooling(since), **SGD)
    assert np.allclose(
        together(trained, SUBSETS[:2], [0, 0]), one_by_one(again, SUBSETS[:2], [0, 0]), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("make", [Branching, Twice])
def test_nets_with_branches_and_with_shared_or_idle_gradients(make):
    trained = model(lambda seed: make(), **SGD)
    assert np.allclose(
        together(trained, SUBSETS[:2], [0, 0]), one_by_one(trained, SUBSETS[:2], [0, 0]), rtol=0, atol=1e-10
    )


def test_plain_cross_entropies_are_done_for_the_stack(monkeypatch):
    seen, done = [], stacked_operations._cross_entropy
    monkeypatch.setattr(stacked_operations, "_cross_entropy", lambda *given: seen.append(1) or done(*given))
    together(model(fresh, **SGD), SUBSETS[:2], [0, 0])
    assert seen


def test_most_steps_are_played_from_a_tape(monkeypatch, taping):
    asked, gradient = [], stacked.StackedRuns.gradient
    monkeypatch.setattr(stacked.StackedRuns, "gradient", lambda *given: asked.append(1) or gradient(*given))
    together(model(fresh, epochs=20, batch_size=20, **SGD), SUBSETS[:2], [0, 0])
    assert len(asked) == (4 if taping else 40)  # twice for the tape, and at the second and the last step beside it


def test_a_tape_gives_what_the_call_gives_and_refuses_what_depends_on_numbers():
    weight, x = torch.randn(3, 3), torch.randn(5, 3)

    def work(fixed, inputs):
        kept = inputs[0].clone().mul_(2.0)[:, [0, 2]]
        return [kept @ fixed[0].T[:, :2].T, *torch.split(inputs[0], [1, 4]), torch.rand(2)]

    play, other = trace(work, [weight], [x]), torch.randn(5, 3)
    weight.add_(1.0)
    torch.manual_seed(0)
    found = play(other)
    torch.manual_seed(0)
    assert all(torch.equal(a, b) for a, b in zip(found, work([weight], [other]), strict=True))
    with pytest.raises(UntraceableError):
        trace(lambda fixed, inputs: [inputs[0][inputs[0] > 0]], [weight], [x])
