import numpy as np
import pytest
import torch

import upweight as uw
from support.network_families import cross_entropy, digits, mlp

X, Y = digits()
TRAIN, QUERIES = uw.Examples(X[:40], Y[:40]), uw.Examples(X[40:46], Y[40:46])
TRAINING = uw.Training(
    lr=0.1, momentum=0.9, weight_decay=0.02, epochs=6, batch_size=10, initial=lambda seed: mlp().double()
)


def trained():
    return uw.TorchModel.trained(TRAINING.initial, cross_entropy, TRAIN, training=TRAINING)


def checked(model, removals=6, **more):
    truth = uw.LeaveOneOut().fit(trained(), TRAIN).attribute(QUERIES)
    return uw.verify(model, TRAIN, QUERIES, truth, removals, retraining=uw.Retraining(processes=1, **more))


def test_the_truth_verifies_itself_and_the_model_is_reproduced():
    check = checked(trained(), {f"without {i}": [i] for i in range(0, 40, 7)})
    assert check.diagnostics["drift"] < 1e-12 and check.diagnostics["warnings"] == []
    assert check.slope == pytest.approx(1, abs=1e-9) and np.allclose(check.predicted, check.actual, atol=1e-12)


def test_stacked_in_processes_and_one_by_one_are_one_truth(tmp_path):
    model, removals = trained(), {"a": [1, 2, 3], "b": [7], "c": list(range(10, 20))}
    stacked = checked(model, removals, how="stacked", folder=tmp_path)
    alone = checked(model, removals, how="processes")
    assert alone.diagnostics["drift"] == 0
    assert np.allclose(stacked.actual, alone.actual, atol=1e-10)
    assert np.array_equal(checked(model, removals, folder=tmp_path).actual, stacked.actual)
    truth = uw.LeaveOneOut().fit(model, TRAIN).attribute(QUERIES)
    two = uw.verify(model, TRAIN, QUERIES, truth, removals, retraining=uw.Retraining(processes=2, how="processes"))
    assert np.allclose(two.actual, alone.actual, atol=1e-12)


def test_training_with_unseeded_random_numbers_has_a_warning():
    model = trained()
    drawn = np.random.default_rng(0)

    def train_fn(weights, seed):
        net = model.retrain(TRAIN, weights, seed).network.net
        with torch.no_grad():
            net[0].weight += torch.as_tensor(0.02 * drawn.standard_normal(net[0].weight.shape))
        return net

    check = checked(uw.TorchModel(model.network.net, cross_entropy, training=train_fn))
    (warning,) = check.diagnostics["warnings"]
    assert "not deterministic: two runs with the same weights and seed differ by up to" in warning
    assert "cannot be verified" in warning and check.diagnostics["noise"] > 0


def test_a_training_function_of_the_user_gives_the_same_truth():
    model = trained()
    retrainable = uw.TorchModel(
        model.network.net, cross_entropy, training=lambda w, s: model.retrain(TRAIN, w, s).network.net
    )
    ours, theirs = checked(model, how="processes"), checked(retrainable)
    assert np.array_equal(ours.actual, theirs.actual) and theirs.diagnostics["drift"] == 0


def test_another_training_than_that_of_the_model_has_a_warning():
    other = uw.Training(lr=0.1, epochs=2, initial=TRAINING.initial)
    check = checked(uw.TorchModel(trained().network.net, cross_entropy, training=other))
    assert "The given training is not the one that made the model" in check.diagnostics["warnings"][0]


def test_a_net_without_its_training_says_what_to_pass():
    net = trained().network.net
    for ask in (checked, lambda m: m.retrain(TRAIN, np.ones(40)), lambda m: uw.LeaveOneOut().fit(m, TRAIN)):
        with pytest.raises(TypeError, match=r"Retrainable: this TorchModel does not say how its net was trained; pass"):
            ask(uw.TorchModel(net, cross_entropy))


def test_a_removal_of_a_whole_class_has_a_warning():
    of_two = TRAIN.ids[TRAIN.y == 2].tolist()
    check = checked(trained(), {"all twos": of_two, "one": [0]})
    assert check.diagnostics["warnings"] == ["Without 'all twos' no example of class 2 is left."]


def test_every_protocol_passes_on_the_warning_of_another_training():
    other = uw.Training(lr=0.1, epochs=2, initial=TRAINING.initial)
    model = uw.TorchModel(trained().network.net, cross_entropy, training=other)
    truth = uw.retrain_truth(
        model, TRAIN, QUERIES, uw.subsets(TRAIN, 6, share=0.1), retraining=uw.Retraining(processes=1)
    )
    assert "not the one that made the model" in truth.warnings[0]
    messages = uw.compare({"chance": uw.Chance()}, model, TRAIN, QUERIES, truth).warnings
    assert "not the one that made the model" in messages[0]
    seeded = uw.retrain_truth(
        trained(), TRAIN, QUERIES, uw.singles(TRAIN, [1, 2]), retraining=uw.Retraining(seeds=(1, 2), processes=1)
    )
    assert seeded.warnings == []  # other seeds make other models, and none of them has to be this one
