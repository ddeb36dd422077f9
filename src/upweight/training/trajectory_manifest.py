"""The manifest of a recorded trajectory: its checkpoints with their checksums, and the settings of the optimiser."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from upweight.core.archive import well_formed
from upweight.core.files import open_atomically, open_regular
from upweight.training.optimiser_settings import OptimiserSettings

VERSION = 3  # 2 has the weight decay of every parameter and evidence of steps, 3 what parameter groups differ in
MANIFEST = "trajectory.json"


@dataclass(frozen=True)
class Shard:
    """One checkpoint on disk.

    Attributes:
        step: optimiser steps taken before the checkpoint.
        file, crc32: the name of its file, and the checksum of the file's bytes.
        travelled: Σ learning rates of the steps since the previous checkpoint, under its name in the file.
    """

    step: int
    file: str
    crc32: int
    travelled: float


def read_manifest(folder: Path) -> tuple[OptimiserSettings, list[Shard]] | None:
    """The optimiser's settings and the checkpoints; None if the folder has no manifest.

    Raises ValueError if the manifest is damaged, is not a manifest, or was written by a newer version.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    with open_regular(path) as file:
        text = file.read()
    with well_formed(path):
        manifest = json.loads(text)
        content = manifest["content"]
        if zlib.crc32(encode(content)) != manifest["crc32"]:
            raise ValueError("its checksum is wrong")
        version = content["version"]
        if type(version) is not int or not 1 <= version <= VERSION:
            raise ValueError(f"format {version}, this version reads up to {VERSION}")
        settings = OptimiserSettings(**content["steps"])
        settings.require_well_formed()
        return settings, _shards(content["shards"])


def write_manifest(folder: Path, settings: OptimiserSettings, shards: Sequence[Shard]) -> None:
    """Replace the manifest, whole or not at all."""
    content = {"version": VERSION, "steps": settings.as_dict(), "shards": [asdict(shard) for shard in shards]}
    text = json.dumps({"crc32": zlib.crc32(encode(content)), "content": content}, indent=1)
    with open_atomically(folder / MANIFEST) as file:
        file.write(text.encode())


def _shards(stored: Any) -> list[Shard]:
    """The checkpoints in the order of their steps. Raises ValueError or TypeError if the file is not a manifest."""
    shards = [Shard(**shard) for shard in stored]
    for shard in shards:
        if type(shard.step) is not int or type(shard.crc32) is not int or type(shard.file) is not str:
            raise TypeError(f"expected the step, the file and the checksum of a checkpoint, got {shard!r:.80}")
        if Path(shard.file).name != shard.file or not math.isfinite(shard.travelled):
            raise ValueError(f"expected a file in the folder and a sum of learning rates, got {shard!r:.80}")
    steps = [shard.step for shard in shards]
    if steps != sorted(set(steps)) or any(step < 0 for step in steps):
        raise ValueError("its steps do not ascend")
    return shards


def encode(content: Any) -> bytes:
    """The content as bytes, of which the manifest holds the checksum."""
    return json.dumps(content, sort_keys=True).encode()
