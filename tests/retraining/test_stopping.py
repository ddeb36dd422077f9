"""A run that is interrupted, terminated or killed: what ends with it, what is kept, and what it says."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from upweight.core.files import open_atomically
from upweight.core.partial_files import remove_partial_files
from upweight.engines.termination import end_on_sigterm

LIMIT = 100  # seconds; the runs of these tests would take ten minutes
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

# Trainings of quick examples end at once. The others start a process of their own and take ten minutes, in which the
# last two hold Python's lock.
SCRIPT = """
import ctypes, os, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from support.dying_worker import *

class Slow(Mortal):
    def with_parameters(self, parameters):
        return Slow(float(parameters[0]))

    def retrain(self, train, weights, seed=0):
        removed = int(np.argmin(weights))
        if weights.all() or removed < 3:
            return super().retrain(train, weights, seed)
        child = subprocess.Popen(["sleep", "600"])
        Path("pids", f"{{os.getpid()}} {{child.pid}}").touch()
        if removed % 2:
            ctypes.PyDLL(None).sleep(600)
        time.sleep(600)

Path("pids").mkdir(exist_ok=True)
retraining = uw.Retraining(processes=2, folder="kept")
uw.retrain(Slow(5.5), TRAIN, weights()[:int(sys.argv[1])], retraining=retraining)
"""


@pytest.fixture
def job(tmp_path):
    """Starts the script; gives the process, once both workers are in long trainings, and all processes below it."""
    (tmp_path / "job.py").write_text(SCRIPT.format(tests=str(Path(__file__).parents[1])))
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    started = []

    def start(tasks):
        process = subprocess.Popen(
            [sys.executable, "job.py", str(tasks)], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        if tasks > 3:
            wait_until(lambda: process.poll() is not None or len(list((tmp_path / "pids").glob("*"))) >= 2)
            assert process.poll() is None, process.stderr.read()
        return process, [int(pid) for path in (tmp_path / "pids").glob("*") for pid in path.name.split()]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()


def wait_until(condition):
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are listed in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_ends_everything_and_goes_on_from_its_folder(number, job, tmp_path):
    process, descendants = job(12)
    assert len(descendants) >= 4 and all(map(is_alive, descendants))
    process.send_signal(number)
    errors = process.communicate(timeout=LIMIT)[1]
    wait_until(lambda: not any(map(is_alive, descendants)))
    assert process.returncode == (143 if number == signal.SIGTERM else -number), errors
    files = list((tmp_path / "kept").glob("*.npz"))
    assert len(files) == 3
    if number != signal.SIGKILL:
        assert "3 of 12 trainings were finished; they are saved in kept, and the same call continues" in errors
        assert list((tmp_path / "temporary").iterdir()) == []
    (tmp_path / "kept" / f"{files[0].name}.0123abcd.tmp").touch()  # of a process that was killed while it wrote
    again, _ = job(3)
    assert again.wait(timeout=LIMIT) == 0
    assert list((tmp_path / "temporary").iterdir()) == []
    assert sorted((tmp_path / "kept").iterdir()) == sorted(files)


def test_a_handler_of_the_users_stays_and_the_default_comes_back():
    def act(number, frame):
        pass

    before = signal.signal(signal.SIGTERM, act)
    try:
        with end_on_sigterm():
            assert signal.getsignal(signal.SIGTERM) is act
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with pytest.raises(SystemExit) as ended, end_on_sigterm():
            signal.raise_signal(signal.SIGTERM)
        assert ended.value.code == 143 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        in_thread = []

        def run():
            with end_on_sigterm():
                in_thread.append(signal.getsignal(signal.SIGTERM))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert in_thread == [signal.SIG_DFL]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_partial_files_are_removed_unless_a_process_writes_them(tmp_path):
    abandoned, other = tmp_path / "a.npz.0123abcd.tmp", tmp_path / "a.npz.notes.tmp"
    for path in (abandoned, other):
        path.touch()
    with open_atomically(tmp_path / "b.npz") as file:
        file.write(b"whole")
        remove_partial_files(tmp_path, "*.npz")
        assert not abandoned.exists() and other.exists()
    assert (tmp_path / "b.npz").read_bytes() == b"whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz.notes.tmp", "b.npz"]
