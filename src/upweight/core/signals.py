"""Recordings and series as reports show them: a spectrogram with a player, and lines over time."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 160, 80  # pixels of a picture
RANGE = 70.0  # decibels below the loudest part that are shown as black
MAX_RATE = 768_000  # samples per second


@dataclass(frozen=True, eq=False)
class Audio:
    """A recording for `Examples(shown=[…])`: reports show its spectrogram and a player.

    Every spectrogram has a scale of its own: white is its loudest part, black 70 decibels below it.

    Attributes:
        samples: (n,) of one channel, whole numbers of 16 bits or less, or floats of which 1 is the loudest.
        rate: samples per second.
    """

    samples: NDArray[Any]
    rate: int

    def __post_init__(self) -> None:
        samples = np.asarray(self.samples)
        if samples.ndim != 1 or not len(samples) or samples.dtype.kind not in "iuf" or not np.isfinite(samples).all():
            raise ValueError(f"expected finite samples of one channel (n,), got {samples.dtype} of {samples.shape}")
        if isinstance(self.rate, bool) or not isinstance(self.rate, int) or not 1 <= self.rate <= MAX_RATE:
            raise ValueError(f"expected a rate from 1 to {MAX_RATE:,} samples per second, got {self.rate!r}")
        object.__setattr__(self, "samples", samples)

    @classmethod
    def each(cls, recordings: Iterable[Any], rate: int) -> list[Audio]:
        """One for every recording."""
        return [cls(samples, rate) for samples in recordings]

    @property
    def seconds(self) -> float:
        """The duration."""
        return len(self.samples) / self.rate

    def picture(self) -> NDArray[np.uint8]:
        """The spectrogram, (80, ≤ 160): time to the right, frequencies from 0 at the bottom to half the rate."""
        samples = self.samples.astype(np.float64)
        size = 2 * HEIGHT  # of a window; a short recording is padded
        padded = np.pad(samples, (0, max(0, size - len(samples))))
        starts = np.unique(np.linspace(0, len(padded) - size, WIDTH).astype(int))
        windows = np.lib.stride_tricks.sliding_window_view(padded, size)[starts] * np.hanning(size)
        power = np.abs(np.fft.rfft(windows, axis=1)[:, :HEIGHT]) ** 2
        loudest = power.max()
        if loudest == 0:
            return np.zeros((HEIGHT, len(starts)), dtype=np.uint8)
        decibels = 10 * np.log10(np.maximum(power / loudest, 10 ** (-RANGE / 10)))
        picture: NDArray[np.uint8] = np.round(255 * (1 + decibels / RANGE)).astype(np.uint8).T[::-1]
        return picture

    def wav(self) -> bytes:
        """The recording as a WAV file of 16 bits; samples beyond the range are scaled to fit it."""
        samples = self.samples.astype(np.float64) * (1.0 if self.samples.dtype.kind in "iu" else 32767.0)
        peak = float(np.abs(samples).max())
        samples *= 32767.0 / peak if peak > 32767.0 else 1.0
        file = io.BytesIO()
        with wave.open(file, "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(self.rate)
            out.writeframes(np.round(samples).astype("<i2").tobytes())
        return file.getvalue()


@dataclass(frozen=True, eq=False)
class Series:
    """Numbers over time for `Examples(shown=[…])`: reports show them as lines, each example on a scale of its own.

    Attributes:
        values: (steps,) or (steps, channels); missing values are NaN.
    """

    values: NDArray[Any]

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        if values.ndim not in (1, 2) or 0 in values.shape or np.isinf(values).any():
            raise ValueError(f"expected finite values (steps,) or (steps, channels), got shape {values.shape}")
        object.__setattr__(self, "values", values.reshape(len(values), -1))

    @classmethod
    def each(cls, series: Iterable[Any]) -> list[Series]:
        """One for every series."""
        return [cls(values) for values in series]

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest value; (0, 0) if all are missing."""
        known = self.values[~np.isnan(self.values)]
        return (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)

    def lines(self) -> list[list[list[float]]]:
        """For every channel, points (x, y) in the unit square; of many steps the extremes of each part are kept."""
        low, high = self.scale
        steps = len(self.values)
        heights = (self.values - low) / (high - low) if high > low else np.where(np.isnan(self.values), np.nan, 0.5)
        lines = []
        for channel in heights.T:
            chosen = np.arange(steps)
            if steps > 2 * WIDTH:
                parts = np.array_split(np.arange(steps), WIDTH)
                low_first = [part[np.argsort(np.nan_to_num(channel[part]), kind="stable")[[0, -1]]] for part in parts]
                chosen = np.unique(np.concatenate(low_first))
            chosen = chosen[~np.isnan(channel[chosen])]
            xs = chosen / max(1, steps - 1)
            lines.append(
                [[round(x, 4), round(y, 4)] for x, y in zip(xs.tolist(), channel[chosen].tolist(), strict=True)]
            )
        return lines

    def picture(self) -> NDArray[np.uint8]:
        """The lines as a small picture, (80, 160), for places where no lines can be drawn."""
        pixels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        for line in self.lines():
            if not line:
                continue
            xs, ys = np.array(line).T
            dense = np.union1d(np.linspace(0.0, 1.0, 8 * WIDTH), xs)
            inside = (dense >= xs[0]) & (dense <= xs[-1])
            height = np.interp(dense[inside], xs, ys)
            rows = np.round((1 - height) * (HEIGHT - 1)).astype(int)
            columns = np.round(dense[inside] * (WIDTH - 1)).astype(int)
            for column in np.unique(columns):
                own = rows[columns == column]
                pixels[own.min() : own.max() + 1, column] = 255
        return pixels
