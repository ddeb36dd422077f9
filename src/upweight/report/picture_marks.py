"""Masks and boxes drawn into pictures, distinguished by colour and by pattern, so that they differ in greyscale too."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from upweight.core.marked_picture import Picture, picture_sides

# Neighbours in this order differ in lightness (Okabe and Ito's colours for the colour-blind).
COLOURS = (0xE69F00, 0x0072B2, 0xF0E442, 0x009E73, 0x56B4E9, 0xD55E00, 0xCC79A7)
BOLD, FAINT = 0.62, 0.28  # strength of the colour on and between the lines of a pattern
PERIOD = 8  # pixels from one line of a pattern to the next
MIN_FRAMED_SIDE = 64  # pixels; on smaller pictures frames have no dark edge
SWATCH = (14, 22)  # height and width of the sample in a legend

Pixels = NDArray[np.uint8]


def marked(pixels: Pixels, picture: Picture) -> Pixels:
    """The pixels, of any size, with the mask and the boxes of this picture in colour, (height, width, 3)."""
    drawn = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels[..., :3].copy()
    height, width = drawn.shape[:2]
    if picture.mask is not None:
        mask = _resized(picture.mask, (height, width))
        for label in np.unique(mask[mask > 0]).tolist():
            _fill(drawn, mask == label, label)
    if picture.boxes is not None and picture.box_classes is not None:
        rows, columns = picture_sides(picture.pixels)
        scale = np.array([width / columns, height / rows] * 2)
        for box, label in zip(picture.boxes * scale, picture.box_classes.tolist(), strict=True):
            _outline(drawn, box, label)
    return drawn


def swatch(label: int) -> Pixels:
    """A sample of the colour and the pattern of a class, for a legend."""
    sample = np.full((*SWATCH, 3), 210, dtype=np.uint8)
    _fill(sample, np.ones(SWATCH, dtype=bool), label)
    _outline(sample, np.array([0.0, 0.0, SWATCH[1], SWATCH[0]]), label)
    return sample


def hex_colour(label: int) -> str:
    """The colour of a class, as figures take it."""
    return f"#{COLOURS[(label - 1) % len(COLOURS)]:06x}"


def _colour(label: int) -> Pixels:
    code = COLOURS[(label - 1) % len(COLOURS)]
    return np.array([code >> 16, code >> 8 & 255, code & 255], dtype=np.uint8)


def _fill(drawn: Pixels, region: NDArray[np.bool_], label: int) -> None:
    """Colour a region in place: the first class evenly, the others in lines of different directions."""
    rows, columns = np.indices(region.shape)
    lines = (None, rows + columns, rows - columns, rows, columns)[(label - 1) % 5]
    bold = np.full(region.shape, True) if lines is None else lines % PERIOD < PERIOD // 2
    share = np.where(bold, BOLD if lines is not None else (BOLD + FAINT) / 2, FAINT)[region][:, None]
    drawn[region] = np.rint((1 - share) * drawn[region] + share * _colour(label)).astype(np.uint8)
    edge = region & ~_inner(region)
    drawn[edge] = _colour(label)


def _inner(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels whose four neighbours are in the region too."""
    padded = np.pad(region, 1, mode="edge")
    return padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _outline(drawn: Pixels, box: NDArray[np.float64], label: int) -> None:
    """A frame of the colour within a dark one, which is seen on bright and on dark pixels."""
    height, width = drawn.shape[:2]
    left, top, right, bottom = np.clip(np.rint(box), 0, [width, height] * 2).astype(int).tolist()
    if right <= left or bottom <= top:
        return
    if min(height, width) >= MIN_FRAMED_SIDE:
        _frame(drawn, (left, top, right, bottom), 4, np.zeros(3, dtype=np.uint8))
        left, top, right, bottom = left + 1, top + 1, right - 1, bottom - 1
    _frame(drawn, (left, top, right, bottom), 2 if min(height, width) >= MIN_FRAMED_SIDE else 1, _colour(label))


def _frame(drawn: Pixels, sides: tuple[int, int, int, int], thick: int, colour: Pixels) -> None:
    """The edges of a rectangle, this many pixels wide."""
    left, top, right, bottom = sides
    if right <= left or bottom <= top:
        return
    drawn[top : min(top + thick, bottom), left:right] = colour
    drawn[max(bottom - thick, top) : bottom, left:right] = colour
    drawn[top:bottom, left : min(left + thick, right)] = colour
    drawn[top:bottom, max(right - thick, left) : right] = colour


def _resized(mask: NDArray[np.intp], sides: tuple[int, int]) -> NDArray[np.intp]:
    """The nearest class for every pixel of a picture of another size."""
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(mask.shape, sides, strict=True))
    return np.asarray(mask[np.ix_(rows, columns)])
