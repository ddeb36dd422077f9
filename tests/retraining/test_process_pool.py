import os
import signal
import subprocess
import sys
import time

import pytest

from support.logistic_fit import logistic_fit
from upweight.core.threads import one_thread
from upweight.retraining.process_pool import available_processors, run_in_processes


def add(shared, task):
    return shared + task


def add_elsewhere(shared, task):
    return shared + task, os.getpid()


def die_once(shared, task):
    """Ends its own process the first time that it meets task 3."""
    if task == 3 and not os.path.exists(shared):
        with open(shared, "w"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    return task * 10


def die(shared, task):
    if task == 3:
        os._exit(1)
    return task


def fail(shared, task):
    if task == 2:
        raise ValueError("two is too many")
    return task


def wait_for_the_file(path, task):
    """Task 0 ends when the file exists, or after a minute; the others at once."""
    until = time.monotonic() + 60
    while task == 0 and not os.path.exists(path) and time.monotonic() < until:
        time.sleep(0.01)
    return task


@pytest.mark.parametrize("processes", [1, 2, 7])
def test_every_task_is_done_once_in_any_number_of_processes(processes):
    results = list(run_in_processes(add, 100, [5, 6, 7, 8], processes))
    assert sorted(results) == [(0, 105), (1, 106), (2, 107), (3, 108)]
    assert list(run_in_processes(add, 100, [], processes)) == []


def test_one_process_is_this_one_and_several_are_others():
    process_ids = {pid for _, (_, pid) in run_in_processes(add_elsewhere, 0, [1, 2], 1)}
    workers = {pid for _, (_, pid) in run_in_processes(add_elsewhere, 0, [1, 2, 3, 4], 2)}
    assert process_ids == {os.getpid()} and os.getpid() not in workers


def test_results_come_in_the_order_in_which_tasks_finish(tmp_path):
    path = tmp_path / "another came first"
    running = run_in_processes(wait_for_the_file, str(path), [0, 1, 2], 2)
    first, _ = next(running)
    path.touch()
    assert first != 0 and sorted([first, *(place for place, _ in running)]) == [0, 1, 2]


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(tmp_path):
    results = dict(run_in_processes(die_once, str(tmp_path / "died"), list(range(6)), 2))
    assert results == {i: i * 10 for i in range(6)} and (tmp_path / "died").exists()


def test_workers_that_keep_dying_end_in_an_error():
    with pytest.raises(
        RuntimeError, match=r"worker processes died 3 times with \d of 6 tasks to do; .*fewer processes"
    ):
        list(run_in_processes(die, None, list(range(6)), 2))


UNGUARDED = """
from operator import add
from upweight.retraining.process_pool import run_in_processes
print(list(run_in_processes(add, 1, [1, 2, 3], 2, fork=False)))
"""


def test_an_unguarded_script_that_workers_run_again_gets_an_error_that_names_the_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    failed = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=120)
    assert failed.returncode == 1
    assert "worker processes died 3 times with 3 of 3 tasks to do; workers are spawned" in failed.stderr
    # It may not be the last line: a tracker of the standard library may warn about the workers that died.
    (error,) = (line for line in failed.stderr.splitlines() if line.startswith("RuntimeError: worker processes died"))
    assert 'if __name__ == "__main__":' in error
    script.write_text(UNGUARDED.replace("print(", "if __name__ == '__main__': print("))
    process = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=120)
    assert sorted(eval(process.stdout)) == [(0, 2), (1, 3), (2, 4)]


# A worker that waits for threads which the fork did not copy ends itself, and with it this script.
THREADED = """
import faulthandler
import torch
from upweight.retraining.process_pool import run_in_processes

def work(matrix, task):
    faulthandler.dump_traceback_later(60, exit=True)
    entry = float((matrix @ matrix)[task, task])
    faulthandler.cancel_dump_traceback_later()
    return entry

torch.set_num_threads(2)
matrix = torch.eye(400, dtype=torch.float64)
assert (matrix @ matrix).sum() == 400
print(sorted(run_in_processes(work, matrix, [1, 2, 3], 2)), torch.get_num_threads())
"""


def test_workers_do_not_wait_for_the_torch_threads_of_their_parent(tmp_path):
    pytest.importorskip("torch")
    script = tmp_path / "script.py"
    script.write_text(THREADED)
    process = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert process.stdout == "[(0, 1.0), (1, 1.0), (2, 1.0)] 2\n", process.stderr


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
