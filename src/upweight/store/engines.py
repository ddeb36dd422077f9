"""The ways to build a store: in this process, as one of several ranks, and on Ray actors."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, final
from uuid import uuid4

from upweight.core.announcements import announcements
from upweight.core.examples import Examples
from upweight.core.progress import Progress, rename_stages
from upweight.curvature.no_curvature import NoCurvatureError
from upweight.engines.work_list import Rank, WorkList, run_as_rank, run_here, wait_until
from upweight.store.build import PHASES, Builder
from upweight.store.coordinate_curvature import kept_share_of
from upweight.store.header import HEADER, Header
from upweight.store.manifest import ManifestWriter, manifest_writer
from upweight.store.shard_files import Receipt

How = Literal["torchrun", "ray"]
HOWS = ("torchrun", "ray")
NEARLY_ALL = 0.9995  # of the squared scores of every layer
STAGES = {phase: f"store: {phase}" for phase in (*PHASES, "start")}


@final
class StoreWork(WorkList):
    """The files of a store, made by this process under the name of one writer."""

    phases = PHASES

    def __init__(self, builder: Builder, manifest: ManifestWriter) -> None:
        self._builder, self._manifest = builder, manifest

    def count(self, phase: str) -> int:
        """How many files a phase has."""
        return self._builder.header.shards(phase)

    def missing(self, phase: str) -> list[int]:
        """Numbers of the files that are not finished."""
        return self._builder.missing(phase)

    def commit(self, phase: str, number: int) -> None:
        """Make a file and write it."""
        self._builder.commit(phase, number, self._manifest)
        if phase == "basis":
            _announce_kept_share(self._builder)


class Sent(NamedTuple):
    """The parts with which an actor makes files of a store; its header was compared with model and training set."""

    folder: Path
    header: Header
    model: Any
    train: Examples


def build_here(builder: Builder, writer: str, progress: Progress) -> None:
    """Make what is missing in this process. A finished store may be in a folder that cannot be written."""
    builder.check()
    if not any(builder.missing(phase) for phase in PHASES):
        with suppress(OSError):  # left by a build that was killed after its last file
            builder.remove_temporary()
        for phase in PHASES:
            progress(STAGES[phase], builder.header.shards(phase), builder.header.shards(phase))
        return
    with manifest_writer(builder.folder, writer) as manifest:
        run_here(StoreWork(builder, manifest), _staged(progress))
        builder.remove_temporary()


def build_as_rank(folder: Path, make_builder: Callable[[], Builder], rank: Rank, progress: Progress) -> None:
    """Make the files of this rank and wait for those of the others; rank 0 writes the header and removes the rest."""
    if rank.number > 0:
        wait_until((folder / HEADER).exists, f"the header of {folder}")
    builder = make_builder()
    if rank.number == 0:
        builder.check()
    with manifest_writer(folder, str(rank.number)) as manifest:
        run_as_rank(StoreWork(builder, manifest), rank, _staged(progress))
        if rank.number == 0:
            builder.remove_temporary()


def build_on_ray(builder: Builder, actors: int | None, progress: Progress) -> None:
    """Make what is missing on Ray actors, which have the model from the first file to the last.

    Actors return receipts, not arrays. One that dies costs the file that it was at.
    """
    from upweight.engines.ray_actors import RayActors

    builder.check()
    progress = _staged(progress)
    sent = Sent(builder.folder.resolve(), builder.header, builder.model, builder.train)
    with manifest_writer(builder.folder, "0"), ExitStack() as stack:  # so that no other build starts meanwhile
        running: RayActors | None = None
        for phase in PHASES:
            numbers, count = builder.missing(phase), builder.header.shards(phase)
            if numbers and running is None:
                progress("start", 0, 1)  # apart from the phase, whose time left would count it
                running = stack.enter_context(RayActors(make_file, sent, load=ActorBuilder, actors=actors))
                running.start(len(numbers))
                progress("start", 1, 1)
            progress(phase, count - len(numbers), count)
            if not numbers or running is None:
                continue
            names = [f"{phase} {number}" for number in numbers]
            for _ in running.run([(phase, number) for number in numbers], names.__getitem__):
                progress(phase, count - len(builder.missing(phase)), count)
            if phase == "basis":
                _announce_kept_share(builder)
        builder.remove_temporary()


@final
class ActorBuilder:
    """The builder of one actor, and its manifest, which is open until the actor ends."""

    def __init__(self, sent: Sent) -> None:
        self.builder = Builder(*sent)
        self._manifest = manifest_writer(sent.folder, f"ray-{socket.gethostname()}-{uuid4().hex[:8]}")
        self.manifest = self._manifest.__enter__()


def make_file(builder: ActorBuilder, task: tuple[str, int]) -> Receipt:
    """Make one file in an actor."""
    return builder.builder.commit(*task, builder.manifest)


def _announce_kept_share(builder: Builder) -> None:
    """Say what the directions of the rows hold, before the rows are made; nothing, if no example has curvature."""
    try:
        shares = kept_share_of(builder)
    except NoCurvatureError:  # EK-FAC's own damping is a share of nothing; other questions may have an answer
        return
    least = min(shares, key=lambda name: shares[name])
    if shares[least] >= NEARLY_ALL:
        announcements.info("Rows keep nearly all of the squared scores of every layer.")
        return
    announcements.info(
        "Rows keep %.1f%% to %.1f%% of the squared scores of a layer (least of %s).",
        *(100 * shares[least], 100 * max(shares.values()), least),
    )


def _staged(progress: Progress) -> Progress:
    renamed = rename_stages(STAGES, progress)
    assert renamed is not None
    return renamed
