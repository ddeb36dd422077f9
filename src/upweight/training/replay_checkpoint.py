"""The progress of a backward pass through a run, saved on disk so that an interrupted pass can resume."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.archive import read_archive, stored_array, well_formed, write_archive
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
            with well_formed(self.path):
                return self._stored(arrays, facts, initial)
        except ValueError as error:
            logger.warning("%s; this replay starts from its beginning", error)
            return initial

    def _stored(
        self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any], initial: BackwardState
    ) -> BackwardState:
        """The state in a file. Raises ValueError or TypeError unless it can follow from `initial`."""
        t, clipped = facts["t"], facts["clipped"]
        if type(t) is not int or type(clipped) is not int or not 0 <= t <= initial.t or clipped < 0:
            raise TypeError(f"expected a step up to {initial.t} and a count, got {t!r} and {clipped!r}")
        if facts.get("name") not in (None, self.path.stem):  # files of earlier versions hold no name
            raise ValueError(f"it is the replay {facts['name']!r} under another name")
        expected = {"after": initial.theta_cotangents, **initial.state_cotangents}
        tensors = {
            name: torch.from_numpy(stored_array(arrays, name, tuple(tensor.shape), finite=False)).to(tensor)
            for name, tensor in expected.items()
            if t
        }
        return BackwardState(
            t,
            tensors.get("after", initial.theta_cotangents),
            {name: tensors.get(name, tensor) for name, tensor in initial.state_cotangents.items()},
            stored_array(arrays, "scores", initial.scores.shape, finite=False),
            clipped,
        )

    def write(self, state: BackwardState) -> None:
        """Save this state, whole or not at all. Raises OSError if the disk is full."""
        cotangents = {"after": state.theta_cotangents, **state.state_cotangents}
        arrays = {name: _to_numpy(tensor) for name, tensor in cotangents.items() if state.t}
        facts = {"t": state.t, "clipped": state.clipped, "name": self.path.stem}
        write_archive(self.path, KIND, {"scores": state.scores, **arrays}, facts, SCHEMA, contents=None)


def _to_numpy(tensor: Tensor) -> NDArray[np.generic]:
    """The same numbers as a numpy array; bfloat16, which numpy lacks, becomes float32."""
    array: NDArray[np.generic] = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32)).cpu().numpy()
    return np.ascontiguousarray(array)
