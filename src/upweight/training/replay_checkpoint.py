"""The progress of a backward pass through a run, saved on disk so that an interrupted pass can resume."""

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
    """The state of a backward pass that has finished the steps from `t` on.

    Attributes:
        t: the first step that is finished.
        theta_cotangents, state_cotangents: cotangents (m, p) of parameters and optimiser state before step t. A
            finished pass is saved without them.
        scores: the scores (m, n) so far.
        clipped: how often a cotangent was clipped so far.
    """

    t: int
    theta_cotangents: Tensor
    state_cotangents: OptimiserState
    scores: NDArray[np.float64]
    clipped: int = 0


class ReplayCheckpoint:
    """The file of one backward pass, named by the identity of everything that the pass depends on.

    A pass of another run, with other weights or for other queries has another name. So passes can share a folder, and
    none of them reads the numbers of another.
    """

    def __init__(self, folder: str | Path, identity: str) -> None:
        self.path = Path(folder) / f"{identity}.npz"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def read(self, initial: BackwardState) -> BackwardState:
        """The saved state of the pass, or `initial` if there is none. A damaged file is logged and ignored."""
        if not self.path.exists():
            return initial
        try:
            arrays, facts = read_archive(self.path, KIND, SCHEMA)
        except ValueError as error:
            logger.warning("%s; this replay starts from its beginning", error)
            return initial
        after, first, second = (
            torch.from_numpy(arrays[name]).to(initial.theta_cotangents) if name in arrays else None
            for name in ("after", "first", "second")
        )
        return BackwardState(
            facts["t"],
            initial.theta_cotangents if after is None else after,
            OptimiserState(first, second),
            arrays["scores"],
            facts["clipped"],
        )

    def write(self, state: BackwardState) -> None:
        """Save this state, whole or not at all. Raises OSError if the disk is full."""
        cotangents = {
            "after": state.theta_cotangents,
            "first": state.state_cotangents.first,
            "second": state.state_cotangents.second,
        }
        arrays = {name: _to_numpy(tensor) for name, tensor in cotangents.items() if state.t and tensor is not None}
        write_archive(
            self.path, KIND, {"scores": state.scores, **arrays}, {"t": state.t, "clipped": state.clipped}, SCHEMA
        )


def _to_numpy(tensor: Tensor) -> NDArray[np.generic]:
    """The same numbers as a numpy array; bfloat16, which numpy lacks, becomes float32."""
    array: NDArray[np.generic] = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32)).cpu().numpy()
    return np.ascontiguousarray(array)
