"""Trajectory: checkpoints and learning rates of a training, recorded inside the user's own loop."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from upweight.core.examples import Id
from upweight.core.files import open_atomically
from upweight.gradients.network import unwrapped
from upweight.training.optimiser_settings import OptimiserSettings, read_learning_rate, read_state, restore_state

VERSION = 1
MANIFEST = "trajectory.json"
STATE = "optimiser."  # what the names of the optimiser's tensors begin with
RATES, TAKEN = "rates", "batches"
BESIDE = {RATES, TAKEN}  # what is kept of the steps beside the net and the optimiser


@dataclass(frozen=True)
class Shard:
    """One checkpoint on disk.

    Attributes:
        step: optimiser steps taken so far.
        file, crc32: where it is and what its bytes sum to.
        travelled: Σ learning rates of the steps since the checkpoint before it.
    """

    step: int
    file: str
    crc32: int
    travelled: float


class Trajectory:
    """A folder of checkpoints that a training loop leaves behind.

        trajectory = uw.Trajectory("run", every=50)
        for batch in batches:
            …
            optimiser.step()
            trajectory.record(net, optimiser, batch=ids)       # before the scheduler's step

    Recording before the loop as well (`trajectory.save(net, optimiser)`) keeps the initial parameters, and `save` after
    it the last ones, where `every` does not divide the number of steps.

    Args:
        folder: is made; one that holds a trajectory is read, and continued after `resume`.
        every: steps between checkpoints. SOURCE needs about six in all.

    A checkpoint holds parameters, buffers, the optimiser's state, and of every step since the one before the learning
    rate and, where it was told, which examples it took. It is written beside its place, flushed and renamed; the
    manifest, which names it with its checksum, comes last: an interrupted write leaves the trajectory as it was.

    Raises:
        ValueError: the folder holds something else, or a damaged trajectory.
    """

    def __init__(self, folder: str | Path, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"expected a checkpoint every 1 or more steps, got every={every}")
        self.folder, self.every = Path(folder), every
        self.shards: list[Shard] = []
        self.steps: OptimiserSettings | None = None
        self._rates: list[float] = []  # since the last checkpoint
        self._batches: list[list[Id]] = []
        self._step = 0
        self._following = True  # whether what comes next follows what is there
        if (self.folder / MANIFEST).exists():
            self._read_manifest()
            self._following = False

    def __len__(self) -> int:
        return len(self.shards)

    def record(self, net: nn.Module, optimiser: Any, batch: Any = None) -> None:
        """Note one step of the optimiser; every `every` steps save a checkpoint.

        `batch`: ids of the examples that the step took (their positions in the training set, where `Examples` are not
        given ids), with which SOURCE goes through the training step by step; in every step or in none.

        Raises TypeError or ValueError for an optimiser whose steps are not known here, for what are no ids, and when
        the folder holds an earlier run that this one does not continue.
        """
        self._check(optimiser)
        if (batch is not None) != (len(self._batches) == len(self._rates)) and self._rates:
            raise ValueError(f"expected batch= in every step or in none, step {self._step + 1} differs from the others")
        if batch is not None:
            self._batches.append(_ids(self._step, batch))
        self._rates.append(read_learning_rate(optimiser))
        self._step += 1
        if self._step % self.every == 0:
            self.save(net, optimiser)

    def save(self, net: nn.Module, optimiser: Any) -> None:
        """Save a checkpoint here; nothing happens where there is one already."""
        self._check(optimiser)
        if self.shards and self.shards[-1].step == self._step:
            return
        tensors = {name: t.detach().cpu().contiguous().clone() for name, t in _tensors(net).items()}
        tensors |= {STATE + name: t.detach().cpu().contiguous() for name, t in read_state(net, optimiser).items()}
        tensors[RATES] = torch.tensor(self._rates, dtype=torch.float64)
        if self._batches:
            tensors[TAKEN] = torch.frombuffer(bytearray(json.dumps(self._batches).encode()), dtype=torch.uint8)
        data, file = save(tensors), f"step-{self._step:09d}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        with open_atomically(self.folder / file) as written:
            written.write(data)
        self.shards.append(Shard(self._step, file, zlib.crc32(data), float(sum(self._rates))))
        self._rates, self._batches = [], []
        self._write_manifest()

    def resume(self, net: nn.Module, optimiser: Any) -> int:
        """Put the last checkpoint into net and optimiser and go on from there; gives the steps taken so far.

        Learning rate schedules and the order of the data are the loop's own: continue them at that step.
        """
        self._following = True
        if not self.shards:
            return 0
        self._check(optimiser)
        stored = self.read(len(self.shards) - 1)
        belong(self.name_of(-1), stored, _tensors(net))
        with torch.no_grad():
            for name, tensor in _tensors(net).items():
                tensor.copy_(stored[name])
        state = {name.removeprefix(STATE): t for name, t in stored.items() if name.startswith(STATE)}
        restore_state(net, optimiser, state)
        return self._step

    def read(self, place: int) -> dict[str, Tensor]:
        """All tensors of one checkpoint. Raises ValueError for a file that is missing or damaged."""
        shard = self.shards[place]
        try:
            data = (self.folder / shard.file).read_bytes()
        except FileNotFoundError as error:
            raise ValueError(
                f"the checkpoint of step {shard.step} is missing ({self.folder / shard.file}); without it the "
                "trajectory has a hole: record the run again"
            ) from error
        if zlib.crc32(data) != shard.crc32:
            raise ValueError(
                f"the checkpoint of step {shard.step} ({self.folder / shard.file}) is damaged: its {len(data):,} bytes "
                "do not fit their checksum; record the run again"
            )
        try:
            return load(data)
        except SafetensorError as error:
            raise ValueError(f"{self.folder / shard.file} is no safetensors file ({error})") from error

    def rates(self) -> NDArray[np.float64]:
        """The learning rate of every step up to the last checkpoint, (steps,). Reads, and so checks, every file."""
        found = [self.read(place)[RATES].numpy() for place in range(len(self))]
        for shard, rates, before in zip(self.shards, found, [0, *(s.step for s in self.shards)], strict=False):
            if len(rates) != shard.step - before:
                raise ValueError(
                    f"expected the {shard.step - before} learning rates of steps {before + 1} to {shard.step} in "
                    f"{shard.file}, got {len(rates)}: steps are missing"
                )
        return np.concatenate(found) if found else np.empty(0)

    def batches(self) -> list[list[Id]] | None:
        """Ids of what every step took; None where that was not recorded, ValueError where it was for some of them."""
        stored = [(len(tensors[RATES]), tensors.get(TAKEN)) for tensors in map(self.read, range(len(self)))]
        told = [taken for _, taken in stored if taken is not None]
        if not told:
            return None
        if len(told) < sum(steps > 0 for steps, _ in stored):
            raise ValueError(
                f"{self.folder} says which examples took part for some of its steps only; pass batch= to record in "
                "every step, or ask for segments=3, which does not need it"
            )
        return [ids for taken in told for ids in json.loads(bytes(taken.tolist()))]

    def name_of(self, place: int) -> str:
        """One checkpoint in words."""
        return f"the checkpoint of step {self.shards[place].step} in {self.folder}"

    def require_end(self, net: nn.Module) -> None:
        """Raise ValueError unless every checkpoint is of this net and the last one holds its parameters."""
        if not self.shards:
            raise ValueError(f"{self.folder} holds no checkpoints: call trajectory.record(net, optimiser) in the loop")
        own = _tensors(net)
        for place in range(len(self)):
            stored = self.read(place)
            belong(self.name_of(place), stored, own)
        differ = [name for name, tensor in own.items() if not torch.equal(stored[name], tensor.detach().cpu())]
        if differ:
            raise ValueError(
                f"{self.name_of(-1)} is not the net handed in: {differ[0]!r} differs ({len(differ)} of {len(own)} "
                "tensors). Call trajectory.save(net, optimiser) after the last step, or pass the net as it was then"
            )

    def _check(self, optimiser: Any) -> None:
        steps = OptimiserSettings.of(optimiser)
        if not self._following:
            raise ValueError(
                f"{self.folder} already holds a run of {self._step} steps: call trajectory.resume(net, optimiser) "
                "before the loop to continue it, or record into another folder"
            )
        if self.steps is not None and steps != self.steps:
            raise ValueError(
                f"expected the optimiser that the trajectory began with ({self.steps}), got {steps}; changes of the "
                "learning rate are followed, changes of momentum, weight decay or kind are not"
            )
        self.steps = steps

    def _read_manifest(self) -> None:
        path = self.folder / MANIFEST
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            content = found["content"]
            if zlib.crc32(_plain(content)) != found["crc32"]:
                raise ValueError("its checksum does not fit")
            if content["version"] > VERSION:
                raise ValueError(f"format {content['version']}, this version reads up to {VERSION}")
            self.steps = OptimiserSettings(**content["steps"])
            self.shards = [Shard(**shard) for shard in content["shards"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged or was not written by upweight ({error})") from error
        self._step = self.shards[-1].step if self.shards else 0

    def _write_manifest(self) -> None:
        assert self.steps is not None
        content = {
            "version": VERSION,
            "steps": self.steps.as_dict(),
            "shards": [asdict(shard) for shard in self.shards],
        }
        text = json.dumps({"crc32": zlib.crc32(_plain(content)), "content": content}, indent=1)
        with open_atomically(self.folder / MANIFEST) as manifest:
            manifest.write(text.encode())


def belong(what: str, stored: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless the checkpoint has the net's tensors by name, shape and type."""
    held = {name for name in stored if not name.startswith(STATE) and name not in BESIDE}
    for names, problem in ((held - set(own), "tensors the net lacks"), (set(own) - held, "none of the net's tensors")):
        if names:
            raise ValueError(
                f"{what} does not belong to this net: it has {problem} ({', '.join(sorted(names)[:3])}, "
                f"{len(names)} in all); pass the net that was recorded"
            )
    for name, tensor in own.items():
        ours, theirs = (tuple(tensor.shape), tensor.dtype), (tuple(stored[name].shape), stored[name].dtype)
        if ours != theirs:
            raise ValueError(
                f"{what} does not belong to this net: expected {name!r} of shape {ours[0]} in {ours[1]}, got "
                f"{theirs[0]} in {theirs[1]}"
            )


def _ids(step: int, batch: Any) -> list[Id]:
    found = np.asarray(batch)
    if found.ndim != 1 or not len(found) or found.dtype.kind not in "iuU":
        raise ValueError(
            f"expected ids of examples for the batch of step {step}, whole numbers or texts, got {batch!r}"
        )
    ids: list[Id] = found.tolist()
    return ids


def _tensors(net: nn.Module) -> dict[str, Tensor]:
    """Parameters (tied ones once) and the buffers that are saved with a net."""
    net = unwrapped(net)
    kept = set(net.state_dict(keep_vars=True))
    return {
        **dict(net.named_parameters()),
        **{name: buffer for name, buffer in net.named_buffers() if name in kept},
    }


def _plain(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True).encode()
