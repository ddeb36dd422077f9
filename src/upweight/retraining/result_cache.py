"""Results of a long retraining job on disk, one file each, so that an interrupted job can resume."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from upweight.core.archive import read_archive, stored_array, well_formed, write_archive
from upweight.core.identity import digest
from upweight.core.partial_files import remove_partial_files
from upweight.core.provenance import identity_of
from upweight.retraining.task import Job, Task

Array = NDArray[np.float64]
KIND = "retrained"
SCHEMA = 2
DIGEST_DIGITS = 16  # digits of a job's identity in the names of its files

logger = logging.getLogger("upweight")


class ResultCache:
    """A folder of results. The name of each file is a digest of everything that the result depends on.

    A result of another model, training set, query set, training or set of weights has another name. So jobs can share a
    folder, and none of them reads the results of another.
    """

    def __init__(self, folder: str | Path, job: Job):
        self.folder, self.train = Path(folder), job.train
        model, queries = job.model, job.queries
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_partial_files(self.folder, "*.npz")
        evaluate = None if queries is None else job.evaluate
        self._job = digest(identity_of(model, job.train, queries), evaluate, job.stacked)[:DIGEST_DIGITS]
        if self.count() and not self.count(f"{self._job}-*"):
            logger.warning(
                "none of the %d results in %s belongs to this model, these data and queries: everything is retrained",
                self.count(),
                self.folder,
            )

    def count(self, pattern: str = "*") -> int:
        """How many results the folder holds whose file names match, of this job or of others."""
        return sum(1 for _ in self.folder.glob(f"{pattern}.npz"))

    def path(self, task: Task) -> Path:
        """The file of this task."""
        train, weights = task.training_set(self.train)
        data = None if train is self.train else train.digest()
        name = digest(task.seed, weights, data, task.roughly, task.queries)
        return self.folder / f"{self._job}-{name}.npz"

    def read(self, task: Task) -> Array | None:
        """The result of the task; None if there is no file, or if the file is damaged, which is logged."""
        path = self.path(task)
        if not path.exists():
            return None
        try:
            arrays, facts = read_archive(path, KIND, SCHEMA)
            with well_formed(path):
                if facts.get("name") not in (None, path.stem):  # files of earlier versions do not say
                    raise ValueError(f"it is the result {facts['name']!r} under another name")
                result = arrays["result"]
                return stored_array(arrays, "result", result.shape, "fiub", finite=False)
        except ValueError as error:
            logger.warning("%s; this training is repeated", error)
            return None

    def write(self, task: Task, result: Array) -> None:
        """Save the result, whole or not at all. Raises OSError if the disk is full."""
        path = self.path(task)
        try:
            facts = {"seed": task.seed, "name": path.stem}
            write_archive(path, KIND, {"result": result}, facts, SCHEMA, contents=None)
        except OSError as error:
            raise OSError(
                error.errno,
                f"a result could not be saved ({error.strerror}); {self.count()} finished results are saved in "
                f"{self.folder}: free some space and call again with the same folder to continue from there",
            ) from error
