"""Suspects: training labels or targets in the order in which they should be reviewed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from upweight.applications.cross_fitting import HeldOut
from upweight.core.examples import Examples
from upweight.core.tabular import Tabular

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Suspects(Tabular):
    """Training examples in the order in which their labels, or regression targets, should be reviewed.

    Attributes:
        ids: (budget,), the examples to review, most suspicious first.
        score: (n,), the score of suspicion of all training examples, in training order. It is a mean rank in (0, 1], or
            a loss in nats if only one loss is available. An example of weight 0 is never chosen, and has the lowest
            score.
        loss: (n,), the loss under the model, which was trained with the label.
        self_influence: (n,), how much the label lowers its own loss; loss + self-influence is the loss under a model
            trained without the example. NaN if the model has no gradients.
        held_out: predictions by models that were not trained with the label; None if the model cannot be retrained.
        suggested: (budget,), the most likely other label; for regression the target as predicted by a model that was
            not trained with it (by the model itself without `held_out`).
        chances: (budget, 2), the probabilities of the given and of the suggested label, by a model that was not trained
            with the label; without `held_out`, and for the only example of a class, by the model itself. NaN if the
            model has no probabilities, and for regression.
        harm: (budget,), the increase of the mean measurement on the evaluation set if the example were removed; None
            without an evaluation set.
        notes: sentences about what could not be computed.
        residual: (n,), target minus the prediction of a model that was not trained with it; None for labels.
        noise: (n,), the standard deviation of the residuals of examples with such predictions, estimated by medians;
            None for labels.
    """

    _table: ClassVar = "suspects"
    _examples: ClassVar = {"id": "train"}
    ids: NDArray[Any]
    score: Array
    loss: Array
    self_influence: Array
    held_out: HeldOut | None
    suggested: tuple[Any, ...]
    chances: Array
    harm: Array | None
    train: Examples
    evaluation: Examples | None
    measurement: str
    notes: tuple[str, ...] = ()
    residual: Array | None = None
    noise: Array | None = None

    @property
    def is_regression(self) -> bool:
        """Whether regression targets were reviewed, not labels of classes."""
        return self.residual is not None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, one entry per example to review."""
        positions = self.train.positions(self.ids)
        rows = []
        for rank, (identifier, position) in enumerate(zip(self.ids.tolist(), positions.tolist(), strict=True)):
            given, other = self.chances[rank].tolist()
            rows.append(
                {
                    "id": identifier,
                    "label": self.train.label(identifier),
                    "suggested": self.train.labels.get(self.suggested[rank], self.suggested[rank]),
                    "score": float(self.score[position]),
                    "loss": float(self.loss[position]),
                    "self_influence": _number(self.self_influence[position]),
                    "probability": _number(given),
                    "probability_of_suggested": _number(other),
                    "harm": None if self.harm is None else float(self.harm[rank]),
                    "residual": None if self.residual is None else float(self.residual[position]),
                    "noise": None if self.noise is None else float(self.noise[position]),
                }
            )
        return {
            "train": len(self.train),
            "regression": self.is_regression,
            "measurement": self.measurement,
            "suspects": rows,
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        noun = "targets" if self.is_regression else "labels"
        return f"Suspects({len(self.ids)} of {len(self.train)} training {noun} to review)"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
