"""Film reviews of SST-2 with their labels."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

COUNT = 12_000
FEWEST_WORDS = 6


def reviews(data: Path, rng: np.random.Generator) -> tuple[list[str], Any]:
    """(texts, labels) of a random part of the training set, without fragments of a few words."""
    with zipfile.ZipFile(data / "sst2.zip") as archive:
        name = next(name for name in archive.namelist() if name.endswith("train.tsv"))
        lines = io.TextIOWrapper(archive.open(name), encoding="utf-8").read().splitlines()[1:]
    pairs = [line.rsplit("\t", 1) for line in lines if len(line.split()) > FEWEST_WORDS]
    chosen = rng.permutation(len(pairs))[:COUNT]
    return [pairs[i][0].strip() for i in chosen], np.array([int(pairs[i][1]) for i in chosen])
