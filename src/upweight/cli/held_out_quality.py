"""How good a model is on held-out rows, beside a guess that looks at no column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.cli.table_columns import plain_text


@dataclass(frozen=True)
class HeldOutQuality:
    """Accuracy or R² on held-out rows.

    Attributes:
        measure: accuracy for classes, R² for numbers.
        value: of the model.
        guess: the constant guess: the most frequent class, or the mean, of the training rows.
        guess_value: accuracy or R² of the guess on the same rows.
        rows: how many rows were held out.
    """

    measure: Literal["accuracy", "R²"]
    value: float
    guess: Any
    guess_value: float
    rows: int

    @property
    def sentence(self) -> str:
        """The quality as a sentence."""
        if self.measure == "accuracy":
            guess = f"always answering {plain_text(self.guess)}, the largest class, has {self.guess_value:.1%}"
            return f"Accuracy on {self.rows:,} held-out rows: {self.value:.1%}; {guess}."
        guess = f"always answering the mean has {self.guess_value:.3f}".replace("-", "−")
        return f"R² on {self.rows:,} held-out rows: {self.value:.3f}; {guess}.".replace("-0", "−0")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "measure": self.measure,
            "value": self.value,
            "guess": self.guess,
            "guess_value": self.guess_value,
            "held_out": self.rows,
        }


def held_out_quality(
    predicted: NDArray[Any], y: NDArray[Any], y_train: NDArray[Any], is_number: bool
) -> HeldOutQuality:
    """The quality of predictions of the held-out `y`, shape (rows,). R² is NaN if `y` does not vary."""
    if not is_number:
        values, counts = np.unique(y_train, return_counts=True)
        guess = values[counts.argmax()]
        return HeldOutQuality(
            "accuracy", float((predicted == y).mean()), guess.item(), float((y == guess).mean()), len(y)
        )
    mean, spread = float(y_train.mean()), float(((y - y.mean()) ** 2).sum())
    r2, guess_r2 = (
        1 - float(((y - answer) ** 2).sum()) / spread if spread > 0 else float("nan") for answer in (predicted, mean)
    )
    return HeldOutQuality("R²", r2, mean, guess_r2, len(y))
