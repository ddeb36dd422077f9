"""Pictures of examples as pixels: one scale of grey for a whole set, reduced, and written into a page."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.preview import Preview
from upweight.report.picture_marks import Pixels, marked

MIN_BRIGHTNESS = 16  # uint8 pictures with no brighter pixel are rescaled; they would look black


def sample_pictures(examples: Examples, max_pictures: int) -> list[NDArray[Any]]:
    """At most `max_pictures` pictures, spread evenly over the set; an empty list if the examples are not pictures."""
    if examples.preview(examples.ids[0].item()).kind != "image":
        return []
    positions = np.unique(np.linspace(0, len(examples) - 1, max_pictures).astype(int))
    previews = [examples.preview(i) for i in examples.ids[positions].tolist()]
    return [np.asarray(preview.value) for preview in previews if preview.kind == "image"]


def scale_of(samples: list[list[NDArray[Any]]]) -> tuple[float, float] | None:
    """The pixel values shown as black and as white, for all pictures; None if uint8 values are shown unchanged."""
    arrays = [array for sample in samples for array in sample if array.dtype.kind in "buif" and array.size]
    if not arrays:
        return None
    ends = [(float(np.nanmin(a)), float(np.nanmax(a))) for a in map(_finite, arrays)]
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    if all(array.dtype == np.uint8 for array in arrays) and high > MIN_BRIGHTNESS:
        return None
    if low >= 0:
        # Use a common full range if the set fills at least half of it: a maximum of 0.9 means 0…1, 15 means 0…16.
        top_of_range = next((float(top) for top in (1, 16, 255, 65535) if top / 2 <= high <= top), high)
        return 0.0, top_of_range or 1.0
    if low >= -1 and high <= 1:
        return -1.0, 1.0
    return low, high if high > low else low + 1.0


def _finite(array: NDArray[Any]) -> NDArray[np.float64]:
    numbers = np.asarray(array, dtype=np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan if np.isfinite(numbers).any() else 0.0)


def as_pixels(value: Any, scale: tuple[float, float] | None) -> Pixels | None:
    """uint8 pixels (h, w) or (h, w, 3 or 4); None for an array that is not a picture."""
    array = np.asarray(value)
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3) or 0 in array.shape:
        return None
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)  # channels first, as networks take them
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 3 and array.shape[-1] not in (3, 4):
        return None
    if scale is not None:
        low, high = scale
        array = np.clip((np.nan_to_num(array.astype(np.float64), nan=low) - low) / (high - low), 0, 1) * 255
    return np.ascontiguousarray(np.round(np.clip(array, 0, 255)).astype(np.uint8))


def shown_pixels(preview: Preview, scale: tuple[float, float] | None, side: int) -> Any:
    """A picture as pages and figures show it, no side longer than this; None for an array that is not a picture.

    Masks and boxes are drawn in; small pictures are enlarged for them, so that boxes cover few pixels.
    """
    pixels: Pixels | None = reduced(as_pixels(preview.value, scale), side)
    if pixels is None or preview.marked is None:
        return pixels
    return marked(enlarged(pixels, side), preview.marked)


def enlarged(pixels: Pixels, side: int) -> Pixels:
    """Every pixel repeated as often as no side gets longer than this."""
    times = max(1, side // max(pixels.shape[:2]))
    return pixels.repeat(times, axis=0).repeat(times, axis=1) if times > 1 else pixels


def reduced(pixels: Pixels | None, side: int) -> Any:
    """The pixels with no side longer than this; None for no picture."""
    if pixels is None or max(pixels.shape[:2]) <= side:
        return pixels
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def encoded(pixels: Pixels, lossless: bool) -> str:
    """A data URI: JPEG for reduced photographs, a tenth of the bytes; PNG for everything else."""
    from PIL import Image

    file = io.BytesIO()
    photograph = not lossless and pixels.ndim == 3 and pixels.shape[-1] == 3
    if photograph:
        Image.fromarray(pixels).save(file, format="JPEG", quality=85)
    else:
        Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return f"data:image/{'jpeg' if photograph else 'png'};base64,{base64.b64encode(file.getvalue()).decode()}"
