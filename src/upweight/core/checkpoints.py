"""Checkpoints of a training run, the segments of training between them, and models that have them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.deprecation import RenamedAttribute, ReplacedBy, accept_old_fields
from upweight.core.examples import Examples
from upweight.core.model import Differentiable, Measurable
from upweight.core.modules import Modules
from upweight.core.rows import Rows
from upweight.core.weights import example_counts, sample_weights


@accept_old_fields({"travelled": ReplacedBy("learning_rate_sum")})
@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The model at one step of its training.

    Attributes:
        step: optimiser steps taken before the checkpoint; 0 for the initial model, None if the training is not known.
        learning_rate_sum: Σ effective learning rates (with the factor of momentum) of the steps that are nearer to this
            checkpoint than to another one. The sum over all checkpoints is that of the whole training.
        identity: a digest of the checkpoint's contents.
        model: loads the model from disk. Its loss rows carry no share of the regulariser, because training applies the
            regulariser whichever examples are removed.
    """

    step: int | None
    learning_rate_sum: float
    identity: str
    model: Callable[[], Differentiable]
    travelled = RenamedAttribute("learning_rate_sum")

    def updates(
        self, model: Differentiable, gradients: NDArray[np.float64], *, momentum: bool = True
    ) -> NDArray[np.float64]:
        """The optimiser's updates (k, p), up to a factor, if its next step had one of these gradients (k, p) alone.

        By default gradient descent: the gradients themselves. `momentum`: with the mean of earlier gradients.
        """
        return gradients

    def inverse_roots(self, model: Differentiable) -> NDArray[np.float64]:
        """1/(√v̂ + ε) by the optimiser's second moments v̂ of every parameter of the model, (p,).

        Raises ValueError for an optimiser without second moments.
        """
        raise ValueError("this checkpoint has no second moments of an optimiser")


class Segment(ABC):
    """A segment of training with constant curvature H and gradients; τ = Σ effective learning rates.

    Attributes:
        checkpoints: over which H and the gradients are averaged, weighted by `Checkpoint.learning_rate_sum`.
    """

    checkpoints: Sequence[Checkpoint]
    travelled = RenamedAttribute("learning_rate_sum")

    @property
    def learning_rate_sum(self) -> float:
        """τ, the sum of the effective learning rates."""
        return sum(checkpoint.learning_rate_sum for checkpoint in self.checkpoints)

    @abstractmethod
    def passed(self, rows: Rows) -> tuple[Rows, Rows]:
        """(response, before) of covectors u at the end of the segment.

        `response` = ∫₀^τ e^{−(τ−t)HP} u dt in the metric P of the optimiser. Its inner product with a gradient is the
        effect on u of adding that gradient throughout the segment. `before` = e^{−τHP} u are the covectors at the
        beginning of the segment.
        """

    @property
    @abstractmethod
    def diagnostics(self) -> Mapping[str, Any]:
        """Which checkpoints and curvature the segment uses, with warnings."""


class Stepwise(ABC):
    """The recorded steps of a training run, each with its batch, at parameters interpolated between checkpoints.

    Attributes:
        checkpoints: of the run.
        steps: number of recorded steps.
        unseen: number of examples that are in no batch.
        lost: step → number of queries whose backward pass stopped there, in the last call of `gradients`.
        checked: number of recorded steps that were compared with the replayed ones.
        contradictions: sentences about recorded steps that are not the replayed ones; they warn the reader.
    """

    checkpoints: Sequence[Checkpoint]
    steps: int
    unseen: int
    lost: Mapping[int, int]
    checked: int = 0
    contradictions: Sequence[str] = ()

    def outcome_rows(self, model: Any, queries: Examples) -> Rows:
        """Gradients of the measurement in what training determined, which `gradients` takes: (m, p) by default."""
        rows: Rows = model.measure_rows(queries)
        return rows

    def retrained(self, model: Any, weights: NDArray[np.float64]) -> Sequence[Measurable]:
        """The models that these steps train with each of these example weights (k, n); none if they are not repeatable.

        The denominators of the steps stay.
        """
        return ()

    @abstractmethod
    def gradients(self, rows: Rows) -> NDArray[np.float64]:
        """∂m_q/∂wᵢ, (m, n), from the gradients of the measurements (m, p) at the trained parameters."""


class Checkpointed(Differentiable):
    """A model with checkpoints of its training run."""

    def mean_over(self, train: Examples) -> float:
        """Number of examples in the mean loss of the training: those of positive weight, a row of k copies as k."""
        return float(example_counts(sample_weights(train)).sum())

    @property
    def rate_notes(self) -> Sequence[str]:
        """Sentences about learning rates that one sum per checkpoint does not tell."""
        return ()

    @abstractmethod
    def checkpoints(self) -> Sequence[Checkpoint]:
        """The checkpoints, in the order of the training. Raises ValueError if there are none or they are damaged."""

    @abstractmethod
    def segments(self, train: Examples, recipe: Any, count: int) -> Sequence[Segment]:
        """The training as `count` segments of consecutive checkpoints, with the curvature that the recipe names."""

    @abstractmethod
    def stepwise(self, train: Examples) -> Stepwise | None:
        """The training step by step; None if the batches or the initial parameters were not recorded.

        Raises ValueError if a batch holds examples that `train` does not have.
        """

    def contradictions(self, steps: Stepwise | None) -> Sequence[str]:
        """Sentences about what the training did and segments do not model.

        `steps`: the recorded steps; None if they are not known or cannot be followed.
        """
        return ()


class Layered(Differentiable):
    """A model whose gradients can be restricted to some of its layers."""

    @property
    @abstractmethod
    def layers(self) -> tuple[str, ...]:
        """Names of the trained layers, in their order."""

    @abstractmethod
    def narrowed(self, modules: Modules) -> Differentiable:
        """The same model with all parameters fixed but those of these modules, or of these rows of embeddings.

        Raises ValueError for a pattern that matches no module, and for rows that cannot be chosen.
        """

    def with_dependent(self, train: Examples) -> tuple[Differentiable, NDArray[np.intp]] | None:
        """(This model, positions of the training examples on whose losses its parameters act): fit it on those alone.

        The objective is still that of the whole training set: the losses of all other examples are constant in these
        parameters. None if every example counts, which is the default.
        """
        return None
