"""Replay: a training run that was made, and is differentiated in the example weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from upweight.core.rows import Rows


class Replay(ABC):
    """A training run that was made, and can be gone through again.

    `clipped`: in which share of the steps and queries of the last `gradients` a cotangent was clipped.
    """

    clipped: float = 0.0

    @property
    @abstractmethod
    def beginning(self) -> NDArray[np.float64]:
        """The parameters before the first step, (p,)."""

    @property
    @abstractmethod
    def parameters(self) -> NDArray[np.float64]:
        """The trained parameters, (p,)."""

    @abstractmethod
    def gradients(self, rows: Rows, folder: str | Path | None = None, clip: float | None = None) -> NDArray[np.float64]:
        """∂m_q/∂wᵢ from the measurements' gradients (m, p) at the trained parameters: (m, n).

        `folder`: where a long pass is kept on the way, so that one that was broken off goes on. `clip`: the largest
        factor by which one step may let a query's cotangent grow on the way back; what comes out is the derivative
        only where none grew more.
        """

    @abstractmethod
    def shifts(self, directions: NDArray[np.float64]) -> NDArray[np.float64]:
        """How the trained parameters move along directions (r, n) in the weights: (r, p)."""
