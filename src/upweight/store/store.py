"""`Store`: a folder with the training gradients of one model, and how to make it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import upweight
from upweight.core.blocks import require_count
from upweight.core.examples import Examples
from upweight.core.identity import digest
from upweight.core.modules import Modules
from upweight.core.progress import Progress, no_progress
from upweight.core.provenance import digest_in_order_of_ids, identity_of, require_same
from upweight.engines.work_list import Rank
from upweight.store.build import PHASES, Builder
from upweight.store.encodings.encoding import Encoding
from upweight.store.engines import HOWS, How, build_as_rank, build_here, build_on_ray
from upweight.store.header import HEADER, Header
from upweight.store.manifest import read_manifests
from upweight.store.pilot_times import estimated_seconds
from upweight.store.plan import StorePlan, batch_size, captured_pilot, layouts_of, plan_of
from upweight.store.shard_files import checked_bytes
from upweight.store.usual_encoding import usual_encoding

FACTOR_EXAMPLES = 10_000
FACTOR_PARTS = 4  # files of the sums over the sample for the factors
SHARD_BYTES = 1 << 24
MAX_SHARD_ROWS = 1 << 17
DISK_MARGIN = 1.1  # of the disk, over the bytes of the rows


@dataclass(frozen=True)
class Store:
    """Training gradients on disk, row by row, from which attribution methods answer without a pass over the data.

    Args:
        folder: where the store is, or will be.
        encoding: what rows keep: `Coordinates()`, `LowRank()`, `LoGra()`, `SJLT()` or `ExactFactors()`. None for that
            of an existing store; of a new one `Coordinates()`, or with several positions (sequences, convolutions) what
            keeps most in a fiftieth of the bytes of a gradient.
        modules: patterns of names of modules that scores are about, as for `Influence(modules=…)`; None for all.
        seed: of the sample for the factors, and of sketches. None for 0, or that of an existing store.
        factor_examples: training examples from which the factors of the curvature are computed; None for 10,000.
        shard_bytes: of a file of rows, about; None for 16 MB.
        progress: called with (stage, done, total).
        how: who builds. None for this process; "torchrun" for all processes that torchrun started, each of which makes
            the same call; "ray" for actors on a cluster (extra `ray`). The files are the same.
        processes: actors at most, with "ray"; None for one on every processor of the cluster.
        memory: bytes that gradients may take beside the net and its data, in each process: fewer examples go through
            the net at a time, and fewer queries are attributed at a time. None for the usual sizes. It bounds captured
            gradients; the net's own activations come on top.

    `fit(model, train, store=uw.Store(folder))` of Influence, RelatIF, GradDot and GradCos builds what is missing and
    answers from it. Damping, measurement and modules are chosen when queries are attributed; the store does not depend
    on them.

    A file is written whole or not at all, and its line in the manifest after it: a build that was killed continues
    where it was, and at most one file is made twice. A store of another model, loss or training set, an incomplete
    store, and a file that was changed are refused by name.
    """

    folder: str | Path
    encoding: Encoding | None = None
    modules: Modules | None = None
    seed: int | None = None
    factor_examples: int | None = None
    shard_bytes: int | None = None
    progress: Progress = no_progress
    how: How | None = None
    processes: int | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.how is not None and self.how not in HOWS:
            raise ValueError(f"expected how to be one of {', '.join(HOWS)} or None, got {self.how!r}")
        if self.encoding is not None and not isinstance(self.encoding, Encoding):
            raise TypeError(f"expected an encoding such as Coordinates(), got {self.encoding!r}")
        for name in ("factor_examples", "shard_bytes", "processes", "memory"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder)

    def plan(self, model: Any, train: Examples) -> StorePlan:
        """What building the store takes: bytes, time and coverage, from a pilot of at most 512 examples."""
        header = self.header(model, train)
        builder = Builder(self.path, header, model, train)
        missing = {phase: len(builder.missing(phase)) for phase in PHASES}
        left = {phase: count / max(1, header.shards(phase)) for phase, count in missing.items()}
        seconds = estimated_seconds(model, train, header, left) if any(missing.values()) else 0.0
        return plan_of(header, seconds, header.shards("rows") - missing["rows"])

    def build(self, model: Any, train: Examples, writer: str = "0") -> None:
        """Make the files that are missing, as `how` says.

        Args:
            model: a network that can be stored.
            train: its training set.
            writer: the name of this process, if it builds alone; each process that writes has a manifest of its own.

        Raises:
            ValueError: the folder holds a store of something else, another process is building it under the same name,
                or the gradient of an example is not finite.
            OSError: there is no room on the disk.
            ImportError: Ray is wanted and not installed.
            RuntimeError: the workers of one file keep dying.
            TimeoutError: another rank made no file for an hour.
        """
        if self.how == "torchrun":
            build_as_rank(self.path, lambda: self.builder(model, train), Rank.of_process(), self.progress)
        elif self.how == "ray":
            build_on_ray(self.builder(model, train), self.processes, self.progress)
        else:
            build_here(self.builder(model, train), writer, self.progress)

    def builder(self, model: Any, train: Examples) -> Builder:
        """The work list of this store; the header is written if there is none yet.

        Raises ValueError or OSError as `build`.
        """
        header = self.header(model, train)
        if not (self.path / HEADER).exists():
            self._require_folder()
            self._require_room(header)
            header.write(self.path)
        return Builder(self.path, header, model, train)

    def header(self, model: Any, train: Examples) -> Header:
        """The header of the store, or the one that it will have.

        Raises ValueError if the store was made with another model, loss, training set or settings.
        """
        if not (self.path / HEADER).exists():
            return self._new_header(model, train)
        header = Header.read(self.path)
        require_same(
            f"the store in {self.path}", header.identity, _identity(model, train), "build another store", train
        )
        given = {
            "encoding": self.encoding,
            "seed": self.seed,
            "sample": None if self.factor_examples is None else min(self.factor_examples, _counted(model, train)),
        }
        for name, value in given.items():
            if value is not None and value != getattr(header, name):
                raise ValueError(
                    f"the store in {self.path} was made with {name} {getattr(header, name)}, got {value}; leave "
                    f"{name} out to ask it, or build another store"
                )
        return header

    def check(self) -> list[str]:
        """Read every finished file; returns a sentence for each that is missing or damaged, none if all is well.

        Raises ValueError or FileNotFoundError if the folder has no header, or the header or manifest is damaged.
        """
        header, receipts, problems = Header.read(self.path), read_manifests(self.path), []
        for phase in ("basis", "rows"):
            for number in range(header.shards(phase)):
                receipt = receipts.get((phase, number))
                if receipt is None:
                    problems.append(f"{phase} {number} is not built yet; the call that builds the store continues")
                    continue
                try:
                    checked_bytes(self.path, receipt)
                except ValueError as error:
                    problems.append(str(error))
        return problems

    def _new_header(self, model: Any, train: Examples) -> Header:
        network = model.network
        batch = captured_pilot(network, train)
        encoding = self.encoding or usual_encoding(network, batch)
        layouts, left_out = layouts_of(network, batch, encoding)
        sizes = {name: int(np.prod(shape)) for name, shape in network.shapes.items()}
        coverage = 1 - sum(sizes[name] for name in left_out) / network.size
        sample = min(self.factor_examples or FACTOR_EXAMPLES, _counted(model, train))
        precision = encoding.precision
        per_row = sum(layout.bytes(precision) for layout in layouts.values())
        shard_bytes = min(self.shard_bytes or SHARD_BYTES, self.memory or SHARD_BYTES)
        rows = max(1, min(len(train), MAX_SHARD_ROWS, shard_bytes // max(1, per_row)))
        return Header(
            identity=_identity(model, train) | _examples(train),
            encoding=encoding,
            layouts=layouts,
            left_out=left_out,
            coverage=coverage,
            rows=len(train),
            rows_per_shard=rows,
            batch=min(rows, batch_size(network, train, self.memory)),
            seed=self.seed or 0,
            sample=sample,
            sample_per_shard=-(-sample // FACTOR_PARTS),
            version=upweight.__version__,
        )

    def _require_folder(self) -> None:
        """Make the folder. Raises ValueError if it holds something else."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise type(error)(
                error.errno,
                f"the store cannot be made in {self.path} ({error.strerror}): name a folder that you may write",
            ) from error
        others = [path.name for path in self.path.iterdir() if not path.name.startswith(("manifest.", HEADER))]
        if others:
            raise ValueError(
                f"{self.path} is not a store and not empty (it holds {others[0]!r}): name another folder for the store"
            )

    def _require_room(self, header: Header) -> None:
        """Raise OSError if the rows have no room on the disk."""
        needed, free = int(DISK_MARGIN * header.rows * header.bytes_per_row), shutil.disk_usage(self.path).free
        if needed > free:
            raise OSError(
                f"the store in {self.path} needs about {needed:,} bytes, the disk has {free:,}: free some, name a "
                "folder on another disk, or choose fewer directions or bits"
            )


def _counted(model: Any, train: Examples) -> int:
    return int(np.count_nonzero(model.weights(train)))


def _examples(train: Examples) -> dict[str, str]:
    """The digest of the examples in any order, with which another order can be told from other examples."""
    in_order = digest_in_order_of_ids(train)
    return {} if in_order is None else {"examples": in_order}


def _identity(model: Any, train: Examples) -> dict[str, str]:
    """Digests of what rows depend on: not of the measurement, which is chosen when asking."""
    parts = identity_of(model, train)
    return {**{name: parts[name] for name in ("parameters", "loss", "data")}, "layers": digest(model.network.names)}
