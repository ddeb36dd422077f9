"""The interface of a replayed training run, which can be differentiated in the example weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from upweight.core.rows import Rows


class Replay(ABC):
    """A training run that can be replayed.

    Attributes:
        clipped: the share of steps and queries in which the last `gradients` clipped a cotangent.
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

    @property
    def statistics(self) -> NDArray[np.float64]:
        """What training determines in addition to the parameters: running statistics, (b,); empty if there are none."""
        return np.empty(0)

    @abstractmethod
    def gradients(self, rows: Rows, folder: str | Path | None = None, clip: float | None = None) -> NDArray[np.float64]:
        """∂m_q/∂wᵢ, (m, n), from the gradients of the measurements in what training determines.

        Args:
            rows: the gradients of the measurements (m, p), or (m, p + b) with those in the running statistics.
            folder: where to save the state of a long backward pass, so that an interrupted one resumes.
            clip: the largest factor by which a query's cotangent may grow in one step of the backward pass. If any
                cotangent was clipped, the result is not the exact derivative.
        """

    @abstractmethod
    def shifts(self, directions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivatives of parameters and running statistics along directions (r, n) in the weights: (r, p + b)."""
