import numpy as np
import pytest
import torch
from torch import nn

import upweight as uw
from support.small_trainings import N, convolving, cross_entropy, fresh, model, queries, train


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either epochs= .* or batches="),
        ({"epochs": 1, "batches": [[0]]}, "either epochs= .* or batches="),
        ({"epochs": 0}, "epochs to be a whole number ≥ 1, got 0"),
        ({"batches": []}, "at least one step"),
        ({"batches": [[0, 1], [-1, 2]]}, "positions ≥ 0 in the training set for step 1"),
        ({"batches": [[0.5]]}, "positions ≥ 0"),
        ({"batches": [[0]], "denominator": "rebatched"}, "pass epochs=, not batches="),
        (
            {"epochs": 1, "optimiser": "lbfgs"},
            "one of sgd, adam, adamw, rmsprop, got 'lbfgs'; state the rule of another",
        ),
        ({"epochs": 1, "schedule": "step"}, "schedule to be one of"),
        ({"epochs": 1, "denominator": "mean"}, "denominator to be one of fixed, renormalised, rebatched"),
        ({"epochs": 1, "lr": -1.0}, "lr to be numbers ≥ 0"),
        ({"epochs": 1, "lr": float("nan")}, "lr to be numbers ≥ 0"),
        ({"batches": [[0], [1]], "lr": [0.1]}, r"one lr for every step \(2\), got 1"),
        ({"epochs": 1, "lr": [0.1], "schedule": "linear"}, "schedule of its own"),
        ({"epochs": 1, "momentum": 1.0}, r"momentum to be a number in \[0, 1\)"),
        ({"epochs": 1, "momentum": 0.5, "optimiser": "adam"}, "not of adam"),
        ({"epochs": 1, "nesterov": True}, "nesterov needs a momentum"),
        ({"epochs": 1, "weight_decay": -0.1}, "weight_decay to be a number ≥ 0"),
        ({"epochs": 1, "clip": 0.0}, "clip to be a norm > 0"),
        ({"epochs": 1, "batch_size": 0}, "batch_size to be a whole number ≥ 1"),
        ({"epochs": 1, "seed": -1}, "seed to be a whole number ≥ 0"),
    ],
)
def test_settings_that_do_not_define_a_training_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        uw.Training(**{"lr": 0.1, **settings})


def test_every_pass_takes_every_example_once_in_a_new_order():
    training = uw.Training(lr=0.1, epochs=3, batch_size=16)
    steps = training.drawn(np.arange(N), 5)
    assert [len(s) for s in steps] == [16, 16, 8] * 3
    passes = [np.concatenate(steps[i : i + 3]) for i in (0, 3, 6)]
    assert all(np.array_equal(np.sort(p), np.arange(N)) for p in passes)
    assert not np.array_equal(passes[0], passes[1])
    assert all(np.array_equal(a, b) for a, b in zip(steps, training.drawn(np.arange(N), 5), strict=True))
    assert not np.array_equal(steps[0], training.drawn(np.arange(N), 6)[0])


def test_learning_rates_follow_their_equations():
    schedules = {
        s: uw.Training(lr=0.4, epochs=1, schedule=s, warmup=3).rates(11) for s in ("constant", "linear", "cosine")
    }
    for rates in schedules.values():
        assert np.allclose(rates[:4], [0.1, 0.2, 0.3, 0.4])
    assert np.allclose(schedules["constant"][3:], 0.4)
    assert np.allclose(schedules["linear"][3:], 0.4 * (1 - np.arange(8) / 8))
    assert np.allclose(schedules["cosine"][3:], 0.2 * (1 + np.cos(np.pi * np.arange(8) / 8)))


def test_equal_trainings_have_equal_texts():
    def training(**more):
        return repr(uw.Training(lr=0.1, batches=np.arange(2000).reshape(100, 20), **more))

    assert training() == training()
    other = np.arange(2000).reshape(100, 20)
    other[50, 3] = 7
    assert training() != repr(uw.Training(lr=0.1, batches=other))
    torch.manual_seed(0)
    first, second = fresh(0), fresh(0)
    assert training(initial=first) == training(initial=first.state_dict()) != training(initial=second)
    assert "0x" not in training(initial=fresh) and "initial=fresh" in training(initial=fresh)


def test_the_model_takes_its_objective_from_its_training():
    assert model(weight_decay=0.1).objective == uw.Objective("fixed", 0.1)
    assert model(weight_decay=0.1, denominator="renormalised").objective == uw.Objective("mean", 0.1)
    assert model(weight_decay=0.1, optimiser="adamw", lr=0.01).objective == uw.Objective("fixed", 0.0)
    decayed = model(weight_decay=0.1).training
    for settings, message in (({"l2": 0.2}, "expected l2 as in training"), ({"objective": "mean"}, "leave it out")):
        with pytest.raises(ValueError, match=message):
            uw.TorchModel(fresh(0), cross_entropy, training=decayed, **settings)


def test_a_fixed_denominator_is_a_sum_that_keeps_the_whole_regulariser():
    trained = model(weight_decay=0.05)
    net = trained.network.net
    fixed = uw.TorchModel(net, cross_entropy, objective=uw.Objective("fixed", l2=0.05))
    summed = uw.TorchModel(net, cross_entropy, objective=uw.Objective("sum", l2=0.05 * N))
    assert fixed.gradient_norm(train()) == pytest.approx(summed.gradient_norm(train()))
    of_fixed, of_sum = (uw.Influence().fit(m, train()).attribute(queries()).values for m in (fixed, summed))
    assert np.allclose(of_fixed, of_sum)
    mean = uw.TorchModel(net, cross_entropy, objective=uw.Objective("mean", l2=0.05))
    assert not np.allclose(uw.Influence().fit(mean, train()).attribute(queries()).values, of_sum)


