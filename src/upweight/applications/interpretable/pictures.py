"""Superpixels of a picture: whether each of them is shown."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.interpretable.features import Drawn, InterpretableFeatures, cosine_distances, shown_parts
from upweight.core.examples import Examples

Array = NDArray[np.float64]
Positions = NDArray[np.intp]
KERNEL_WIDTH = 0.25  # of the kernel
NUMBERS_TOGETHER = 2**24  # of pictures in memory at a time
FEWEST = 8  # superpixels; if quickshift makes fewer, SLIC makes more
PIXELS_EACH = 4  # pixels of a superpixel by SLIC, at least
SLIC_SUPERPIXELS = 50  # superpixels requested of SLIC


class PictureFeatures(InterpretableFeatures):
    """One feature per superpixel, which is 1 if it is shown and 0 if it is hidden.

    Attributes:
        segments: the superpixel of every pixel, (height, width), from 0.
    """

    kind = "picture"
    samples = 1000

    def __init__(
        self, train: Examples | None, query: Examples, width: float | None, segments: Any, hidden: float | None
    ) -> None:
        self._picture = np.asarray(query.x)[0]
        shown = as_picture(self._picture if query.shown is None else np.asarray(query.shown)[0])
        assert shown is not None
        self.segments = _segmented(shown, segments)
        self._masks = _masks(self.segments, self._picture.shape, shown.shape)
        self.names = tuple(f"superpixel {j}" for j in range(len(self._masks)))
        self.width = KERNEL_WIDTH if width is None else width
        self._train = None if train is None else np.asarray(train.x)
        self._hidden = self._picture.astype(np.float64)
        for mask in self._masks:
            for channel in mask:
                self._hidden[channel] = self._picture[channel].mean() if hidden is None else hidden

    def _drawn(self, shown: NDArray[np.bool_], behind: Callable[[slice], Any]) -> Drawn:
        """Samples of the shown superpixels, in front of these pictures."""

        def make(part: slice) -> Any:
            pictures = np.array(np.broadcast_to(behind(part), (len(shown[part]), *self._picture.shape)))
            for picture, row in zip(pictures, shown[part], strict=True):
                for j in np.flatnonzero(row):
                    for channel in self._masks[j]:
                        picture[channel] = self._picture[channel]
            return pictures.astype(self._picture.dtype, copy=False)

        return Drawn(shown.astype(np.float64), make, max(1, NUMBERS_TOGETHER // self._picture.size))

    def random(self, count: int, rng: np.random.Generator) -> Drawn:
        """Every superpixel is hidden with probability ½."""
        shown = rng.integers(0, 2, (count + 1, len(self.names))).astype(bool)
        shown[0] = True
        return self._drawn(shown, lambda _: self._hidden[None])

    def mixed(self, sources: Positions, rng: np.random.Generator) -> Drawn:
        """Samples of some superpixels, each before the picture of one training example."""
        assert self._train is not None
        train = self._train
        return self._drawn(shown_parts(len(sources), len(self.names), rng), lambda part: train[sources[part]])

    def of_training(self, positions: Positions) -> None:
        """None: other pictures have other superpixels."""

    def distances(self, rows: Array) -> Array:
        """Cosine."""
        return cosine_distances(rows)


def as_picture(value: Any) -> NDArray[Any] | None:
    """(height, width) or (height, width, channels), channels last; None if it is not a picture."""
    array = np.asarray(value)
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3) or (min(array.shape[:2]) < 2 and array.ndim == 2):
        return None
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4):
        return None
    return array


def shows_picture(query: Examples) -> bool:
    """Whether the inputs of this query are a picture, or the pixels of the picture that is shown for it."""
    if query.shown is None:
        return getattr(query.x, "ndim", 0) >= 3 and as_picture(query.x[0]) is not None
    if not isinstance(query.x, np.ndarray) or isinstance(query.shown[0], str):
        return False
    picture = as_picture(query.shown[0])
    return picture is not None and np.asarray(query.x)[0].size == picture.size


def _segmented(picture: NDArray[Any], segments: Any) -> NDArray[np.intp]:
    """The superpixels of a picture, by scikit-image, by a function of the picture, or as given."""
    labels = _superpixels(picture) if segments is None else segments
    labels = np.asarray(labels(picture) if callable(labels) else labels)
    if labels.shape != picture.shape[:2]:
        raise ValueError(f"expected segments of the shape of the picture, {picture.shape[:2]}, got {labels.shape}")
    numbers, places = np.unique(labels, return_inverse=True)
    if len(numbers) < 2:
        raise ValueError("expected at least two superpixels, got one; pass Neighbours(segments=…)")
    return np.asarray(places.reshape(labels.shape))


def _superpixels(picture: NDArray[Any]) -> NDArray[Any]:
    """Superpixels by quickshift with LIME's settings; by SLIC if that makes hardly any (small pictures)."""
    try:
        segmentation: Any = importlib.import_module("skimage.segmentation")
    except ImportError:
        raise ImportError(
            "superpixels need scikit-image; install upweight[pictures], or pass Neighbours(segments=…), the number of "
            "a superpixel for every pixel"
        ) from None
    low, high = float(picture.min()), float(picture.max())
    channels = (picture.astype(np.float64).reshape(*picture.shape[:2], -1) - low) / (high - low or 1.0)
    colours = np.repeat(channels, 3, axis=2) if channels.shape[2] == 1 else channels[..., :3]
    labels = np.asarray(segmentation.quickshift(colours, kernel_size=4, max_dist=200, ratio=0.2, rng=0))
    if len(np.unique(labels)) >= FEWEST:
        return labels
    number = int(np.clip(labels.size // PIXELS_EACH, 2, SLIC_SUPERPIXELS))
    return np.asarray(segmentation.slic(colours, n_segments=number, start_label=0))


def _masks(segments: NDArray[np.intp], shape: tuple[int, ...], shown: tuple[int, ...]) -> list[list[Any]]:
    """For every superpixel, the positions of its pixels in an input, by channel."""
    channels = 1 if len(shown) == 2 else shown[2]
    places = np.arange(int(np.prod(shape))).reshape(shape)
    if len(shape) == 1:
        places = places.reshape(*shown[:2], channels)
    elif len(shape) == 2:
        places = places[..., None]
    elif shape[:2] != shown[:2]:
        places = np.moveaxis(places, 0, -1)
    if places.shape[:2] != segments.shape:
        raise ValueError(f"expected inputs of the size of the picture that is shown, {segments.shape}, got {shape}")
    return [
        [np.unravel_index(places[segments == j][:, channel], shape) for channel in range(places.shape[2])]
        for j in range(int(segments.max()) + 1)
    ]
