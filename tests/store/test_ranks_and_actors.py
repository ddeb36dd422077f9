"""The files of a store are the same for one, two and three ranks and on Ray, and no death costs more than a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import upweight as uw

torch = pytest.importorskip("torch")

from support.command_line import written  # noqa: E402
from support.stored_nets import TRAIN, files, model, store  # noqa: E402
from upweight.core.progress import no_progress  # noqa: E402
from upweight.engines.work_list import Rank  # noqa: E402
from upweight.store.engines import build_as_rank  # noqa: E402
from upweight.store.manifest import read_manifests  # noqa: E402

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="ranks are forked")
TASK = """
import os
import torch
from torch import nn
from torch.nn import functional as F
from sklearn.datasets import load_digits
import upweight as uw

x, y = load_digits(n_class=3, return_X_y=True)
x = (x / 16).astype("float32")
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(64, 10), nn.GELU(), nn.Linear(10, 3))
if "LOCAL_RANK" in os.environ:
    torch.distributed.init_process_group("gloo")
    net = nn.parallel.DistributedDataParallel(net)

def loss(net, batch):
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")

train = uw.Examples(x[:80], y[:80])
queries = uw.Examples(x[80:84], y[80:84])
model = uw.TorchModel(net, loss)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "store"
    torch.set_num_threads(1)
    store(folder).build(model(), TRAIN)
    return folder


def fork(work):
    """The id of a child that does this and ends."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def end(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def build_as(folder, number, count):
    build_as_rank(folder, lambda: store(folder).builder(model(), TRAIN), Rank(number, count), no_progress)


def writers(folder):
    return {path.name for path in folder.glob("manifest.*.jsonl") if path.stat().st_size}


@needs_fork
@pytest.mark.parametrize("count", [2, 3])
def test_any_number_of_ranks_makes_the_same_files(count, finished, tmp_path):
    children = [fork(lambda number=number: build_as(tmp_path, number, count)) for number in range(count)]
    assert [end(child) for child in children] == [0] * count
    assert files(tmp_path) == files(finished) and uw.Store(tmp_path).check() == []
    assert len(writers(tmp_path)) == count
    lines = sum(len(path.read_bytes().splitlines()) for path in tmp_path.glob("manifest.*.jsonl"))
    assert lines == len(read_manifests(tmp_path))  # no file was made twice


@needs_fork
def test_a_rank_that_is_killed_costs_a_file_and_the_next_start_goes_on(finished, tmp_path):
    def die():
        from upweight.store.build import Builder

        make = Builder.make

        def made(builder, phase, number):
            if (phase, number) == ("rows", 3):
                os.kill(os.getpid(), signal.SIGKILL)
            return make(builder, phase, number)

        Builder.make = made
        build_as(tmp_path, 1, 2)

    first, second = fork(lambda: build_as(tmp_path, 0, 2)), fork(die)
    assert end(second) == -signal.SIGKILL
    while len([key for key in read_manifests(tmp_path) if key[0] == "rows"]) < len(list(range(0, shards(), 2))) + 1:
        time.sleep(0.01)  # the other rank waits for the dead one, until its launcher ends it
    os.kill(first, signal.SIGKILL)
    end(first)
    before = len(read_manifests(tmp_path))
    build_as_alone = [fork(lambda number=number: build_as(tmp_path, number, 3)) for number in range(3)]
    assert [end(child) for child in build_as_alone] == [0, 0, 0] and before < len(read_manifests(tmp_path))
    assert files(tmp_path) == files(finished)
    lines = sum(len(path.read_bytes().splitlines()) for path in tmp_path.glob("manifest.*.jsonl"))
    assert lines == len(read_manifests(tmp_path))


def shards():
    return store(Path("none")).header(model(), TRAIN).shards("rows")


@needs_fork
def test_two_builds_by_ranks_at_once_are_refused(tmp_path):
    from upweight.store.manifest import manifest_writer

    store(tmp_path).builder(model(), TRAIN)
    with manifest_writer(tmp_path, "1"):
        other = fork(lambda: build_as(tmp_path, 1, 2))
        assert end(other) == 1


def test_unknown_engines_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected how to be one of torchrun, ray or None, got 'slurm'"):
        uw.Store(tmp_path, how="slurm")
    with pytest.raises(ValueError, match="expected processes of at least 1"):
        uw.Store(tmp_path, how="ray", processes=0)


@needs_fork
def test_torchrun_builds_the_store_of_a_task_with_a_net_in_ddp(tmp_path):
    task = written(tmp_path / "task.py", TASK)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    build = ["upweight", "store", "build", str(task), "-o", str(tmp_path / "two")]
    by_two = subprocess.run([*launch, *build], env=environment, capture_output=True, text=True, check=False)
    assert by_two.returncode == 0, by_two.stderr
    assert by_two.stdout.count("80 rows of 54 bytes") == 1 == by_two.stdout.count("Store: ")
    alone = [sys.executable, "-m", "upweight", "store", "build", str(task), "-o", str(tmp_path / "one")]
    subprocess.run(alone, env=environment, capture_output=True, check=True)  # with as many threads as the ranks
    assert files(tmp_path / "two") == files(tmp_path / "one") != {}
    assert len(writers(tmp_path / "two")) == 2 and len(writers(tmp_path / "one")) == 1


@pytest.mark.skipif(not Path("/proc").exists(), reason="actors are found in /proc")
def test_ray_builds_the_same_files_and_an_actor_that_is_killed_costs_one(finished, tmp_path):
    pytest.importorskip("ray")
    killed = []

    def kill_one(stage, done, total):
        if stage == "store: rows" and done >= 2 and not killed:
            killed.append(actors()[0])
            os.kill(killed[0], signal.SIGKILL)

    store(tmp_path, how="ray", processes=2, progress=kill_one).build(model(), TRAIN)
    assert len(killed) == 1 and files(tmp_path) == files(finished)
    lines = sum(len(path.read_bytes().splitlines()) for path in tmp_path.glob("manifest.*.jsonl"))
    assert lines <= len(read_manifests(tmp_path)) + 1  # at most the file of that moment was made twice


def actors():
    """The ids of the actor processes below this one."""
    parents, titles = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(path.name)] = (path / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile

    def is_below(process):
        return process is not None and (process == os.getpid() or is_below(parents.get(process)))

    return sorted(
        process for process, title in titles.items() if title.startswith(b"ray::_Actor") and is_below(process)
    )
