"""The record of a run from which it is replayed, beside its checkpoints: micro-batches, random numbers, settings."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.archive import well_formed
from upweight.core.files import open_atomically, open_regular
from upweight.training.checkpoint_file import read_checkpoint, write_checkpoint
from upweight.training.micro_batches import MicroBatch
from upweight.training.trajectory_manifest import Shard, encode

MANIFEST, VERSION = "replay.json", 1
NO_STATE = -1  # the place of the state of a micro-batch that draws no random numbers


@dataclass
class RunFacts:
    """Settings of the loop that every step shares.

    Attributes:
        device: the type of the device.
        accumulation: what the objective of a step is a mean over: "pooled" (all terms of the step), "averaged" (the
            micro-batches' means) or "summed" (the same, not divided by their number).
        clip: the largest norm of the gradient; None if it is not clipped.
        shifted: whether the first label of a row has no term in the loss.
        obstacles: sentences that say what of this run cannot be replayed.
        examples: the number of examples of the data set; None if it is not known.
        autocast: whether it trained in bf16 under autocast.
        loop_steps: step of the trajectory → step as the loop counts, which counts skipped steps too.
    """

    device: str = "cpu"
    accumulation: str | None = None
    clip: float | None = None
    shifted: bool | None = None
    examples: int | None = None
    obstacles: list[str] = field(default_factory=list)
    autocast: bool = False
    loop_steps: dict[str, int] = field(default_factory=dict)

    def note(self, obstacle: str) -> None:
        """Add a sentence, once."""
        if obstacle not in self.obstacles:
            self.obstacles.append(obstacle)


@dataclass(frozen=True)
class RecordedMicroBatches:
    """The micro-batches of consecutive steps.

    Attributes:
        sizes: step → the number of rows of each of its micro-batches.
        places: step → for each micro-batch the row of `states` with which it began, −1 if it drew no random numbers.
        states: (distinct states, bytes).
        terms: step → (rows,), the number of terms in the loss of every row.
        contents: step → (rows,), a digest of every row.
    """

    sizes: list[list[int]]
    places: list[list[int]]
    states: Tensor
    terms: list[NDArray[np.float64]]
    contents: list[NDArray[np.int64]]

    @classmethod
    def of(cls, steps: Sequence[Sequence[MicroBatch]], shifted: bool) -> RecordedMicroBatches:
        """Make the record from the micro-batches of every step."""
        distinct: dict[bytes, int] = {}
        places = [
            [
                NO_STATE if m.state is None else distinct.setdefault(m.state.numpy().tobytes(), len(distinct))
                for m in step
            ]
            for step in steps
        ]
        states = [torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in distinct]
        return cls(
            [[len(m.ids) for m in step] for step in steps],
            places,
            torch.stack(states) if states else torch.empty(0, 0, dtype=torch.uint8),
            [np.concatenate([m.shifted_terms if shifted else m.terms for m in step]) for step in steps],
            [np.concatenate([m.contents for m in step]) for step in steps],
        )

    @classmethod
    def join(cls, parts: Sequence[RecordedMicroBatches]) -> RecordedMicroBatches:
        """Consecutive parts as one."""
        starts = np.cumsum([0, *(len(part.states) for part in parts)])
        places = [
            [place if place == NO_STATE else place + int(start) for place in step]
            for part, start in zip(parts, starts[:-1], strict=True)
            for step in part.places
        ]
        filled = [part.states for part in parts if len(part.states)]
        return cls(
            [step for part in parts for step in part.sizes],
            places,
            torch.cat(filled) if filled else torch.empty(0, 0, dtype=torch.uint8),
            [step for part in parts for step in part.terms],
            [step for part in parts for step in part.contents],
        )

    def tensors(self) -> dict[str, Tensor]:
        """The record as a file holds it."""
        flat: dict[str, Tensor] = {
            "passes": torch.tensor([len(step) for step in self.sizes]),
            "sizes": torch.tensor([size for step in self.sizes for size in step]),
            "places": torch.tensor([place for step in self.places for place in step]),
            "states": self.states,
            "terms": torch.from_numpy(np.concatenate(self.terms)),
            "contents": torch.from_numpy(np.concatenate(self.contents)),
        }
        # `read_checkpoint` expects learning rates; a file of micro-batches has none.
        return {**flat, "rates": torch.empty(0, dtype=torch.float64)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> RecordedMicroBatches:
        """The inverse of `tensors`."""
        ends = np.cumsum(tensors["passes"].numpy())[:-1]
        sizes = [part.tolist() for part in np.split(tensors["sizes"].numpy(), ends)]
        places = [part.tolist() for part in np.split(tensors["places"].numpy(), ends)]
        rows = np.cumsum([sum(step) for step in sizes])[:-1]
        terms, contents = (np.split(tensors[name].numpy(), rows) for name in ("terms", "contents"))
        return cls(sizes, places, tensors["states"], terms, contents)


class ReplayRecord:
    """The facts of a run and its micro-batches, in the folder of its trajectory.

    Attributes:
        ids: the id of every position of the data set, if ids are not positions and this process recorded the run.

    Raises ValueError if the folder holds a damaged record.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.facts = folder, RunFacts()
        self.files: list[Shard] = []
        self.ids: NDArray[Any] | None = None
        path = folder / MANIFEST
        if not path.exists():
            return
        with open_regular(path) as file:
            text = file.read()
        with well_formed(path):
            stored = json.loads(text)
            content = stored["content"]
            if zlib.crc32(encode(content)) != stored["crc32"] or content["version"] != VERSION:
                raise ValueError("its checksum or its version is wrong")
            self.facts = RunFacts(**content["facts"])
            self.files = [Shard(**entry) for entry in content["files"]]
            if any(Path(entry.file).name != entry.file for entry in self.files):
                raise ValueError("expected files in the folder")

    def write(self, step: int, steps: Sequence[Sequence[MicroBatch]]) -> None:
        """Add the micro-batches of the steps that end before the checkpoint of this step."""
        if steps:
            recorded = RecordedMicroBatches.of(steps, bool(self.facts.shifted))
            file = f"replay-{step:09d}.safetensors"
            self.files = [entry for entry in self.files if entry.step < step]
            checksum = write_checkpoint(self.folder / file, recorded.tensors())
            self.files.append(Shard(step, file, checksum, 0.0))
        self.write_facts()

    def write_facts(self) -> None:
        """Write the manifest, whole or not at all."""
        content = {"version": VERSION, "facts": asdict(self.facts), "files": [asdict(entry) for entry in self.files]}
        self.folder.mkdir(parents=True, exist_ok=True)
        with open_atomically(self.folder / MANIFEST) as file:
            file.write(json.dumps({"crc32": zlib.crc32(encode(content)), "content": content}, indent=1).encode())

    def rewind(self, step: int) -> None:
        """Forget what was recorded after this step of the trajectory."""
        self.files = [entry for entry in self.files if entry.step <= step]
        self.facts.loop_steps = {key: value for key, value in self.facts.loop_steps.items() if int(key) <= step}

    def read(self, last: int) -> RecordedMicroBatches:
        """The micro-batches of all steps up to this one. Raises ValueError if a file is missing or damaged."""
        entries = [entry for entry in self.files if entry.step <= last]
        parts = [RecordedMicroBatches.from_tensors(read_checkpoint(self.folder, entry)) for entry in entries]
        if sum(len(part.sizes) for part in parts) != last:
            raise ValueError(
                f"{self.folder} has the micro-batches of {sum(len(p.sizes) for p in parts)} of {last} steps; record "
                "the run again"
            )
        return RecordedMicroBatches.join(parts)
