"""Pictures: what all figures draw alike."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SAME, OTHER = "tab:green", "tab:red"  # label of the training example beside the query's, as in the paper


def panels(columns: int, rows: int = 1, size: tuple[float, float] = (3.4, 3.2)) -> tuple[Any, Any]:
    """A figure and its axes, flat."""
    figure, axes = plt.subplots(rows, columns, figsize=(size[0] * columns, size[1] * rows), squeeze=False)
    return figure, axes.ravel()


def agree(axes: Any, actual: NDArray[Any], predicted: NDArray[Any], title: str) -> None:
    """Predicted against actual differences, with the line on which they are equal."""
    axes.scatter(actual, predicted, s=9, alpha=0.7, linewidths=0)
    ends = np.array([min(np.min(actual), np.min(predicted)), max(np.max(actual), np.max(predicted))]) * 1.08
    axes.plot(ends, ends, color="0.6", linewidth=1, zorder=0)
    axes.locator_params(nbins=5)
    axes.set(title=title, xlabel="actual difference in loss", ylabel="predicted difference in loss")


def picture(axes: Any, image: NDArray[Any], title: str) -> None:
    """One image without ticks."""
    axes.imshow(image, cmap="gray" if np.ndim(image) == 2 else None)
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def save(figure: Any, path: Path) -> None:
    """Write it with few colours, so that it is small, and forget it."""
    figure.tight_layout()
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=90, format="png", bbox_inches="tight")
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(200).save(path, optimize=True)
