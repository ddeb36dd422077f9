"""Tasks for workers, in a module that is imported quickly."""

import os
import signal
import sys
import time
import warnings
from typing import Any

import numpy as np

from upweight.engines.process_pool import run_in_processes


def add(shared: Any, task: Any) -> Any:
    return shared + task


def add_elsewhere(shared: Any, task: Any) -> Any:
    return shared + task, os.getpid()


def die_once(shared: Any, task: Any) -> Any:
    """Ends its own process the first time that it meets task 3."""
    if task == 3 and not os.path.exists(shared):
        with open(shared, "w"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    return task * 10


def die(how: Any, task: Any) -> Any:
    if task == 3 and how is None:
        os._exit(1)
    if task == 3:
        os.kill(os.getpid(), how)
    return task


def fail_or_wait(folder: Any, task: Any) -> Any:
    """Task 0 fails; the others take a minute and leave a file."""
    if task == 0:
        raise ValueError("zero is refused")
    time.sleep(60)
    with open(os.path.join(folder, str(task)), "w"):
        pass


def fail(shared: Any, task: Any) -> Any:
    if task == 2:
        raise ValueError("two is too many")
    return task


def wait_for_the_file(path: Any, task: Any) -> Any:
    """Task 0 ends when the file exists, or after a minute; the others at once."""
    until = time.monotonic() + 60
    while task == 0 and not os.path.exists(path) and time.monotonic() < until:
        time.sleep(0.01)
    return task


def where(shared: Any, task: Any) -> Any:
    return os.getpid()


def nested(shared: Any, task: Any) -> Any:
    return os.getpid(), [pid for _, pid in run_in_processes(where, None, [1, 2, 3], 2)]


def settings(shared: Any, task: Any) -> Any:
    return (
        np.geterr()["over"],
        sys.modules["sklearn"].get_config()["assume_finite"],
        os.environ.get("MY_SETTING"),
        _ignores(),
    )


def write_into(arrays: Any, task: Any) -> Any:
    arrays[0][task] = 5.0
    return arrays[0].tolist(), arrays[1].flags.f_contiguous, arrays[2].shape


def _ignores() -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("unwelcome", UserWarning, stacklevel=1)
    return not caught


def sleep(shared: Any, task: Any) -> Any:
    time.sleep(task)


def warn_and_return(shared: Any, number: int) -> int:
    """The number, after a warning that is the same for every task, and one that is not."""
    from sklearn.exceptions import ConvergenceWarning

    warnings.warn("did not converge; increase max_iter", ConvergenceWarning, stacklevel=1)
    if number == 2:
        warnings.warn(f"task {number} alone", UserWarning, stacklevel=1)
    return number
