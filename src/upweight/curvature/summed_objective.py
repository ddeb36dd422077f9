"""A network's training objective on the summed scale, which every curvature is fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.saved_state import SavedState
from upweight.core.weights import example_counts, require_any_weight
from upweight.curvature.content_keys import Keys, content_keys
from upweight.curvature.limits import DEFAULT_LIMITS, Limits
from upweight.gradients.network import Network
from upweight.gradients.outputs import outputs

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SummedObjective:
    """The matrix Σᵢ weightsᵢ Cᵢ + (ridge + damping)·I, where Cᵢ is the curvature of one example's loss.

    Attributes:
        network: the network whose loss this is.
        train: the training examples of weight above 0.
        weights: (n,) their sample weights.
        ridge: the objective's l2 on this scale.
        damping: what is added to the curvature beyond the l2, on this scale.
        damping_from: where the damping came from, as a phrase.
        time_matched: whether the damping is matched to the time that training took.
        limits: sizes up to which exact forms are used.
        losses: how many losses that share no output the sum has; None to count them when they are needed.
        notes: facts about the choice of curvature that a reader of the scores should know, as sentences.
        choice: why this curvature was chosen, as a sentence; empty if it was named.
        weight_without_gradient: of examples that are not in `train`, because their loss does not depend on parameters.
    """

    network: Network
    train: Examples
    weights: Array
    ridge: float
    damping: float
    damping_from: str = ""
    time_matched: bool = False
    limits: Limits = DEFAULT_LIMITS
    notes: tuple[str, ...] = ()
    choice: str = ""
    weight_without_gradient: float = 0.0
    losses: float | None = None

    @classmethod
    def of(
        cls, network: Network, train: Examples, weights: Array, ridge: float, limits: Limits = DEFAULT_LIMITS
    ) -> SummedObjective:
        """The objective without damping, on the examples of weight above 0: the others have no curvature."""
        require_any_weight(train)
        counted = np.flatnonzero(weights)
        if len(counted) < len(train):
            train, weights = train.take(counted), weights[counted]
        return cls(network, train, weights, ridge, 0.0, limits=limits)

    def saved_state(self, curvature: object, state: SavedState) -> SavedState:
        """The state of a curvature of this objective, with its kind and how the damping was chosen."""
        chosen = {name: getattr(self, name) for name in ("damping", "damping_from", "time_matched", "notes", "choice")}
        return SavedState.joined({"fitted": state}, {"kind": type(curvature).__name__, "chosen": chosen})

    def with_choice(self, chosen: Mapping[str, Any]) -> SummedObjective:
        """The same objective with the damping that a saved state names."""
        return replace(
            self,
            damping=float(chosen["damping"]),
            damping_from=str(chosen["damping_from"]),
            time_matched=bool(chosen["time_matched"]),
            notes=tuple(map(str, chosen["notes"])),
            choice=str(chosen.get("choice", "")),
        )

    @property
    def choice_diagnostics(self) -> dict[str, str]:
        """Diagnostics on how the curvature was chosen; empty if the user named it."""
        return {"curvature_choice": self.choice} if self.choice else {}

    def diagnostics(self, curvature: str, solver: str) -> dict[str, Any]:
        """Diagnostics of a fitted curvature: its kind, solver, size and damping, and the notes about its choice."""
        return {
            "curvature": curvature,
            "solver": solver,
            "parameters": self.network.size,
            "damping": self.mean_damping,
            "damping_from": self.damping_from,
            **self.choice_diagnostics,
            "warnings": list(self.notes),
        }

    @property
    def weighted(self) -> tuple[Examples, Array]:
        """The training examples and their weights."""
        return self.train, self.weights

    @property
    def copies(self) -> Array:
        """(n,) how many examples each one stands for wherever examples are counted."""
        return example_counts(self.weights)

    @cached_property
    def keys(self) -> Keys:
        """(n,) the keys of the training examples by their contents."""
        return content_keys(self.train)

    @cached_property
    def output_shape(self) -> torch.Size:
        """The shape of the first example's output. Raises NoOutputsError if the loss is no function of one output."""
        first = self.train.take([0])
        with self.network.preserved():
            return outputs(self.network, self.network.batch(first), first.ids).values.shape[1:]

    @property
    def total(self) -> float:
        """The weight of all examples: a summed number divided by it is that of the mean loss."""
        return float(self.weights.sum()) + self.weight_without_gradient

    @property
    def shift(self) -> float:
        """ridge + damping."""
        return self.ridge + self.damping

    @property
    def mean_damping(self) -> float:
        """The damping on the scale of the mean loss, as users give it."""
        return float(self.damping / self.total)
