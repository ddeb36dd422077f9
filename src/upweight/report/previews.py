"""Previews of examples on a page: reduced pictures as data URIs, texts and table rows cut to a readable length."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np

from upweight.core.examples import Examples, Id
from upweight.core.input_kinds import is_sparse
from upweight.core.marked_picture import Picture
from upweight.core.preview import Preview
from upweight.core.signals import Audio, Series
from upweight.report.page_limits import PageLimits
from upweight.report.picture_marks import swatch
from upweight.report.pictures import as_pixels, encoded, enlarged, reduced, sample_pictures, scale_of, shown_pixels
from upweight.report.sparse_rows import SparseRows
from upweight.report.table_cells import Cells
from upweight.report.table_columns import shown_of
from upweight.report.wording import cell_text, count, number, significant

MAX_PICTURE_SIDE = 160  # pixels; larger pictures are reduced
MAX_TEXT = 20_000  # characters of one text
MAX_SHEET_BYTES = 1_500_000  # of the contact sheet behind the table
TILE_SIDE = 32  # pixels, of a picture in the table
MAX_EXCERPT = 90  # characters of a text or row in the table
MAX_EXCERPTS = 5_000
CARD_COLUMNS = 6  # of a row on a card


class Album:
    """The previews of one page, each stored once; `remarks` lists what was changed or left out."""

    def __init__(self, train: Examples, queries: Examples, limits: PageLimits | None = None) -> None:
        self.limits = limits or PageLimits()
        self.sides = {"train": train, "query": queries}
        self.entries: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self._cells = Cells(train, queries, self.limits.cell_bytes)
        self._sparse = {side: SparseRows(e) for side, e in self.sides.items() if is_sparse(shown_of(e))}
        self.scale = scale_of([sample_pictures(train, 300), sample_pictures(queries, 100)])
        self._positions: dict[tuple[str, Id], int] = {}
        self._picture_bytes = 0
        self._pictures_left_out = 0

    def without_entries(self, cell_bytes: int | None = None) -> Album:
        """An album of the same examples without entries; columns and scale are shared, not computed again.

        `cell_bytes`: another limit for the rows of tables.
        """
        album = copy(self)
        album.entries, album.notes, album._positions = [], [], {}
        album._cells = self._cells.without_entries(cell_bytes)
        album._picture_bytes = album._pictures_left_out = 0
        return album

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
            [shown_pixels(train.preview(i), self.scale, TILE_SIDE) for i in ids]
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
        uri = encoded(sheet, lossless=sheet.ndim == 2)
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
        return [excerpt(self._preview("train", i)) for i in ids]

    def table(self) -> dict[str, Any]:
        """The columns of the rows that were added, for the script of the page; no columns if they are not rows."""
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
        return {**self._picture(preview), **self._signal(preview.signal)}

    def _signal(self, signal: Audio | Series | None) -> dict[str, Any]:
        """The player of a recording, or the lines of a series with their scale."""
        if isinstance(signal, Series):
            low, high = signal.scale
            return {"lines": signal.lines(), "low": number(low), "high": number(high)}
        if signal is None:
            return {}
        uri = f"data:audio/wav;base64,{base64.b64encode(signal.wav()).decode()}"
        if self._picture_bytes + len(uri) > self.limits.picture_bytes:
            self._pictures_left_out += 1
            return {}
        self._picture_bytes += len(uri)
        scale = f"{significant(signal.seconds, 3)} s, up to {significant(signal.rate / 2000, 3)} kHz"
        return {"audio": uri, "scale": scale}

    def _picture(self, preview: Preview) -> dict[str, Any]:
        pixels = as_pixels(preview.value, self.scale)
        shown = shown_pixels(preview, self.scale, MAX_PICTURE_SIDE)
        if pixels is None or shown is None:
            shape = " × ".join(str(side) for side in np.shape(preview.value))
            return {"kind": "text", "text": f"array of {shape}, which is not a picture", "more": 0}
        is_whole = max(pixels.shape[:2]) <= MAX_PICTURE_SIDE
        uris = {"uri": encoded(shown, lossless=is_whole)}
        if preview.marked is not None:
            plain = enlarged(reduced(pixels, MAX_PICTURE_SIDE), MAX_PICTURE_SIDE)
            uris["plain"] = encoded(plain, lossless=is_whole)
        size = sum(map(len, uris.values()))
        if self._picture_bytes + size > self.limits.picture_bytes:
            self._pictures_left_out += 1
            return {"kind": "text", "text": "picture left out", "more": 0}
        self._picture_bytes += size
        entry = {"kind": "image", **uris, "width": int(shown.shape[1]), "height": int(shown.shape[0])}
        return {**entry, "marks": legend(preview.marked)} if preview.marked is not None else entry


def legend(picture: Picture) -> list[dict[str, str]]:
    """The name of every class that is marked on the picture, with a sample of its colour."""
    return [{"name": picture.name_of(c), "uri": encoded(swatch(c), lossless=True)} for c in picture.classes()]


def excerpt(preview: Preview) -> str:
    """One line of a text or a row; empty for a picture."""
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
