"""How far a backward pass through a run has come, on disk, so that an interrupted pass can resume."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.archive import read_archive, write_archive
from upweight.training.optimiser_step import OptimiserState

KIND = "replay"
SCHEMA = 2

logger = logging.getLogger("upweight")


class BackwardState(NamedTuple):
    """Where a pass backwards is: the steps from `t` on are done.

    Cotangents (m, p) of parameters and state before step t, the scores (m, n) so far, and how often a cotangent was
    clipped; the cotangents of a pass that is done are not kept.
    """

    t: int
    after: Tensor
    held: OptimiserState
    scores: NDArray[np.float64]
    clipped: int = 0


class ReplayCheckpoint:
    """One pass's file in a folder, named by the identity of everything that the pass depends on.

    A pass of another run, other weights or other queries has another name: a folder can be shared, and never gives one
    of them the numbers of another.
    """

    def __init__(self, folder: str | Path, identity: str) -> None:
        self.path = Path(folder) / f"{identity}.npz"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def read(self, begins: BackwardState) -> BackwardState:
        """Where the pass was, else where it begins. A damaged file is named in the log, and the pass made anew."""
        if not self.path.exists():
            return begins
        try:
            arrays, facts = read_archive(self.path, KIND, SCHEMA)
        except ValueError as error:
            logger.warning("%s; that replay is made from its beginning", error)
            return begins
        after, first, second = (
            torch.from_numpy(arrays[name]).to(begins.after) if name in arrays else None
            for name in ("after", "first", "second")
        )
        return BackwardState(
            facts["t"],
            begins.after if after is None else after,
            OptimiserState(first, second),
            arrays["scores"],
            facts["clipped"],
        )

    def write(self, back: BackwardState) -> None:
        """Keep this, whole or not at all. Raises OSError where the disk is full."""
        carried = {"after": back.after, "first": back.held.first, "second": back.held.second} if back.t else {}
        arrays = {name: _numbers(tensor) for name, tensor in carried.items() if tensor is not None}
        write_archive(
            self.path, KIND, {"scores": back.scores, **arrays}, {"t": back.t, "clipped": back.clipped}, SCHEMA
        )


def _numbers(tensor: Tensor) -> NDArray[np.generic]:
    """The same numbers for numpy, which knows no bfloat16."""
    found: NDArray[np.generic] = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32)).cpu().numpy()
    return np.ascontiguousarray(found)
