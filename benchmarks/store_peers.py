"""Our store beside bergson's and dattri-llm's: bytes, cost, LDS, builds that are killed, and bytes that are changed.

OMP_NUM_THREADS=1 PYTHONPATH=. python -m benchmarks.store_peers --data DIR --peers DIR [--kills 5] [--flips 20]

`--peers`: a folder that is filled as `peer_stores.py` says; a package that is not there is left out. The net,
its retrainings and the sizes of removals are those of the GPT in `language_tasks.py`.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from benchmarks.counted_children import Ran, run
from benchmarks.language_tasks import FineTune, small_gpt
from benchmarks.metagradients import agreement
from benchmarks.peer_stores import BERGSON, DATTRI, KILLED, OURS, WAYS, Way, checkpoint
from benchmarks.results import Table, keep_table, kept_section
from numpy.typing import NDArray

Array = NDArray[np.float64]
COSTS = "Stores of three packages, GPT of 168,692 parameters, 2,000 sequences"
SURVIVAL = "Stores of three packages: kill -9 in the middle of a build, and changed bytes"
TARGETS = {COSTS: "none, beside others", SURVIVAL: "no answer from half a store or a changed one without an error"}
SURVIVAL_COLUMNS = [
    "store",
    "asked after the kill",
    "built again",
    "its work beside a whole build",
    "then equal scores",
    "changed bytes refused",
    "other scores from a changed byte",
]
COST_NOTES = [
    "The net, its texts and its 40 retrainings for each size of removals are those of the table gpt of language "
    "models. LDS with its 95 % interval by bootstrap over removals.",
    "Bytes: all files of a store, curvature included, shared among the training examples. Build: curvature and rows. "
    "Queries: the store is opened, the queries' gradients are computed, and all scores; the second of two in a "
    "process. Processor seconds of one thread, without imports, on a machine busy with other work.",
    "upweight: Influence() (EK-FAC), of all parameters or of the 9 linear layers that the others keep. By "
    "default: rank 16 in all eigenvectors, int4. LoGra in 96 of K-FAC's eigenvectors on either side, int3; int8, int4: "
    "rank 4 in 128 eigenvectors.",
    "bergson: `hessian` and `build`, asked by its Attributor. Not projected: their defaults, float32, with EK-FAC. "
    "Projected to 16: as its TrackStar by default (16 × 16 a layer, autocorrelation Hessian, unit norm), with the "
    "Hessian of the training set alone.",
    "dattri-llm: `cache`, `fit` and `attribute_from_cache` of its EKFACAttributor, which keeps activations and output "
    "gradients of all tokens in float32.",
    "Damping is a tenth of each layer's mean eigenvalue everywhere; dattri-llm's own default is 0.001.",
]
SURVIVAL_NOTES = [
    "SIGKILL when a random part (5 % to 95 %) of the examples of a build has gone through the net, and up to 50 ms "
    "later. A copy of what is left is asked; the same build is called again; the store is asked. Equal: to 1e-5 of "
    "the largest score. Work: examples that go through the net. Power failures were not tried.",
    "upweight: a question by `fit(store=…)` finishes the store first. A file of rows, 16 MB at most (all rows of "
    "int4), that was being made is made again.",
    "bergson has two steps, Hessian and index. Each writes into a folder of another name and renames it when it is "
    "whole; called again after a kill, it refuses until `overwrite=True`. A finished Hessian was kept.",
    "dattri-llm answers from the batches that were finished; the ids of its answer say which. A second build writes "
    "all examples after those that are there, which then count twice; the folder must be removed by hand. Killed "
    "before it had written a batch, it refuses, and the second build is whole.",
    "Bytes are inverted one at a time, at places drawn evenly from all bytes of a store. Those that are neither "
    "refused nor change a score are in numbers that no question reads, or are lost in rounding.",
]
LATE = {  # what packages import at their first call: before there are children, so that it counts nowhere
    OURS: ("upweight.store.engines", "upweight.store.build", "upweight.linear", "upweight.methods.influence"),
    BERGSON: ("bergson.cli.commands", "transformers.models.auto", "torch.profiler"),
    DATTRI: ("dattri_llm.attribution", "transformers.trainer", "torch.profiler"),
}


class Whole(NamedTuple):
    """A store that was built without a kill: its scores, and how many examples go through the net for it.

    `examples`: in a build. `asked`: in a question.
    """

    scores: Array
    examples: int
    asked: int

    def matches(self, answer: Ran) -> bool:
        """Whether these are the same scores, to 1e-5 of the largest."""
        if answer.error or answer.value.shape != self.scores.shape:
            return False
        return bool(np.abs(answer.value - self.scores).max() <= 1e-5 * np.abs(self.scores).max())

    def in_words(self, answer: Ran) -> str:
        """How a store that was not finished was answered from."""
        if answer.error:
            return f"refuses ({answer.error.split(':', maxsplit=1)[0]})"
        if self.matches(answer):
            return "completes itself" if answer.examples > self.asked else "complete"
        rows, needed = answer.value.shape[1], self.scores.shape[1]
        return "wrong scores" if rows == needed else f"{'fewer' if rows < needed else 'more'} rows, no warning"


def quality(task: FineTune, way: Way, folder: Path) -> tuple[list[str], Whole]:
    """Cells of the first table."""
    built = run(lambda: way.build(task, folder, False))
    assert not built.error, built.error
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / len(task.train)
    asked = run(lambda: way.ask(task, folder))
    assert not asked.error, asked.error
    price = run(lambda: second_question(task, way, folder)).value
    lds = [agreement(-asked.value @ (1 - task.removed(share)).T, task.truth(share))[1] for share in task.shares]
    signed = [text.replace("-", "−") for text in lds]
    cells = [f"{size:,.0f}", f"{built.seconds:.1f}", f"{price:.2f}", *signed]
    return cells, Whole(asked.value, built.examples, asked.examples)


def second_question(task: FineTune, way: Way, folder: Path) -> float:
    """Processor seconds, without what a first call alone does in a process."""
    way.ask(task, folder)
    start = time.process_time()
    way.ask(task, folder)
    return time.process_time() - start


def killed(task: FineTune, way: Way, folder: Path, whole: Whole, kills: int) -> list[str]:
    """Cells of the second table after kills at random moments: asked at once, built again, asked then."""
    moments, asked, again, equal, work = random.Random(0), list[str](), list[str](), 0, list[float]()
    copy = folder.with_name("copy")
    while len(asked) < kills:
        for path in (folder, copy):
            shutil.rmtree(path, ignore_errors=True)
        stop = moments.uniform(0.05, 0.95) * whole.examples
        if not run(lambda: way.build(task, folder, False), stop).is_killed:
            continue
        folder.mkdir(parents=True, exist_ok=True)  # it may have been killed before
        shutil.copytree(folder, copy)
        asked.append(whole.in_words(run(lambda: way.ask(task, copy))))
        built = run(lambda: way.build(task, folder, False))
        again.append("goes on" if built.examples < 0.99 * whole.examples else "begins anew")
        if built.error:
            built = run(lambda: way.build(task, folder, True))
            again[-1] = "begins the step anew once told to overwrite"
        assert not built.error, built.error
        work.append(built.examples / whole.examples)
        then = run(lambda: way.ask(task, folder))
        equal += whole.matches(then)
        print("  ", stop / whole.examples, asked[-1], "|", again[-1], work[-1], "|", whole.in_words(then), flush=True)
    return [tally(asked), tally(again), f"{np.mean(work):.0%}", f"{equal} of {kills}"]


def changed(task: FineTune, way: Way, folder: Path, whole: Whole, flips: int) -> list[str]:
    """Whether single changed bytes are found, at places drawn evenly from all bytes of a finished store."""
    generator, outcomes = np.random.default_rng(0), list[str]()
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    sizes = np.array([path.stat().st_size for path in paths])
    for _ in range(flips):
        path = paths[generator.choice(len(paths), p=sizes / sizes.sum())]
        place = int(generator.integers(path.stat().st_size))
        flip(path, place)
        answer = run(lambda: way.ask(task, folder))
        outcomes.append("found" if answer.error else "same" if np.array_equal(answer.value, whole.scores) else "other")
        flip(path, place)
    print("  ", tally(outcomes), flush=True)
    return [f"{outcomes.count('found')} of {flips}", str(outcomes.count("other"))]


def tally(words: list[str]) -> str:
    return "; ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))


def flip(path: Path, place: int) -> None:
    """Invert one byte; the second time restores it."""
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 0xFF]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with sst2.zip")
    parser.add_argument("--peers", type=Path, help="folder with other packages")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--flips", type=int, default=20)
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS))
    options = parser.parse_args()
    if options.peers:
        sys.path.append(str(options.peers))
    torch.set_num_threads(1)
    task, folder = small_gpt(options.data), Path(tempfile.mkdtemp())
    absent = [name for name in (BERGSON, DATTRI) if find_spec(name) is None]
    for name in [late for package in LATE if package not in absent for late in LATE[package]]:
        import_module(name)
    if BERGSON not in absent:
        run(lambda: checkpoint(task))
    missing = [f"{name} is not installed here, so it was left out." for name in absent]
    for name in options.ways:
        way = WAYS[name]
        if way.package in absent:
            continue
        where = folder / name.replace(" ", "-").replace(",", "")
        cells, whole = quality(task, way, where)
        keep_row(COSTS, [named(name, way), *cells], columns(task), [*COST_NOTES, *missing])
        if name in KILLED:
            flips = changed(task, way, where, whole, options.flips)
            row = [named(name, way), *killed(task, way, where, whole, options.kills), *flips]
            keep_row(SURVIVAL, row, SURVIVAL_COLUMNS, [*SURVIVAL_NOTES, *missing])
        shutil.rmtree(where)
    shutil.rmtree(folder)


def columns(task: FineTune) -> list[str]:
    asked = f"{len(task.queries)} queries, CPU s"
    return ["store", "bytes an example", "build, CPU s", asked, *(f"LDS, {s:.0%} removed" for s in task.shares)]


def keep_row(title: str, row: list[str], head: list[str], notes: list[str]) -> None:
    """Put a row into the table with this title; rows of other stores stay, in the order of `WAYS`."""
    print(title, row, flush=True)
    section = kept_section("stores")
    tables = section.tables if section else []
    before = next((table.rows for table in tables if table.title == title), [])
    stores = {named(name, way): place for place, (name, way) in enumerate(WAYS.items()) if find_spec(way.package)}
    rows = sorted([row, *(old for old in before if old[0] != row[0])], key=lambda row: stores.get(row[0], len(stores)))
    keep_table(Table(title, TARGETS[title], head, rows, notes))


def named(name: str, way: Way) -> str:
    """With the version of the package."""
    return name if way.package == OURS else name.replace(",", f" {version(way.package.replace('_', '-'))},", 1)


if __name__ == "__main__":
    main()
