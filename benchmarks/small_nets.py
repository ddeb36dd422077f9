"""Small nets on spoken digits and on a table: their data and shapes; torch, numpy and scipy alone."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

WINDOW, HOP, FRAMES, BANDS = 256, 128, 48, 16
INCOME, MISSING = ">50K", "?"


def spoken() -> nn.Module:
    return nn.Sequential(nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 10))


class Recurrent(nn.Module):
    """An LSTM over the frames of a spectrogram, and a linear layer on its last output."""

    def __init__(self, units: int = 64) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(BANDS, units, batch_first=True), nn.Linear(units, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x.unflatten(1, (-1, BANDS)))[0][:, -1])


def adult(columns: int = 94) -> nn.Module:
    return nn.Sequential(nn.Linear(columns, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))


def recordings(data: Path, train: int, queries: int) -> tuple[Tensor, ...]:
    """Spoken digits as log spectrograms of 16 bands and 12 frames, standardised."""
    from scipy.io import wavfile

    with zipfile.ZipFile(data / "spoken-digits.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".wav"))
        chosen = [names[i] for i in np.random.default_rng(0).permutation(len(names))[: train + queries]]
        sounds = [wavfile.read(io.BytesIO(archive.read(name)))[1] for name in chosen]
    x = np.stack([_spectrogram(sound.astype(np.float32)) for sound in sounds])
    return _split(x, np.array([int(Path(name).stem.split("_")[0]) for name in chosen]), train)


def incomes(data: Path, train: int, queries: int) -> tuple[Tensor, ...]:
    """UCI's Adult table: numbers standardised, categories one-hot, whether the income exceeds 50,000."""
    with zipfile.ZipFile(data / "tables-lime.zip") as archive:
        name = next(name for name in archive.namelist() if name.endswith("adult.csv"))
        rows = [row for row in csv.reader(io.StringIO(archive.read(name).decode())) if row]
    rows = [[cell.strip() for cell in row] for row in rows if not any(cell.strip() == MISSING for cell in row)]
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[: train + queries]]
    columns = []
    for column in list(zip(*rows, strict=True))[:-1]:
        try:
            columns.append(np.array(column, dtype=np.float32)[:, None])
        except ValueError:
            columns.append((np.array(column)[:, None] == np.unique(column)).astype(np.float32))
    return _split(np.concatenate(columns, axis=1), np.array([INCOME in row[-1] for row in rows]).astype(int), train)


def _spectrogram(samples: np.ndarray) -> np.ndarray:
    padded = np.zeros(WINDOW + HOP * (FRAMES - 1), dtype=np.float32)
    padded[: min(len(samples), len(padded))] = samples[: len(padded)] / np.abs(samples).max()
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * np.hanning(WINDOW)
    magnitudes = np.abs(np.fft.rfft(windows, axis=1))[:, 1:129].reshape(FRAMES // 4, 4, BANDS, -1).mean(axis=(1, 3))
    return np.log1p(100 * magnitudes / WINDOW).ravel()


def _split(x: np.ndarray, y: np.ndarray, train: int) -> tuple[Tensor, ...]:
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-6)
    inputs, labels = torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.int64))
    return inputs[:train], labels[:train], inputs[train:], labels[train:]
