"""Previews of examples on a page: reduced pictures as data URIs, texts and table rows cut to a readable length."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples, Id
from upweight.core.input_kinds import is_sparse
from upweight.core.preview import Preview
from upweight.report.page_limits import PageLimits
from upweight.report.sparse_rows import SparseRows
from upweight.report.table_cells import Cells
from upweight.report.table_columns import shown_of
from upweight.report.wording import cell_text, count

MAX_PICTURE_SIDE = 160  # pixels; larger pictures are reduced
MAX_TEXT = 20_000  # characters of one text
MAX_SHEET_BYTES = 1_500_000  # of the contact sheet behind the table
TILE_SIDE = 32  # pixels, of a picture in the table
MAX_EXCERPT = 90  # characters of a text or row in the table
MAX_EXCERPTS = 5_000
CARD_COLUMNS = 6  # of a row on a card
MIN_BRIGHTNESS = 16  # uint8 pictures with no brighter pixel are rescaled; they would look black

Pixels = NDArray[np.uint8]


class Album:
    """The previews of one page, each stored once; `remarks` lists what was changed or left out."""

    def __init__(self, train: Examples, queries: Examples, limits: PageLimits | None = None) -> None:
        self.limits = limits or PageLimits()
        self.sides = {"train": train, "query": queries}
        self.entries: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self._cells = Cells(train, queries, self.limits.cell_bytes)
        self._sparse = {side: SparseRows(e) for side, e in self.sides.items() if is_sparse(shown_of(e))}
        self.scale = _scale_of([_sample(train, 300), _sample(queries, 100)])
        self._positions: dict[tuple[str, Id], int] = {}
        self._picture_bytes = 0
        self._pictures_left_out = 0

    def add(self, side: str, identifier: Id) -> int:
        """Add the preview of this example if it is new; returns its index in `entries`."""
        key = (side, identifier)
        if key not in self._positions:
            self._positions[key] = len(self.entries)
            self.entries.append(self._entry(side, identifier))
        return self._positions[key]

    def sheet(self, ids: Sequence[Id]) -> dict[str, Any] | None:
        """One picture with all of these training examples as small tiles; None if it would be too large."""
        train = self.sides["train"]
        if len(ids) == 0 or self._preview("train", ids[0]).kind != "image":
            return None
        tiles = (
            [_reduced(_pixels(train.preview(i).value, self.scale), TILE_SIDE) for i in ids]
            if len(ids) <= self.limits.tiles
            else []
        )
        if not tiles or any(tile is None or tile.shape != tiles[0].shape for tile in tiles):
            self.notes.append("The table shows pictures only for the strongest examples of each query.")
            return None
        columns = int(np.ceil(np.sqrt(len(tiles))))
        height, width = tiles[0].shape[:2]
        sheet = np.zeros((-(-len(tiles) // columns) * height, columns * width, *tiles[0].shape[2:]), dtype=np.uint8)
        for index, tile in enumerate(tiles):
            top, left = index // columns * height, index % columns * width
            sheet[top : top + height, left : left + width] = tile
        uri = _encoded(sheet, lossless=sheet.ndim == 2)
        if len(uri) > MAX_SHEET_BYTES:
            self.notes.append("The table shows pictures only for the strongest examples of each query.")
            return None
        return {"uri": uri, "columns": columns, "width": width, "height": height, "count": len(tiles)}

    def excerpts(self, ids: Sequence[Id]) -> list[str] | None:
        """One line of every text or row for the table; None for pictures, and for too many examples."""
        if len(ids) == 0 or self._preview("train", ids[0]).kind == "image":
            return None
        if len(ids) > MAX_EXCERPTS:
            self.notes.append("The table shows excerpts only for the strongest examples of each query.")
            return None
        if self._cells:
            return [_cut(line) for line in self._cells.excerpts(ids)]
        return [_excerpt(self._preview("train", i)) for i in ids]

    def table(self) -> dict[str, Any]:
        """The columns of the rows that were added, for the script of the page; no columns if they are no rows."""
        table = self._cells.data()
        shown, total = len(table["columns"]), table["total"]
        if shown:
            self.notes.append(
                "Columns are ordered by the shift of the label that a value alone would predict: the largest shift of "
                "the query first, and of a training example the largest of its own, the query’s, and their difference."
            )
        if 0 < shown < total:
            self.notes.append(
                f"The {count(shown, 'column')} that go most with the labels are on this page, of {total:,}; all would "
                "make it too large. The others are in the examples themselves, or in a report of fewer queries."
            )
        return table

    def remarks(self) -> list[str]:
        """Notes on how the previews were made and which of them are not on the page."""
        remarks = []
        if self.scale is not None:
            low, high = self.scale
            remarks.append(
                f"Pictures show pixel values {low:g} (black) to {high:g} (white), on one scale for the whole set."
            )
        if self._pictures_left_out:
            remarks.append(
                f"{count(self._pictures_left_out, 'picture')} left out to keep the page below "
                f"{self.limits.picture_bytes / 1e6:.0f} MB of pictures; report fewer queries to see them all."
            )
        return self.notes + remarks

    def _preview(self, side: str, identifier: Id) -> Preview:
        return self.sides[side].preview(identifier)

    def _entry(self, side: str, identifier: Id) -> dict[str, Any]:
        if self._cells:
            return {"kind": "row", "row": self._cells.add(side, identifier)}
        if side in self._sparse:
            return self._sparse[side].entry(identifier)
        preview = self._preview(side, identifier)
        if preview.kind == "text":
            text = preview.value
            return {"kind": "text", "text": text[:MAX_TEXT], "more": max(0, len(text) - MAX_TEXT)}
        if preview.kind == "row":
            pairs = [[str(name), cell_text(value)[:MAX_TEXT]] for name, value in preview.value]
            return {"kind": "row", "pairs": pairs, "more": max(0, _columns(self.sides[side]) - len(pairs))}
        return self._picture(preview.value)

    def _picture(self, value: Any) -> dict[str, Any]:
        pixels = _pixels(value, self.scale)
        if pixels is None:
            shape = " × ".join(str(side) for side in np.shape(value))
            return {"kind": "text", "text": f"array of {shape}, which is not a picture", "more": 0}
        small = _reduced(pixels, MAX_PICTURE_SIDE)
        uri = _encoded(small, lossless=small is pixels)
        if self._picture_bytes + len(uri) > self.limits.picture_bytes:
            self._pictures_left_out += 1
            return {"kind": "text", "text": "picture left out", "more": 0}
        self._picture_bytes += len(uri)
        return {"kind": "image", "uri": uri, "width": int(small.shape[1]), "height": int(small.shape[0])}


def _sample(examples: Examples, max_pictures: int) -> list[NDArray[Any]]:
    """At most `max_pictures` pictures, spread evenly over the set; an empty list if the examples are not pictures."""
    if examples.preview(examples.ids[0].item()).kind != "image":
        return []
    positions = np.unique(np.linspace(0, len(examples) - 1, max_pictures).astype(int))
    previews = [examples.preview(i) for i in examples.ids[positions].tolist()]
    return [np.asarray(preview.value) for preview in previews if preview.kind == "image"]


def _scale_of(samples: list[list[NDArray[Any]]]) -> tuple[float, float] | None:
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


def _pixels(value: Any, scale: tuple[float, float] | None) -> Pixels | None:
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


def _reduced(pixels: Pixels | None, side: int) -> Any:
    if pixels is None or max(pixels.shape[:2]) <= side:
        return pixels
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _encoded(pixels: Pixels, lossless: bool) -> str:
    """A data URI: JPEG for reduced photographs, a tenth of the bytes; PNG for everything else."""
    from PIL import Image

    file = io.BytesIO()
    photograph = not lossless and pixels.ndim == 3 and pixels.shape[-1] == 3
    if photograph:
        Image.fromarray(pixels).save(file, format="JPEG", quality=85)
    else:
        Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return f"data:image/{'jpeg' if photograph else 'png'};base64,{base64.b64encode(file.getvalue()).decode()}"


def _excerpt(preview: Preview) -> str:
    if preview.kind == "text":
        line = " ".join(preview.value[: 4 * MAX_EXCERPT].split())
    elif preview.kind == "row":
        line = ", ".join(f"{name} {cell_text(value)}" for name, value in preview.value[:4])
    else:
        line = ""
    return _cut(line)


def _cut(line: str) -> str:
    return line if len(line) <= MAX_EXCERPT else line[: MAX_EXCERPT - 1] + "…"


def _columns(examples: Examples) -> int:
    """The number of columns of a row; a preview may have fewer."""
    if examples.names is not None:
        return len(examples.names)
    shape: tuple[int, ...] = getattr(examples.x, "shape", ())
    return int(shape[1]) if len(shape) == 2 else 0


def example_card(album: Album, side: str, identifier: Id) -> dict[str, Any]:
    """What a card shows of one example: its id and kind, and its picture, its text or its first columns."""
    preview = album.sides[side].preview(identifier)
    card: dict[str, Any] = {"id": str(identifier), "kind": preview.kind}
    if preview.kind == "row":
        card["pairs"] = [(str(name), cell_text(value)) for name, value in preview.value[:CARD_COLUMNS]]
        return card
    return {**card, **album.entries[album.add(side, identifier)]}
