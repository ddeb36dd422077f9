"""The settings of retraining: which are refused, and that every function that trains follows them."""

from dataclasses import replace

import numpy as np
import pytest

import upweight as uw
from support.dying_worker import TRAIN, Mortal, weights
from support.logistic_fit import logistic_fit
from support.training_calls import call
from upweight.retraining.retraining import ONE_BY_ONE


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"how": "threads"}, ValueError, "one of stacked, processes, ray or None, got 'threads'"),
        ({"processes": 0}, ValueError, "at least one process, got 0"),
        ({"seeds": 0}, ValueError, "at least one seed, and each seed once, got 0"),
        ({"seeds": []}, ValueError, "at least one seed, and each seed once"),
        ({"seeds": [2, 2]}, ValueError, "at least one seed, and each seed once"),
        ({"progress": lambda trainings, total: None}, TypeError, r"called with \(stage, done, total\)"),
    ],
)
def test_invalid_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        uw.Retraining(**settings)


def test_seeds_are_a_number_or_a_list():
    assert uw.Retraining().runs == (0,) and uw.Retraining(seeds=3).runs == (0, 1, 2)
    assert uw.Retraining(seeds=np.array([5, 2])).runs == (5, 2) == uw.Retraining(seeds=[5, 2]).seeds
    assert uw.Retraining(seeds=[4]).only_seed("this") == 4
    assert uw.Retraining(seeds=[4]) == uw.Retraining(seeds=(4,)) != uw.Retraining(seeds=4)


TRAINING = ("verify", "explain", "retrain_truth", "retrain", "brittleness", "removal_curve", "slices", "what_if")
TRAINING = (*TRAINING, "mislabeled", "held_out_loss")


@pytest.mark.parametrize("name", TRAINING)
def test_every_function_resumes_from_its_folder(name, tmp_path, monkeypatch):
    model_class, trained, stop = type(logistic_fit()[0]), [], [3]
    whole = call(name, retraining=ONE_BY_ONE)

    def counting(method):
        def retrain(model, *given):
            if len(trained) == stop[0]:
                raise KeyboardInterrupt
            trained.append(given)
            return method(model, *given)

        return retrain

    for method in ("retrain", "retrain_roughly"):
        monkeypatch.setattr(model_class, method, counting(getattr(model_class, method)))
    retraining = replace(ONE_BY_ONE, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        call(name, retraining=retraining)
    assert len(trained) == len(list(tmp_path.glob("*.npz"))) == 3
    stop[0] = -1
    np.testing.assert_array_equal(call(name, retraining=retraining), whole)
    trainings = len(trained)
    assert trainings == len(list(tmp_path.glob("*.npz"))) > 3  # no training was repeated
    np.testing.assert_array_equal(call(name, retraining=retraining), whole)
    assert len(trained) == trainings


@pytest.mark.parametrize("name", TRAINING)
def test_two_processes_give_the_results_of_one(name):
    from_two = call(name, retraining=uw.Retraining(processes=2))
    np.testing.assert_allclose(from_two, call(name, retraining=ONE_BY_ONE), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", [*TRAINING, "compare"])
def test_progress_is_called_with_stage_done_and_total(name):
    reports = []
    call(name, retraining=replace(ONE_BY_ONE, progress=lambda *report: reports.append(report)))
    stage = {"brittleness": "search", "compare": "compare"}.get(name, "retrain")
    counts = [report[1:] for report in reports if report[0] == stage]
    assert counts == sorted(counts) and counts[-1][0] == counts[-1][1] >= 2


@pytest.mark.parametrize("name", ["brittleness", "slices", "what_if", "mislabeled", "held_out_loss"])
def test_several_seeds_are_refused_by_functions_that_train_once(name):
    with pytest.raises(ValueError, match=rf"{name} trains with one seed, got 3; pass uw.Retraining\(seeds=\[0\]\)"):
        call(name, retraining=uw.Retraining(seeds=3))


def test_retrain_takes_its_seeds_per_row():
    with pytest.raises(ValueError, match=r"a seed per row of weights as seed=, got Retraining\(seeds=2\)"):
        uw.retrain(Mortal(5.5), TRAIN, weights(), retraining=uw.Retraining(seeds=2))
