"""The data that are poisoned: pictures of CIFAR-10, handwritten digits, and spoken digits as spectrograms."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import wavfile

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RATE, WINDOW, HOP = 8000, 256, 128  # samples per second, in a window of the spectrogram, between windows
FRAMES = 48  # windows of a spectrogram: 0.77 seconds; shorter recordings are followed by silence
Arrays = tuple[NDArray[Any], NDArray[Any]]


def cifar(folder: Path) -> tuple[Arrays, Arrays]:
    """((pictures, labels) of training, of test): float32 (n, 3, 32, 32) in [0, 1], in the order of the files."""
    parts = []
    with zipfile.ZipFile(folder / "cifar10-subset.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        for part in ("train", "test"):
            of_part = [name for name in names if f"{part}/" in name]
            pictures = np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in of_part])
            labels = np.array([CLASSES.index(name.split("/")[-2]) for name in of_part])
            parts.append((pictures.transpose(0, 3, 1, 2).astype(np.float32) / 255, labels))
    return parts[0], parts[1]


def mnist(folder: Path) -> tuple[Arrays, Arrays]:
    """((pictures, labels) of training, of test): float32 (n, 1, 28, 28) in [0, 1]."""
    with np.load(folder / "mnist.npz") as file:
        pairs = [(file[f"x{part}"], file[f"y{part}"]) for part in ("tr", "te")]
    train, test = ((x[:, None].astype(np.float32) / 255, y.astype(np.int64)) for x, y in pairs)
    return train, test


def recordings(folder: Path) -> tuple[list[NDArray[np.float32]], NDArray[Any], NDArray[Any]]:
    """(samples, digits, speakers) of all recordings, in the order of the files."""
    with zipfile.ZipFile(folder / "spoken-digits.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".wav"))
        raw = [wavfile.read(io.BytesIO(archive.read(name)))[1].astype(np.float32) for name in names]
    parts = [Path(name).stem.split("_") for name in names]
    sounds = [samples / np.abs(samples).max() for samples in raw]
    return sounds, np.array([int(digit) for digit, *_ in parts]), np.array([speaker for _, speaker, _ in parts])


def spectrogram(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """log(1 + 100 |short-time Fourier transform|) of a recording of peak 1: (1, 64, frames), 62.5 Hz per row."""
    length = WINDOW + HOP * (FRAMES - 1)
    padded = np.zeros(length, dtype=np.float32)
    padded[: min(len(samples), length)] = samples[:length]
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * np.hanning(WINDOW)
    magnitudes = np.abs(np.fft.rfft(windows, axis=1))[:, 1:129].reshape(FRAMES, 64, 2).mean(axis=2)
    return np.log1p(100 * magnitudes / WINDOW).T[None].astype(np.float32)
