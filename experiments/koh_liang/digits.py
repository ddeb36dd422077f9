"""Digits: parts of MNIST as the release takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from experiments.koh_liang import data
from numpy.typing import NDArray

import upweight as uw

VALIDATION = 5_000  # the first training images, which the release sets aside


def all_ten(folder: Path, fast: bool) -> tuple[uw.Examples, uw.Examples]:
    """(55,000 training digits, 10,000 test digits); every twentieth training digit when fast."""
    (x, y), test = data.mnist(folder)
    step = slice(VALIDATION, None, 20 if fast else 1)
    return _examples(x[step], y[step]), _examples(*test)


def one_or_seven(folder: Path, multiple: int = 1, fast: bool = False) -> tuple[uw.Examples, uw.Examples]:
    """Ones (label 1) and sevens (label 0) of both sets, cut to a multiple; every tenth for training when fast."""
    (x, y), (qx, qy) = data.mnist(folder)
    x, y = x[VALIDATION:], y[VALIDATION:]
    train, test = ((which[: len(which) // multiple * multiple]) for which in map(_ones_and_sevens, (y, qy)))
    train, named = train[:: 10 if fast else 1], {1: "1", 0: "7"}
    return (
        _examples(x[train], (y[train] == 1).astype(int), named),
        _examples(qx[test], (qy[test] == 1).astype(int), named),
    )


def image(examples: uw.Examples, place: int) -> NDArray[Any]:
    """One digit as a picture."""
    return np.asarray(examples.x[place]).reshape(28, 28)


def _examples(x: NDArray[Any], y: NDArray[Any], labels: dict[int, str] | None = None) -> uw.Examples:
    return uw.Examples(np.ascontiguousarray(x), y, labels=labels)


def _ones_and_sevens(digits: NDArray[Any]) -> NDArray[Any]:
    return np.flatnonzero((digits == 1) | (digits == 7))
