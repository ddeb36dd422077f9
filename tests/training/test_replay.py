import numpy as np
import pytest
import torch

import upweight as uw
from support.small_trainings import N, by_torch, convolving, dropping, fresh, model, queries, train

BATCHES = np.random.default_rng(0).permuted(np.tile(np.arange(N), (3, 1)), axis=1)[:, :36].reshape(9, 12)
WEIGHTS = np.random.default_rng(1).uniform(0, 2, N)
OPTIMISERS = {
    "sgd": ({"optimiser": "sgd"}, lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (
        {"optimiser": "sgd", "momentum": 0.9, "weight_decay": 0.02},
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.02),
    ),
    "nesterov": (
        {"optimiser": "sgd", "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.01),
    ),
    "adam": (
        {"optimiser": "adam", "weight_decay": 0.05, "betas": (0.8, 0.95), "eps": 1e-6},
        lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.05, betas=(0.8, 0.95), eps=1e-6),
    ),
    "adamw": ({"optimiser": "adamw", "weight_decay": 0.05}, lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.05)),
}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("weights", [np.ones(N), WEIGHTS], ids=["ones", "weighted"])
def test_replay_gives_the_numbers_of_torch(name, weights):
    settings, optimiser = OPTIMISERS[name]
    retrained = model(epochs=None, batches=BATCHES, **settings).retrain(train(), weights)
    assert np.allclose(retrained.parameters, by_torch(fresh, optimiser, BATCHES, weights), rtol=0, atol=1e-12)


def test_clipping_and_schedules_give_the_numbers_of_torch():
    _, optimiser = OPTIMISERS["momentum"]
    settings = {"momentum": 0.9, "weight_decay": 0.02, "clip": 0.1}

    def rate(t):
        return (t + 1) / 3 if t < 2 else 1 - (t - 2) / 7

    expected = by_torch(fresh, optimiser, BATCHES, np.ones(N), clip=0.1, schedule=rate)
    for schedule in (
        {"schedule": "linear", "warmup": 2},
        {"lr": [0.1 * rate(t) for t in range(9)]},
    ):
        trained = model(epochs=None, batches=BATCHES, **settings, **schedule)
        assert np.allclose(trained.parameters, expected, rtol=0, atol=1e-12)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("make", [fresh, dropping, convolving])
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_retraining_with_weights_of_one_gives_the_model_bit_for_bit(make, optimiser):
    trained = model(make, optimiser=optimiser, lr=0.05, weight_decay=0.01, seed=3)
    before = trained.parameters
    state = torch.random.get_rng_state()
    retrained = trained.retrain(train(), np.ones(N))
    assert np.array_equal(retrained.parameters, before) and np.array_equal(trained.parameters, before)
    assert np.array_equal(retrained.measure(queries()), trained.measure(queries()))
    assert torch.equal(torch.random.get_rng_state(), state)
    other = trained.retrain(train(), np.ones(N), seed=1)
    assert not np.allclose(other.parameters, before, atol=1e-3)
    assert np.array_equal(other.parameters, trained.retrain(train(), np.ones(N), seed=1).parameters)


def test_weights_are_multiplied_by_those_of_the_examples():
    weighted = train(weighted=True)
    retrained = model(train_on=weighted).retrain(weighted, WEIGHTS)
    plain = model().retrain(train(), WEIGHTS * weighted.weights)
    assert np.array_equal(retrained.parameters, plain.parameters)


def test_training_begins_at_the_net_that_is_passed_and_does_not_change_it():
    torch.manual_seed(0)
    net = fresh(0)
    before = [p.detach().clone() for p in net.parameters()]
    trained = model(net, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert np.array_equal(trained.parameters, model(fresh, seed=0).parameters)
    retrained = uw.TorchModel(net, trained.network.loss, training=trained.training).retrain(train(), np.ones(N))
    assert np.array_equal(retrained.parameters, trained.parameters)
