"""Commands that are interrupted or terminated: exit status, and one sentence that says how to continue."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LIMIT = 100  # seconds; the commands would take ten minutes
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

TASK = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from support.dying_worker import *

class Slow(Mortal):
    def with_parameters(self, parameters):
        return Slow(float(parameters[0]))

    def retrain(self, train, weights, seed=0):
        if (weights == 0).any():
            Path("training").touch()
            time.sleep(600)
        return super().retrain(train, weights, seed)

model, train, queries = Slow(5.5), TRAIN, QUERIES
"""
# Twelve minutes in a single product, which no signal interrupts.
COMPUTING = """
import numpy as np
from pathlib import Path
Path("training").touch()
np.ones((40_000, 4_000)) @ np.ones((4_000, 40_000))
"""


def stop(folder, number, task, *arguments):
    """(exit status, what the command printed on stderr) if it gets this signal during a training."""
    (folder / "my_task.py").write_text(task.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, "-m", "upweight", *arguments]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    end = time.monotonic() + LIMIT
    while not (folder / "training").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(number)
    try:
        errors = process.communicate(timeout=LIMIT)[1]
    finally:
        process.kill()
    return process.returncode, errors


VERIFY = ("verify", "my_task.py", "--method", "chance", "--removals", "4")


@pytest.mark.parametrize(
    ("number", "status", "arguments", "sentence"),
    [
        (
            signal.SIGINT,
            130,
            ("--folder", "kept"),
            "trainings. They are saved in kept: run the same command again to continue from there.",
        ),
        (
            signal.SIGTERM,
            143,
            (),
            "trainings, which are not saved. Run the command again with --folder DIR, which saves every training",
        ),
    ],
)
def test_a_command_that_is_stopped_says_what_is_kept_and_how_to_go_on(number, status, arguments, sentence, tmp_path):
    returned, errors = stop(tmp_path, number, TASK, *VERIFY, *arguments)
    assert returned == status and "Traceback" not in errors, errors
    assert sentence in " ".join(errors.split()) and "Stopped after " in errors


def test_a_command_that_is_inside_a_library_stops_as_well(tmp_path):
    returned, errors = stop(tmp_path, signal.SIGTERM, COMPUTING, "explain", "my_task.py")
    assert returned == 143 and errors.strip().splitlines()[-1].startswith("Stopped before the end.")
