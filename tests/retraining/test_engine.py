"""The retraining engine: tasks of every kind, their files, and the outputs of retrained models."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

import upweight as uw
from support.dying_worker import QUERIES
from support.logistic_fit import logistic_fit
from support.network_families import cross_entropy, mlp
from upweight.core.model import Predictions
from upweight.retraining.engine import Arrays, run_tasks
from upweight.retraining.retrained_outputs import RetrainedOutputs
from upweight.retraining.retraining import ONE_BY_ONE
from upweight.retraining.task import Task


def test_tasks_of_different_kinds_run_together():
    fitted, train, queries, *_ = logistic_fit()
    model = fitted.hypothetical()
    change, weights = uw.Change(relabel={"t4": 1 - train.y[4]}), np.linspace(0.5, 2, len(train))
    tasks = [Task(change=change), Task(weights=weights), Task(removed=np.array([1, 2])), Task(roughly=True)]
    measurements = run_tasks(ONE_BY_ONE, model, train, tasks, queries)
    without = np.ones(len(train))
    without[[1, 2]] = 0
    expected = [model.retrain(*change.applied(train)), model.retrain(train, weights), model.retrain(train, without)]
    expected.append(model.retrain_roughly(train, np.ones(len(train))))
    np.testing.assert_allclose(measurements, [retrained.measure(queries) for retrained in expected], rtol=1e-9)
    selected = run_tasks(ONE_BY_ONE, model, train, [Task(queries=np.array([0, 5])), Task()], queries)
    assert [len(values) for values in selected] == [2, len(queries)]
    np.testing.assert_array_equal(selected[0], selected[1][[0, 5]])


def test_tasks_of_different_kinds_have_files_of_their_own(tmp_path):
    fitted, train, queries, *_ = logistic_fit()
    model = fitted.hypothetical()
    changes = [uw.Change(relabel={i: 1 - train.y[place]}) for place, i in ((4, "t4"), (5, "t5"))]
    tasks = [Task(), Task(seed=1), Task(roughly=True), Task(queries=np.array([3])), *(Task(change=c) for c in changes)]
    run_tasks(replace(ONE_BY_ONE, folder=tmp_path), model, train, tasks, queries)
    assert len(list(tmp_path.glob("*.npz"))) == len(tasks)


def test_trainings_that_cannot_be_stacked_are_logged(logged):
    train = uw.Examples(np.random.default_rng(0).normal(size=(20, 64)), np.arange(20) % 2)
    training = uw.Training(lr=0.1, epochs=1, batch_size=5)
    net = uw.TorchModel.trained(mlp(), cross_entropy, train, training=training)
    change = uw.Change(remove=[3])
    (measurements,) = run_tasks(uw.Retraining(how="stacked", processes=1), net, train, [Task(change=change)], train)
    assert "trained one by one: these trainings differ by more than example weights" in logged.getvalue()
    np.testing.assert_allclose(measurements, net.retrain(*change.applied(train)).measure(train), rtol=1e-5)


class ConstantModel:
    """A model with fixed predictions."""

    def __init__(self, predictions):
        self.predictions = predictions

    def measure(self, queries):
        return np.arange(float(len(queries)))

    def predict(self, queries):
        return self.predictions


@pytest.mark.parametrize(
    "expected",
    [
        Predictions(("a", "c", "a"), ("a", "b", "c"), np.arange(9.0).reshape(3, 3)),
        Predictions(("a", "c", "a"), ("a", "b", "c")),
        Predictions((0.5, -2.0, 1e300)),
        Predictions(([0.5, 1.0], [2.0, 3.0], [4.0, 5.0])),
    ],
)
def test_outputs_are_read_back_as_they_were(expected):
    outputs = RetrainedOutputs(expected.classes)
    measurements, predictions = outputs.read(outputs(ConstantModel(expected), QUERIES))
    np.testing.assert_array_equal(measurements, [0, 1, 2])
    assert (predictions.predicted, predictions.classes) == (expected.predicted, expected.classes)
    if expected.probabilities is None:
        assert predictions.probabilities is None
    else:
        np.testing.assert_array_equal(predictions.probabilities, expected.probabilities)


def test_a_retrained_model_with_other_classes_is_refused():
    with pytest.raises(ValueError, match=r"models of the classes \('a', 'b'\), got \('a',\)"):
        RetrainedOutputs(("a", "b"))(ConstantModel(Predictions(("a",) * 3, ("a",))), QUERIES)


def test_results_of_all_retrainings_are_in_memory_once():
    model, train, queries = logistic_fit()[:3]
    tasks = [Task(removed=np.array([i])) for i in range(40)]

    def large(retrained, asked):
        return np.repeat(retrained.measure(asked)[:1], 100_000)

    tracemalloc.start()
    results = run_tasks(ONE_BY_ONE, model, train, tasks, queries, large)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert results.nbytes == 40 * 800_000 and peak < 1.2 * results.nbytes
    expected = run_tasks(ONE_BY_ONE, model, train, tasks, queries)
    np.testing.assert_array_equal(results[:, 7], expected[:, 0])


@pytest.mark.parametrize("sizes", [(2, 2, 2), (2, 3, 2), (2, 2, 3)], ids=str)
def test_results_of_other_shapes_are_refused_as_before(sizes):
    arrays = Arrays(3)
    results = [arrays.put(i, np.full(size, float(i))) for i, size in enumerate(sizes)]
    if len(set(sizes)) == 1:
        np.testing.assert_array_equal(arrays.joined(results), [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    else:
        with pytest.raises(ValueError, match="same shape"):
            arrays.joined(results)
