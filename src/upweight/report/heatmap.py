"""Heat maps: the contributions of an example's pixels as a picture beside the example."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from upweight.applications.perturb import Perturbation
from upweight.core.marked_picture import picture_sides
from upweight.report.previews import Album

RAISES_COLOUR, LOWERS_COLOUR = np.array([59, 134, 198]), np.array([224, 138, 51])  # the page's blue and orange


def contribution_pictures(perturbation: Perturbation, q: int, i: int) -> list[dict[str, str]]:
    """The training example, the query and the heat map of contributions; an empty list if examples are not pictures."""
    example, query = perturbation.example_ids[i].item(), perturbation.query_ids[q].item()
    shown = perturbation.train.preview(example)
    if shown.kind != "image":
        return []
    pixels = picture_sides(shown.value)
    heat = per_pixel(perturbation.contributions[q, i], pixels)
    if heat is None:
        return []
    album = Album(perturbation.train, perturbation.queries)
    captions = [("train", example, f"training example {example}"), ("query", query, f"query {query}")]
    entries = [(album.entries[album.add(side, identifier)], text) for side, identifier, text in captions]
    pictures = [{"uri": entry["uri"], "text": text} for entry, text in entries if entry["kind"] == "image"]
    return [*pictures, {"uri": picture_uri(coloured(heat)), "text": "contributions: blue raises, orange lowers"}]


def per_pixel(values: NDArray[np.float64], pixels: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Contributions summed over channels, (height, width); None if the numbers are not pixels."""
    size = pixels[0] * pixels[1]
    if values.size % size:
        return None
    if values.ndim == 3 and values.shape[1:] == pixels:
        return np.asarray(values.sum(axis=0))
    return np.asarray(values.reshape(*pixels, -1).sum(axis=2))


def coloured(heat: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Positive numbers in blue, negative ones in orange, the largest in full colour: (height, width, 3)."""
    strength = (np.abs(heat) / max(float(np.abs(heat).max()), 1e-300))[..., None]
    ink = np.where(heat[..., None] > 0, RAISES_COLOUR, LOWERS_COLOUR)
    return np.rint(245 * (1 - strength) + ink * strength).astype(np.uint8)


def picture_uri(pixels: NDArray[np.uint8]) -> str:
    """A PNG as a data URI."""
    import base64
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
