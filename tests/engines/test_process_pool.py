import os
import signal
import time

import pytest

from support.logistic_fit import logistic_fit
from support.worker_tasks import add, add_elsewhere, die, die_once, fail, fail_or_wait, wait_for_the_file
from upweight.core.threads import one_thread
from upweight.engines import worker_run
from upweight.engines.process_pool import available_processors, run_in_processes


@pytest.mark.parametrize("processes", [1, 2, 7])
def test_every_task_is_done_once_in_any_number_of_processes(processes):
    results = list(run_in_processes(add, 100, [5, 6, 7, 8], processes))
    assert sorted(results) == [(0, 105), (1, 106), (2, 107), (3, 108)]
    assert list(run_in_processes(add, 100, [], processes)) == []


def test_one_process_is_this_one_and_several_are_others():
    own = {pid for _, (_, pid) in run_in_processes(add_elsewhere, 0, [1, 2], 1)}
    workers = {pid for _, (_, pid) in run_in_processes(add_elsewhere, 0, [1, 2, 3, 4], 2)}
    assert own == {os.getpid()} and os.getpid() not in workers


def test_results_come_in_the_order_in_which_tasks_finish(tmp_path):
    path = tmp_path / "another came first"
    running = run_in_processes(wait_for_the_file, str(path), [0, 1, 2], 2)
    first, _ = next(running)
    path.touch()
    assert first != 0 and sorted([first, *(place for place, _ in running)]) == [0, 1, 2]


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(tmp_path):
    results = dict(run_in_processes(die_once, str(tmp_path / "died"), list(range(6)), 2))
    assert results == {i: i * 10 for i in range(6)} and (tmp_path / "died").exists()


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        (signal.SIGKILL, r"ended from outside \(SIGKILL\); .*too little memory: use fewer processes"),
        (signal.SIGSEGV, r"by a crash of compiled code \(SIGSEGV\)"),
        (None, "by ending themselves with exit status 1"),
    ],
)
def test_workers_that_keep_dying_end_in_an_error_that_names_the_task(how, cause, monkeypatch):
    monkeypatch.setattr(worker_run, "MAX_DEATHS", 2)
    with pytest.raises(RuntimeError, match=rf"worker processes died 2 times in item 3, {cause}"):
        list(run_in_processes(die, how, list(range(6)), 2, name=lambda position: f"item {position}"))


def test_the_first_failed_task_ends_all_others(tmp_path):
    with pytest.raises(ValueError, match="zero is refused") as failed:
        list(run_in_processes(fail_or_wait, str(tmp_path), list(range(6)), 2))
    assert failed.value.__notes__ == ["This was raised in task 0."]
    assert not list(tmp_path.iterdir())  # no other task came to its end


def test_results_that_were_finished_before_an_error_are_not_lost():
    results = []
    with pytest.raises(ValueError, match="two is too many"):
        results.extend(run_in_processes(fail, None, [0, 1, 2, 3], 2))
    running = run_in_processes(fail, None, [0, 1, 2, 3], 2)
    with pytest.raises(ValueError, match="two is too many"):
        for result in running:
            results.append(result)
            time.sleep(0.3)  # others finish in this time
    assert (0, 0) in results and (1, 1) in results


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_in_a_task_reaches_the_caller(processes):
    with pytest.raises(ValueError, match="two is too many"):
        list(run_in_processes(fail, None, [1, 2, 3], processes))


def test_work_can_be_left_unfinished():
    running = run_in_processes(add, 1, [1, 2, 3], 2)
    next(running)
    running.close()


def test_at_least_one_processor_is_available():
    assert available_processors() >= 1


def test_one_thread_limits_linear_algebra_inside_its_block_only():
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def threads():
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]

    logistic_fit()  # a BLAS is loaded
    before = threads()
    with one_thread():
        assert set(threads()) == {1}
    assert threads() == before
