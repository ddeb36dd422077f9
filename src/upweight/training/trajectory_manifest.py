"""The manifest of a recorded trajectory: its checkpoints with their checksums, and the settings of the optimiser."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from upweight.core.files import open_atomically
from upweight.training.optimiser_settings import OptimiserSettings

VERSION = 2  # 2 has the weight decay of every parameter, and evidence of the steps after checkpoints
MANIFEST = "trajectory.json"


@dataclass(frozen=True)
class Shard:
    """One checkpoint on disk.

    Attributes:
        step: optimiser steps taken before the checkpoint.
        file, crc32: the name of its file, and the checksum of the file's bytes.
        travelled: Σ learning rates of the steps since the previous checkpoint.
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
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        content = manifest["content"]
        if zlib.crc32(encode(content)) != manifest["crc32"]:
            raise ValueError("its checksum is wrong")
        if content["version"] > VERSION:
            raise ValueError(f"format {content['version']}, this version reads up to {VERSION}")
        return OptimiserSettings(**content["steps"]), [Shard(**shard) for shard in content["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or was not written by upweight ({error})") from error


def write_manifest(folder: Path, settings: OptimiserSettings, shards: Sequence[Shard]) -> None:
    """Replace the manifest, whole or not at all."""
    content = {"version": VERSION, "steps": settings.as_dict(), "shards": [asdict(shard) for shard in shards]}
    text = json.dumps({"crc32": zlib.crc32(encode(content)), "content": content}, indent=1)
    with open_atomically(folder / MANIFEST) as file:
        file.write(text.encode())


def encode(content: Any) -> bytes:
    """The content as bytes, of which the manifest holds the checksum."""
    return json.dumps(content, sort_keys=True).encode()
