"""Checkpoints: a model at several moments of its training, and the stretches of training between them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Differentiable
from upweight.core.rows import Rows
from upweight.core.weights import example_counts, sample_weights


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The model at one moment of its training.

    Attributes:
        step: optimiser steps taken before it; 0 is the initial model, None one whose training is not known.
        travelled: Σ learning rates of the steps that are nearer to it than to another checkpoint, times what momentum
            makes of each; over all checkpoints they sum to that of the whole training.
        identity: a short name of its contents.
        model: makes the model, reading from disk; its loss rows carry no share of the regulariser, which training goes
            on applying whoever is left out.
    """

    step: int | None
    travelled: float
    identity: str
    model: Callable[[], Differentiable]


class Segment(ABC):
    """A stretch of training over which curvature H and gradients are taken as constant; τ = Σ travelled.

    Attributes:
        checkpoints: what they are averaged over, weighted by what each travelled.
    """

    checkpoints: Sequence[Checkpoint]

    @property
    def travelled(self) -> float:
        """τ."""
        return sum(checkpoint.travelled for checkpoint in self.checkpoints)

    @abstractmethod
    def passed(self, rows: Rows) -> tuple[Rows, Rows]:
        """(response, before) of covectors u, those at the end of the stretch.

        `response` = ∫₀^τ e^{−(τ−t)HP} u dt in the optimiser's own metric P: its inner product with a gradient says what
        pushing along that gradient all through the stretch does to u. `before` = e^{−τHP} u, the covectors at its
        beginning.
        """

    @property
    @abstractmethod
    def diagnostics(self) -> Mapping[str, Any]:
        """What was built."""


class Stepwise(ABC):
    """The recorded steps of a training, each with its own batch, at parameters between its checkpoints.

    Attributes:
        checkpoints: that mark the way.
        steps: how many.
        unseen: examples that took part in none of them.
        lost: step → queries whose way back ended there, in the pass made last.
    """

    checkpoints: Sequence[Checkpoint]
    steps: int
    unseen: int
    lost: Mapping[int, int]

    @abstractmethod
    def gradients(self, rows: Rows) -> NDArray[np.float64]:
        """∂m_q/∂wᵢ from the measurements' gradients (m, p) at the trained parameters: (m, n)."""


class Checkpointed(Differentiable):
    """A model with checkpoints of its training."""

    def mean_over(self, train: Examples) -> float:
        """Over how many examples the mean loss of the training was taken: those of weight above 0, copies as many."""
        return float(example_counts(sample_weights(train)).sum())

    @abstractmethod
    def checkpoints(self) -> Sequence[Checkpoint]:
        """In the order of the training. Raises ValueError when there are none or they are damaged."""

    @abstractmethod
    def segments(self, train: Examples, recipe: Any, count: int) -> Sequence[Segment]:
        """The training as `count` stretches of consecutive checkpoints, with the curvature that the recipe names."""

    @abstractmethod
    def stepwise(self, train: Examples) -> Stepwise | None:
        """The training step by step; None where it was not recorded which examples the steps took and where it began.

        Raises ValueError for steps that took examples which `train` does not have.
        """


class Layered(Differentiable):
    """A model whose gradients can be restricted to some of its layers."""

    @property
    @abstractmethod
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that were trained, in their order."""

    @abstractmethod
    def narrowed(self, layers: Sequence[str]) -> Differentiable:
        """The same model with the parameters of all other layers held fixed. Raises ValueError for unknown names."""
