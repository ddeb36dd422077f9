"""Result cache: results of a long job on disk, one file each, so that a job that was interrupted goes on."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from upweight.core.archive import read_archive, write_archive
from upweight.core.identity import digest
from upweight.core.provenance import identity_of
from upweight.retraining.task import Job, Task

Array = NDArray[np.float64]
KIND = "retrained"
SCHEMA = 2
SHOWN = 16  # digits of a job's identity in the names of its files

logger = logging.getLogger("upweight")


class ResultCache:
    """A folder of results, each in a file named after everything that it depends on.

    A result of another model, training set, query set, way of training or set of weights has another name, so a
    folder can be shared by jobs and never gives one of them the numbers of another.
    """

    def __init__(self, folder: str | Path, job: Job):
        self.folder, self.train = Path(folder), job.train
        model, queries = job.model, job.queries
        self.folder.mkdir(parents=True, exist_ok=True)
        asked = None if queries is None else job.evaluate
        self._job = digest(identity_of(model, job.train, queries), asked, job.stacked)[:SHOWN]
        if self.count() and not self.count(f"{self._job}-*"):
            logger.warning(
                "none of the %d results in %s is of this model, these data and queries: all are trained anew",
                self.count(),
                self.folder,
            )

    def count(self, named: str = "*") -> int:
        """How many results the folder holds, of this job or of others."""
        return sum(1 for _ in self.folder.glob(f"{named}.npz"))

    def path(self, task: Task) -> Path:
        """The file of this task."""
        train, weights = task.on(self.train)
        data = None if train is self.train else train.digest()
        name = digest(task.seed, weights, data, task.roughly, task.queries)
        return self.folder / f"{self._job}-{name}.npz"

    def read(self, task: Task) -> Array | None:
        """The result of the task; None where there is no file, or a damaged one, which is logged."""
        path = self.path(task)
        if not path.exists():
            return None
        try:
            arrays, _ = read_archive(path, KIND, SCHEMA)
        except ValueError as error:
            logger.warning("%s; that training is done again", error)
            return None
        return np.asarray(arrays["result"])

    def write(self, task: Task, result: Array) -> None:
        """Keep the result, whole or not at all. Raises OSError where the disk is full."""
        path = self.path(task)
        try:
            write_archive(path, KIND, {"result": result}, {"seed": task.seed}, SCHEMA)
        except OSError as error:
            raise OSError(
                error.errno,
                f"a result could not be kept ({error.strerror}); {self.count()} finished ones are whole in "
                f"{self.folder}: make room and call again with the same folder, which goes on from there",
            ) from error
