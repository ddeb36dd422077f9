"""What a person sees of an example, made small: pictures as data URIs, texts and rows cut to a readable size."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples, Id
from upweight.core.preview import Preview
from upweight.report.wording import cell_text, count

MOST_SIDE = 160  # pixels; larger pictures are reduced
MOST_TEXT = 20_000  # characters of one text
MOST_PICTURES = 8_000_000  # bytes of data URIs on one page
MOST_SHEET = 1_500_000  # bytes of the contact sheet behind the table
MOST_TILES = 3_000
TILE = 32  # pixels; the side of a picture in the table
EXCERPT = 90  # characters of a text or row in the table
MOST_EXCERPTS = 5_000
DARK = 16  # uint8 pictures that nowhere exceed this would be black on black

Pixels = NDArray[np.uint8]


class Album:
    """The previews of one page, each kept once; `notes` says what was changed or left out."""

    def __init__(self, train: Examples, queries: Examples) -> None:
        self.sides = {"train": train, "query": queries}
        self.entries: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.scale = _scale_of([_sample(train, 300), _sample(queries, 100)])
        self._places: dict[tuple[str, Id], int] = {}
        self._spent = 0
        self._left_out = 0

    def add(self, side: str, identifier: Id) -> int:
        """Where in `entries` this example's preview is."""
        key = (side, identifier)
        if key not in self._places:
            self._places[key] = len(self.entries)
            self.entries.append(self._entry(self.sides[side], identifier))
        return self._places[key]

    def sheet(self, ids: Sequence[Id]) -> dict[str, Any] | None:
        """One picture that holds all of these training examples as small tiles, None where that is not cheap."""
        train = self.sides["train"]
        if len(ids) == 0 or train.preview(ids[0]).kind != "image":
            return None
        tiles = (
            [_reduced(_pixels(train.preview(i).value, self.scale), TILE) for i in ids] if len(ids) <= MOST_TILES else []
        )
        if not tiles or any(tile is None or tile.shape != tiles[0].shape for tile in tiles):
            self.notes.append("The table shows pictures only for the strongest examples of each query.")
            return None
        columns = int(np.ceil(np.sqrt(len(tiles))))
        height, width = tiles[0].shape[:2]
        paper = np.zeros((-(-len(tiles) // columns) * height, columns * width, *tiles[0].shape[2:]), dtype=np.uint8)
        for place, tile in enumerate(tiles):
            top, left = place // columns * height, place % columns * width
            paper[top : top + height, left : left + width] = tile
        uri = _encoded(paper, lossless=paper.ndim == 2)
        if len(uri) > MOST_SHEET:
            self.notes.append("The table shows pictures only for the strongest examples of each query.")
            return None
        return {"uri": uri, "columns": columns, "width": width, "height": height, "count": len(tiles)}

    def excerpts(self, ids: Sequence[Id]) -> list[str] | None:
        """One line of every text or row for the table, None for pictures and for sets too large to carry."""
        train = self.sides["train"]
        if len(ids) == 0 or train.preview(ids[0]).kind == "image":
            return None
        if len(ids) > MOST_EXCERPTS:
            self.notes.append("The table shows excerpts only for the strongest examples of each query.")
            return None
        return [_excerpt(train.preview(i)) for i in ids]

    def remarks(self) -> list[str]:
        """Sentences on how the previews were made and what of them is not on the page."""
        said = []
        if self.scale is not None:
            low, high = self.scale
            said.append(f"Pictures show pixel values {low:g} (black) to {high:g} (white), one scale for the whole set.")
        if self._left_out:
            said.append(
                f"{count(self._left_out, 'picture')} left out to keep the page below "
                f"{MOST_PICTURES / 1e6:.0f} MB of pictures; report fewer queries to see them all."
            )
        return self.notes + said

    def _entry(self, examples: Examples, identifier: Id) -> dict[str, Any]:
        seen = examples.preview(identifier)
        if seen.kind == "text":
            return {"kind": "text", "text": seen.value[:MOST_TEXT], "more": max(0, len(seen.value) - MOST_TEXT)}
        if seen.kind == "row":
            pairs = [[str(name), cell_text(value)[:MOST_TEXT]] for name, value in seen.value]
            return {"kind": "row", "pairs": pairs, "more": max(0, _columns(examples) - len(pairs))}
        pixels = _pixels(seen.value, self.scale)
        if pixels is None:
            shape = " × ".join(str(side) for side in np.shape(seen.value))
            return {"kind": "text", "text": f"array of {shape}, which is no picture", "more": 0}
        small = _reduced(pixels, MOST_SIDE)
        uri = _encoded(small, lossless=small is pixels)
        if self._spent + len(uri) > MOST_PICTURES:
            self._left_out += 1
            return {"kind": "text", "text": "picture left out", "more": 0}
        self._spent += len(uri)
        return {"kind": "image", "uri": uri, "width": int(small.shape[1]), "height": int(small.shape[0])}


def _sample(examples: Examples, most: int) -> list[NDArray[Any]]:
    """Pictures spread over the set; empty when it holds none."""
    where = np.unique(np.linspace(0, len(examples) - 1, most).astype(int))
    seen = [examples.preview(i) for i in examples.ids[where].tolist()]
    return [np.asarray(preview.value) for preview in seen if preview.kind == "image"]


def _scale_of(samples: list[list[NDArray[Any]]]) -> tuple[float, float] | None:
    """The pixel values that become black and white, chosen for the whole set; None leaves uint8 as it is."""
    arrays = [array for sample in samples for array in sample if array.dtype.kind in "buif" and array.size]
    if not arrays:
        return None
    ends = [(float(np.nanmin(a)), float(np.nanmax(a))) for a in map(_finite, arrays)]
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    if all(array.dtype == np.uint8 for array in arrays) and high > DARK:
        return None
    if low >= 0:
        # A plausible full range is used when the set fills at least half of it: 0.9 means 0…1, 15 means 0…16.
        usual = next((float(top) for top in (1, 16, 255, 65535) if top / 2 <= high <= top), high)
        return 0.0, usual or 1.0
    if low >= -1 and high <= 1:
        return -1.0, 1.0
    return low, high if high > low else low + 1.0


def _finite(array: NDArray[Any]) -> NDArray[np.float64]:
    numbers = np.asarray(array, dtype=np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan if np.isfinite(numbers).any() else 0.0)


def _pixels(value: Any, scale: tuple[float, float] | None) -> Pixels | None:
    """uint8 pixels (h, w) or (h, w, 3 or 4); None for an array that is no picture."""
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


def _reduced(pixels: Pixels | None, side: int) -> Any:
    if pixels is None or max(pixels.shape[:2]) <= side:
        return pixels
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _encoded(pixels: Pixels, lossless: bool) -> str:
    """A data URI: PNG where every pixel counts, JPEG for reduced photographs (a tenth of the bytes)."""
    from PIL import Image

    file = io.BytesIO()
    photograph = not lossless and pixels.ndim == 3 and pixels.shape[-1] == 3
    if photograph:
        Image.fromarray(pixels).save(file, format="JPEG", quality=85)
    else:
        Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return f"data:image/{'jpeg' if photograph else 'png'};base64,{base64.b64encode(file.getvalue()).decode()}"


def _excerpt(seen: Preview) -> str:
    if seen.kind == "text":
        line = " ".join(seen.value[: 4 * EXCERPT].split())
    elif seen.kind == "row":
        line = ", ".join(f"{name} {cell_text(value)}" for name, value in seen.value[:4])
    else:
        line = ""
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"


def _columns(examples: Examples) -> int:
    """How many columns a row has; a preview may hold fewer."""
    if examples.names is not None:
        return len(examples.names)
    shape: tuple[int, ...] = getattr(examples.x, "shape", ())
    return int(shape[1]) if len(shape) == 2 else 0
