"""Workers: what is sent to them, what they start with, when they are used again, and when they are not used at all."""

import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import sklearn
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning

import upweight as uw
from support.logistic_fit import logistic_fit
from support.network_families import cross_entropy
from support.worker_tasks import nested, settings, warn_and_return, where, write_into
from upweight.engines import process_pool, run_folder, worker
from upweight.engines.process_pool import run_in_processes
from upweight.retraining import task

LIMIT = 240  # seconds, for scripts: a hang takes longer


def pids(tasks=3):
    return {pid for _, pid in run_in_processes(where, None, list(range(tasks)), 2)}


SCRIPT = """
import os
from dataclasses import dataclass
from upweight.engines.process_pool import run_in_processes

print("once")
factor = 10

@dataclass
class Answer:
    value: int
    def times(self):
        return self.value * factor

class Refused(Exception):
    pass

def work(shared, task):
    if task == 4:
        raise Refused(task)
    print("of a task")
    return Answer(shared(task))

results = dict(run_in_processes(work, lambda task: task + 1, [1, 2, 3], 2))
assert results == {0: Answer(2), 1: Answer(3), 2: Answer(4)}
factor = 100
assert results[0].times() == 200  # the classes of this script are as they were
try:
    list(run_in_processes(work, lambda task: task + 1, [4, 4], 2))
except Refused:
    print("refused")
"""


def test_scripts_without_a_guard_use_lambdas_and_classes_of_their_own(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=LIMIT)
    assert process.stdout.split() == ["once", "refused"]  # what tasks print goes to standard error
    assert process.stderr.split("\n")[:3] == ["of a task"] * 3


def test_what_cannot_be_sent_is_trained_in_this_process_and_logged(logged):
    results = run_in_processes(where, threading.Lock(), [1, 2], 2)
    assert {pid for _, pid in results} == {os.getpid()}
    assert "cannot be sent to other processes (TypeError: cannot pickle '_thread.lock' object)" in logged.getvalue()
    assert "it is trained in this process" in logged.getvalue()


def test_a_daemonic_process_and_a_worker_train_in_themselves(monkeypatch):
    for pid, of_tasks in (result for _, result in run_in_processes(nested, None, [1, 2], 2)):
        assert set(of_tasks) == {pid} != {os.getpid()}
    monkeypatch.setattr(process_pool.current_process(), "_config", {"daemon": True})
    assert pids() == {os.getpid()}


def test_workers_are_used_again_unless_they_would_compute_something_else(tmp_path, monkeypatch):
    worker.stop_idle_workers()
    first = pids()
    assert pids() <= first
    monkeypatch.setenv("MY_SETTING", "set later")
    with np.errstate(over="raise"), sklearn.config_context(assume_finite=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = run_in_processes(settings, None, [1, 2], 2)
        assert [result for _, result in results] == [("raise", True, "set later", True)] * 2
    module = tmp_path / "my_module.py"
    module.write_text("value = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    second = pids()
    assert not second & first  # another path of modules
    import my_module  # noqa: F401

    os.utime(module, (worker.time.time() + 10,) * 2)
    assert not pids() & second  # a module was edited
    del sys.modules["my_module"]


def test_a_task_may_write_into_what_is_shared_and_changes_only_its_copy():
    arrays = [np.zeros(3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.empty((0, 4))]
    results = dict(run_in_processes(write_into, arrays, [0, 0], 2))
    assert results[0] == ([5.0, 0.0, 0.0], True, (0, 4)) and arrays[0].tolist() == [0.0] * 3


def test_trainings_of_a_model_that_is_fast_stay_in_this_process_until_they_turn_out_long(monkeypatch):
    assert {pid for _, pid in run_in_processes(where, None, [1, 2, 3], 2, may_stay=True)} == {os.getpid()}
    monkeypatch.setattr(process_pool, "SHORT_SECONDS", 0.0)
    places = [pid for _, pid in run_in_processes(where, None, [1, 2, 3], 2, may_stay=True)]
    assert places[0] == os.getpid() and os.getpid() not in places[1:]
    assert task.MAX_TRIAL_SECONDS <= 1.0  # an interrupt waits no longer


def test_a_few_short_trainings_of_a_forest_start_no_process(monkeypatch):
    x = np.random.default_rng(0).normal(size=(40, 3))
    train = uw.Examples(x, (x[:, 0] > 0).astype(int))
    model = uw.explainable(RandomForestClassifier(3, random_state=0).fit(train.x, train.y), train)
    monkeypatch.setattr(process_pool, "WorkerRun", None)  # calling it would be an error
    retraining = uw.Retraining(processes=2)
    assert len(uw.retrain(model, train, np.ones((3, 40)), retraining=retraining)) == 3


def test_nothing_is_left_in_the_temporary_folder_and_strays_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder.tempfile, "tempdir", str(tmp_path))
    stray = tmp_path / f"{run_folder.PREFIX}of-a-killed-run"
    stray.mkdir()
    (stray / run_folder.LOCK).touch()
    (stray / "job").write_text("large")
    with run_folder.run_folder() as in_use:
        pids()
        assert in_use.exists() and not stray.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_a_fork_of_this_process_leaves_its_workers_alone(tmp_path):
    before = pids()
    child = os.fork()
    if child == 0:
        (tmp_path / "pids").write_text(" ".join(map(str, pids())))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not before & set(map(int, (tmp_path / "pids").read_text().split()))
    assert pids() <= before


def test_results_are_the_same_bits_for_any_number_of_processes(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(task, "MAX_TRIAL_SECONDS", 0.0)
    linear, train, *_ = logistic_fit()
    examples = uw.Examples(np.random.default_rng(0).normal(size=(200, 300)).astype("f4"), np.arange(200) % 3)
    layers = torch.nn.Linear(300, 200), torch.nn.ReLU(), torch.nn.Linear(200, 3)
    training = uw.Training(lr=0.1, epochs=1, batch_size=100)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        net = uw.TorchModel.trained(torch.nn.Sequential(*layers), cross_entropy, examples, training=training)
        for model, data in ((linear, train), (net, examples)):
            weights = 1 - np.eye(len(data))[:4]
            of_one, of_two = (
                uw.retrain(model, data, weights, retraining=uw.Retraining(processes=processes, how="processes"))
                for processes in (1, 2)
            )
            np.testing.assert_array_equal(of_one.parameters, of_two.parameters)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_warning_of_many_trainings_comes_once_and_from_this_process(processes, capfd):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        results = dict(run_in_processes(warn_and_return, None, list(range(6)), processes))
    assert results == {number: number for number in range(6)}
    texts = sorted(f"{each.category.__name__}: {each.message}" for each in shown)
    assert texts == ["ConvergenceWarning: did not converge; increase max_iter", "UserWarning: task 2 alone"]
    assert "converge" not in capfd.readouterr().err


def test_a_warning_that_is_an_error_here_ends_the_run_in_a_worker_too():
    with warnings.catch_warnings(), pytest.raises(ConvergenceWarning, match="max_iter"):
        warnings.simplefilter("error")
        list(run_in_processes(warn_and_return, None, list(range(6)), 2))


def test_a_warning_that_is_ignored_here_is_ignored_in_workers():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("ignore")
        list(run_in_processes(warn_and_return, None, list(range(6)), 2))
    assert not shown
