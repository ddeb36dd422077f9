"""`Picture`: a picture with a mask over it and boxes on it, as data sets for segmentation and detection have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHANNELS = (1, 3, 4)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture for `Examples(shown=[…])` on which pages and figures mark regions: pixels of a mask, and boxes.

    Attributes:
        pixels: (height, width), or with 1, 3 or 4 channels first or last.
        mask: the class of every pixel, (height, width): whole numbers, of which 0 is not marked, or booleans.
        boxes: left, top, right and bottom of every box in pixels, (boxes, 4).
        box_classes: the class of every box, whole numbers from 1; by default 1.
        names: readable names of the classes, for example `{1: "road", 2: "car"}`.

    Raises ValueError if the shapes do not fit.
    """

    pixels: NDArray[Any]
    mask: NDArray[np.intp] | None = None
    boxes: NDArray[np.float64] | None = None
    box_classes: NDArray[np.intp] | None = None
    names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pixels = np.asarray(self.pixels)
        if pixels.dtype.kind not in "buif" or pixels.ndim not in (2, 3) or 0 in pixels.shape:
            raise ValueError(f"expected pixels (height, width), or with channels, got {pixels.dtype} {pixels.shape}")
        if pixels.ndim == 3 and not {pixels.shape[0], pixels.shape[2]} & set(CHANNELS):
            raise ValueError(f"expected 1, 3 or 4 channels, first or last, got pixels of shape {pixels.shape}")
        sides = picture_sides(pixels)
        mask = None if self.mask is None else _mask(self.mask, sides)
        boxes = None if self.boxes is None else _boxes(self.boxes)
        classes = _box_classes(self.box_classes, 0 if boxes is None else len(boxes))
        for name, value in {"pixels": pixels, "mask": mask, "boxes": boxes, "box_classes": classes}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def each(
        cls,
        pixels: Iterable[Any],
        masks: Iterable[Any] | None = None,
        boxes: Iterable[Any] | None = None,
        box_classes: Iterable[Any] | None = None,
        names: Mapping[int, str] | None = None,
    ) -> list[Picture]:
        """One for every picture, with its mask, its boxes and their classes. Raises ValueError if lengths differ."""
        pictures = list(pixels)
        given = {"masks": masks, "boxes": boxes, "box_classes": box_classes}
        parts: list[Any] = []
        for name, values in given.items():
            part: Any = repeat(None, len(pictures)) if values is None else list(values)
            if values is not None and len(part) != len(pictures):
                raise ValueError(f"expected `{name}` to have one entry per picture ({len(pictures)}), got {len(part)}")
            parts.append(part)
        return [
            cls(picture, mask, own_boxes, classes, dict(names or {}))
            for picture, mask, own_boxes, classes in zip(pictures, *parts, strict=True)
        ]

    def classes(self) -> list[int]:
        """The classes that are marked on this picture, in ascending order."""
        parts = (self.mask, self.box_classes)
        marked: set[int] = set().union(*(np.unique(part).tolist() for part in parts if part is not None))
        return sorted(marked - {0})

    def name_of(self, label: int) -> str:
        """The readable name of a class."""
        return str(self.names.get(label, "marked" if label == 1 else f"class {label}"))


def picture_sides(pixels: Any) -> tuple[int, int]:
    """Height and width of a picture whose channels may be first, as networks take them, or last."""
    shape = np.shape(pixels)
    if len(shape) == 3 and shape[-1] not in CHANNELS and shape[0] in CHANNELS:
        return shape[1], shape[2]
    return shape[0], shape[1]


def _mask(given: Any, sides: tuple[int, int]) -> NDArray[np.intp]:
    mask = np.asarray(given)
    if mask.shape != sides:
        raise ValueError(f"expected a mask as high and wide as the picture, {sides}, got shape {mask.shape}")
    if mask.dtype.kind not in "bui" or mask.min() < 0:
        raise ValueError(
            f"expected a mask of booleans or of whole numbers from 0 on, got {mask.dtype} from {mask.min()} on"
        )
    return mask.astype(np.intp)


def _boxes(given: Any) -> NDArray[np.float64]:
    boxes = np.asarray(given, dtype=np.float64)
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ValueError(f"expected finite boxes (boxes, 4): left, top, right, bottom; got shape {boxes.shape}")
    if (boxes[:, :2] > boxes[:, 2:]).any():
        raise ValueError("expected boxes as left, top, right, bottom, got one whose right or bottom comes before")
    return boxes


def _box_classes(given: Any, count: int) -> NDArray[np.intp]:
    classes = np.ones(count, dtype=np.intp) if given is None else np.asarray(given)
    if classes.shape != (count,) or (count and (classes.dtype.kind not in "ui" or classes.min() < 1)):
        raise ValueError(f"expected one whole number from 1 for each of {count} boxes, got shape {classes.shape}")
    return classes.astype(np.intp)
