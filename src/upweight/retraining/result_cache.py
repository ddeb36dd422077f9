"""Result cache: results of a long job on disk, one file each, so that a job that was interrupted goes on."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.archive import read_archive, write_archive
from upweight.core.attributor import fingerprint
from upweight.core.examples import Examples
from upweight.retraining.task import Job, Task

Array = NDArray[np.float64]
KIND = "retrained"

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
        asked = None if queries is None else (_identity(None, queries), job.ask.__name__, model.measurement)
        parts = _identity(model, job.train), model.provenance, asked, "stacked" if job.stacked else "alone"
        self._job = hashlib.blake2b(repr(parts).encode(), digest_size=6).hexdigest()
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
        digest = hashlib.blake2b(f"{task.seed} ".encode(), digest_size=12)
        train, weights = task.on(self.train)
        digest.update(np.ascontiguousarray(weights).tobytes())
        if train is not self.train:
            digest.update(_identity(None, train).encode())
        if task.roughly:
            digest.update(b"roughly")
        if task.queries is not None:
            digest.update(b"queries" + np.ascontiguousarray(task.queries).tobytes())
        return self.folder / f"{self._job}-{digest.hexdigest()}.npz"

    def read(self, task: Task) -> Array | None:
        """The result of the task; None where there is no file, or a damaged one, which is logged."""
        path = self.path(task)
        if not path.exists():
            return None
        try:
            arrays, _ = read_archive(path, KIND)
        except ValueError as error:
            logger.warning("%s; that training is done again", error)
            return None
        return np.asarray(arrays["result"])

    def write(self, task: Task, result: Array) -> None:
        """Keep the result, whole or not at all. Raises OSError where the disk is full."""
        path = self.path(task)
        try:
            write_archive(path, KIND, {"result": result}, {"seed": task.seed})
        except OSError as error:
            raise OSError(
                error.errno,
                f"a result could not be kept ({error.strerror}); {self.count()} finished ones are whole in "
                f"{self.folder}: make room and call again with the same folder, which goes on from there",
            ) from error


def _identity(model: Any, examples: Examples) -> str:
    """What a result depends on, as a short name."""
    return fingerprint(model, examples)
