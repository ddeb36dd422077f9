"""Builds a store in children that are killed: `python -m support.killed_builds FOLDER ENCODING KILLS`.

Prints how many files were made in all, how many were needed, how many children were killed, and whether all stores that
were finished have the same bytes.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

import upweight as uw
from support.stored_nets import TRAIN, files, model, store
from upweight.store.build import PHASES, Builder

ENCODINGS = {
    "coordinates": uw.Coordinates(),
    "int4": uw.LoGra(directions=8, precision="int4"),
    "exact": uw.ExactFactors(),
}


def build(folder: Path, encoding: uw.Encoding, log: Path, made: uw.TorchModel) -> None:
    """Build what is missing, and append a byte to the log for every file that is begun."""
    make = Builder.make

    def logged(self: Builder, phase: str, number: int) -> object:
        with open(log, "ab") as file:
            file.write(b".")
        return make(self, phase, number)

    Builder.make = logged  # type: ignore[assignment,method-assign]
    store(folder, encoding).build(made, TRAIN)


def main(folder: Path, name: str, kills: int) -> None:
    """Kill children until so many were killed, then let one finish; a store that was finished before is begun anew.

    A child lives at most as long as a whole build took.
    """
    torch.set_num_threads(1)
    made, encoding, log, killed = model(), ENCODINGS[name], folder.with_suffix(".log"), 0
    header = store(folder, encoding).header(made, TRAIN)  # looks at the net once, before there are children
    generator, finished = random.Random(0), list[dict[str, bytes]]()
    longest = 60.0
    while True:
        start, child = time.perf_counter(), os.fork()
        if child == 0:
            build(folder, encoding, log, made)
            os._exit(0)
        if finished and killed < kills:
            time.sleep(generator.uniform(0.0, longest))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
            continue
        longest = min(longest, time.perf_counter() - start)
        finished.append(files(folder))
        if killed >= kills:
            break
        shutil.rmtree(folder)
    needed = sum(header.shards(phase) for phase in PHASES) * len(finished)
    print(len(log.read_bytes()), needed, killed, all(contents == finished[0] for contents in finished))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