def test_removal_means_what_the_denominator_says():
    weights = np.ones(N)
    weights[[3, 20, 33]] = 0
    remaining = np.flatnonzero(weights)
    settings = {"epochs": 2, "batch_size": 10, "momentum": 0.9, "seed": 4}
    smaller = uw.Examples(train().x[remaining], train().y[remaining])
    rebatched = model(denominator="rebatched", **settings).retrain(train(), weights)
    assert np.allclose(rebatched.parameters, model(train_on=smaller, **settings).parameters, atol=1e-12)
    same_batch = {**settings, "epochs": None, "batches": [np.arange(10)] * 4}
    renormalised = model(denominator="renormalised", **same_batch).retrain(train(), weights)
    shorter = model(**{**same_batch, "batches": [np.delete(np.arange(10), 3)] * 4})
    assert np.allclose(renormalised.parameters, shorter.parameters, atol=1e-12)
    fixed = model(**same_batch).retrain(train(), weights).parameters
    scaled = model(**same_batch, denominator="renormalised").retrain(train(), weights)
    assert not np.allclose(fixed, scaled.parameters, atol=1e-6)


def test_a_batch_whose_weights_are_all_zero_has_no_gradient():
    weights = np.ones(N)
    weights[:10] = 0
    alone = model(epochs=None, batches=[np.arange(10)], denominator="renormalised", weight_decay=0.5)
    initial = fresh_parameters()
    assert np.allclose(alone.retrain(train(), weights).parameters, initial * (1 - 0.1 * 0.5))


def fresh_parameters():
    torch.manual_seed(0)
    return torch.cat([p.detach().flatten() for p in fresh(0).parameters()]).numpy()


def test_augmentation_is_drawn_from_the_seed():
    def add_noise(batch, generator):
        noise = torch.randn(batch.x.shape, generator=generator, dtype=batch.x.dtype)
        return type(batch)(batch.x + 0.1 * noise, batch.y)

    trained = model(augment=add_noise)
    assert np.array_equal(trained.retrain(train(), np.ones(N)).parameters, trained.parameters)
    assert not np.allclose(trained.parameters, model().parameters, atol=1e-4)
    rows = np.ones((2, N))
    together = [m.parameters for m in trained.retrain_many(train(), rows, [0, 1])]
    assert np.allclose(together, [trained.retrain(train(), rows[0], s).parameters for s in (0, 1)], atol=1e-10)


def test_trainings_that_cannot_be_run_are_refused():
    with pytest.raises(ValueError, match="diverged: parameters are not finite"):
        model(lr=1e200)
    with pytest.raises(ValueError, match="batches= names position 40, but the training set has 40"):
        model(epochs=None, batches=[[40]])
    with pytest.raises(ValueError, match=r"one lr for every step \(9\), got 2"):
        model(lr=[0.1, 0.1])
    with pytest.raises(ValueError, match="the training does not say where it begins: pass Training"):
        uw.TorchModel(fresh(0), cross_entropy, training=uw.Training(lr=0.1, epochs=1)).retrain(train(), np.ones(N))
    for initial, message in (
        (convolving, r"expected initial '0.weight' of shape \(10, 64\), got none"),
        (nn.Sequential(nn.Linear(64, 9)), r"of shape \(10, 64\), got shape \(9, 64\)"),
    ):
        with pytest.raises(ValueError, match=message):
            training = uw.Training(lr=0.1, epochs=1, initial=initial)
            uw.TorchModel(fresh(0), cross_entropy, training=training).retrain(train(), np.ones(N))


def test_training_functions_that_return_no_new_net_are_refused():
    net = fresh(0)
    for train_fn, error, message in (
        (lambda w, s: None, TypeError, "to return the trained net, got NoneType"),
        (lambda w, s: net, ValueError, "trained the model's own net"),
        (lambda w, s: convolving(0), ValueError, "the same parameters as the model's"),
    ):
        with pytest.raises(error, match=message):
            uw.TorchModel(net, cross_entropy, training=train_fn).retrain(train(), np.ones(N))


def test_nets_with_batch_norm_are_trained_one_by_one_and_keep_their_statistics():
    def normed(seed):
        return nn.Sequential(nn.Linear(64, 10), nn.BatchNorm1d(10), nn.GELU(), nn.Linear(10, 3)).double()

    trained = model(normed)
    again = trained.retrain(train(), np.ones(N))
    assert np.array_equal(again.measure(queries()), trained.measure(queries()))
    assert any("still takes part in the batch statistics of '1'" in note for note in trained.notes)
    assert not model(normed, denominator="rebatched").notes
    assert trained.stack(train()).size == 1 and "buffers" in trained.stack(train()).why
    weights = 1 - np.eye(N)[:2]
    many = uw.retrain(trained, train(), weights, retraining=uw.Retraining(processes=1))
    alone = trained.retrain(train(), weights[1])
    assert np.array_equal(many[1].measure(queries()), alone.measure(queries()))
    assert np.array_equal(many.parameters[1], alone.parameters)


def test_a_training_with_a_learning_rate_per_step_can_be_printed() -> None:
    first, second = (repr(uw.Training(lr=np.array(lr), batches=[[0], [1], [2]])) for lr in ([1, 2, 3], [1, 2, 4]))
    assert first.startswith("Training(lr=<")
    assert first != second
