"""The examples to review as texts, pictures or named values, for the files of other tools."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from upweight.applications.suspects import Suspects
from upweight.core.examples import Examples, Id
from upweight.core.input_kinds import is_sparse
from upweight.report.exports.choices import Choices
from upweight.report.pictures import sample_pictures, scale_of, shown_pixels
from upweight.report.sparse_rows import SparseRows
from upweight.report.table_columns import shown_of, table_of
from upweight.report.wording import MINUS, cell_text

ENLARGED = 128  # pixels; a picture below half of it is enlarged, because other tools would blur it


@dataclass(frozen=True)
class Item:
    """One example to review.

    Attributes:
        key: its id as JSON, so that 17 and "17" stay different.
        name: its id as a text.
        kind: text, image or row.
        text: of a text; of a row its values.
        row: of a row, name → value.
        png: of a picture, the bytes of a PNG file.
        given, suggested: texts of the label given and of the one suggested.
        probability: of the suggested label; None if it is not known.
        suspicion: its score of suspicion.
    """

    key: str
    name: str
    kind: str
    text: str
    row: dict[str, str]
    png: bytes
    given: str
    suggested: str
    probability: float | None
    suspicion: float

    @property
    def data_uri(self) -> str:
        """The picture inside an address."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def items_of(suspects: Suspects, choices: Choices) -> list[Item]:
    """The examples to review, most suspicious first."""
    train = suspects.train
    assert train.y is not None
    scale = scale_of([sample_pictures(train, 300)])
    rows = SparseRows(train) if is_sparse(shown_of(train)) else None
    items = []
    for rank, (identifier, position) in enumerate(
        zip(suspects.ids.tolist(), train.positions(suspects.ids).tolist(), strict=True)
    ):
        probability = float(suspects.chances[rank][1])
        items.append(
            Item(
                key=json.dumps(identifier),
                name=str(identifier),
                **_content(train, identifier, position, scale, rows),
                given=choices.text(train.y[position].item()),
                suggested=choices.text(suspects.suggested[rank]),
                probability=probability if np.isfinite(probability) else None,
                suspicion=float(suspects.score[position]),
            )
        )
    return items


def _content(
    train: Examples, identifier: Id, position: int, scale: tuple[float, float] | None, sparse: SparseRows | None
) -> dict[str, Any]:
    """Kind, text, row and picture of one example, in full."""
    table = table_of(train)
    preview = train.preview(identifier)
    pixels = None
    if preview.kind == "image":
        pixels = shown_pixels(preview, scale, max(ENLARGED, *np.shape(preview.value)))
    if pixels is not None:
        return {"kind": "image", "text": "", "row": {}, "png": _png(pixels)}
    if preview.kind == "text":
        return {"kind": "text", "text": preview.value, "row": {}, "png": b""}
    if table is not None:
        part = table.take(np.array([position]))
        row = {name: _written(part.values(column)[0]) for column, name in enumerate(table.names)}
    elif sparse is not None:
        row = {name: value.replace(MINUS, "-") for name, value in sparse.entry(identifier)["pairs"]}
    elif preview.kind == "row":
        row = {str(name): _written(value) for name, value in preview.value}
    else:
        row = {"array": f"of shape {np.shape(preview.value)}, which is not a picture"}
    return {"kind": "row", "text": "\n".join(f"{name}: {value}" for name, value in row.items()), "row": row, "png": b""}


def _written(value: Any) -> str:
    """The text of a cell; numbers have the minus that other programs read."""
    text = cell_text(value)
    return text if isinstance(value, str) else text.replace(MINUS, "-")


def _png(pixels: Any) -> bytes:
    from PIL import Image

    image = Image.fromarray(pixels)
    times = ENLARGED // max(image.size)
    if times > 1:
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return file.getvalue()
