"""Sentiment: phrases of film reviews (SST-2)."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LENGTHS = (6, 14)  # words; the shortest phrases say nothing, and the longest cost the most
Texts = tuple[list[str], NDArray[np.int64]]


def phrases(folder: Path, part: str, count: int) -> Texts:
    """(Texts, labels) of a random part: of `train` or `dev`."""
    with zipfile.ZipFile(folder / "sst2.zip") as archive:
        lines = archive.read(f"sst2_{part}.tsv").decode("utf-8").splitlines()[1:]
    rows = [line.rsplit("\t", 1) for line in lines]
    known = {text.strip(): int(label) for text, label in rows if LENGTHS[0] <= len(text.split()) <= LENGTHS[1]}
    chosen = np.random.default_rng(0).permutation(len(known))[:count]
    texts = [list(known)[i] for i in chosen]
    return texts, np.array([known[text] for text in texts])
