"""Settings of the neighbours of a query, and the interpretable features in which they are described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from upweight.applications.interpretable.features import InterpretableFeatures
from upweight.applications.interpretable.pictures import PictureFeatures, shows_picture
from upweight.applications.interpretable.tables import TableFeatures
from upweight.applications.interpretable.texts import SparseFeatures, TextFeatures
from upweight.core.blocks import require_count
from upweight.core.examples import Examples
from upweight.core.input_kinds import columns_of, is_sparse


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """How the neighbours of a query are drawn, and what counts as near.

    Args:
        samples: how many neighbours to draw; None for 5,000, or 1,000 of pictures.
        influential: how many training examples make up the second neighbourhood: those with the largest |score|; 0 for
            none.
        width: of the kernel √exp(−distance² / width²); None for 0.75 √columns with Euclidean distances (tables), 25
            with cosine distances times 100 (texts, sparse rows), 0.25 with cosine distances (pictures).
        quarters: whether a column of numbers is 1 in the quarter of the training set into which the query falls, and 0
            elsewhere; otherwise it is the number itself.
        categorical: names or positions of columns whose numbers are codes. Columns of texts, categories and truth
            values, and of at most two different numbers, are categorical anyway.
        segments: the superpixel of every pixel, or a function of the picture that returns it; None for scikit-image.
        hidden: the number that is shown in place of a hidden superpixel; None for its mean colour, which changes
            nothing if all of its pixels are alike.
        seed: of everything that is drawn.
    """

    samples: int | None = None
    influential: int = 100
    width: float | None = None
    quarters: bool = True
    categorical: Sequence[str | int] = ()
    segments: Any = None
    hidden: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples is not None:
            require_count("samples", self.samples, least=10)
        require_count("influential", self.influential, least=0)
        require_count("seed", self.seed, least=0)
        if self.hidden is not None and not np.isfinite(self.hidden):
            raise ValueError(f"expected a finite number for hidden superpixels, got {self.hidden!r}")
        if self.width is not None and not 0 < self.width < np.inf:
            raise ValueError(f"expected a width above 0, got {self.width!r}")
        if isinstance(self.categorical, str):
            raise TypeError(
                f"expected a list of columns, got the text {self.categorical!r}; pass [{self.categorical!r}]"
            )

    def features_of(self, train: Examples | None, query: Examples) -> InterpretableFeatures:
        """Words of a text, superpixels of a picture, columns of a table.

        Raises ValueError for inputs that are none of these or other than those of the training set, and for a table
        without a training set.
        """
        if train is not None and _kind(train.x) != _kind(query.x):
            raise ValueError(f"expected a query like the training set, {_kind(train.x)}, got {_kind(query.x)}")
        if is_sparse(query.x):
            return SparseFeatures(train, query, self.width)
        if _kind(query.x) == "texts":
            return TextFeatures(train, query, self.width)
        if self.segments is not None or shows_picture(query):
            return PictureFeatures(train, query, self.width, self.segments, self.hidden)
        if train is None:
            raise ValueError("expected the training set, from which values of columns are drawn; pass train")
        if getattr(query.x, "ndim", 2) != 2:
            raise ValueError(f"expected a table, texts or pictures, got inputs of shape {np.shape(query.x)[1:]}")
        return TableFeatures(train, query, self.quarters, self.width, self.categorical)


def _kind(x: Any) -> str:
    if is_sparse(x):
        return "sparse rows"
    if columns_of(x) is not None:
        return "a data frame"
    return "texts" if isinstance(x, list | tuple) and isinstance(x[0], str) else "an array"
