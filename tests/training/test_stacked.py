import numpy as np
import pytest
from recipes import N, convolving, dropping, fresh, model, train

from networks import Transformer

RNG = np.random.default_rng(0)
SUBSETS = (RNG.uniform(size=(5, N)) < 0.7) * RNG.uniform(0.5, 1.5, (5, N))
SGD = {"momentum": 0.9, "weight_decay": 0.01, "schedule": "linear", "clip": 1.0}
ADAM = {"optimiser": "adamw", "lr": 0.01, "weight_decay": 0.1}


def attending(seed):
    return Transformer().double()


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
    assert np.array_equal(together(trained, SUBSETS, [0] * 5)[2:3], alone)


@pytest.mark.parametrize("denominator", ["fixed", "renormalised", "rebatched"])
def test_every_meaning_of_removal_is_the_same_together(denominator):
    trained = model(fresh, denominator=denominator, **SGD)
    weights = np.ones((3, N))
    weights[0, :8] = weights[1, 20:28] = weights[2, 30:38] = 0
    assert np.allclose(together(trained, weights, [0] * 3), one_by_one(trained, weights, [0] * 3), rtol=0, atol=1e-10)
