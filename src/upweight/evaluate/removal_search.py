"""The search for the smallest removal that flips an outcome: sizes double until one does, and are then narrowed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class RemovalSearch:
    """The search for the smallest number of examples, removed in a fixed order, that flips an outcome.

    Attributes:
        order: positions in the training set, in the order in which they are removed.
        limit: the largest removal allowed.
        before: the outcome after training on everything, e.g. the index of the predicted class.
        unflipped: the largest removal known not to flip the prediction.
        flipped: the smallest removal known to flip it; None while there is none.
        after: the outcome without those.
        refused: the smallest removal without which the model cannot be trained; None while there is none.
        note: why the search ended early, in a sentence.
        first: the removal that is tried first; it doubles until the outcome flips.
    """

    order: NDArray[np.intp]
    limit: int
    before: float
    unflipped: int = 0
    flipped: int | None = None
    after: float = 0.0
    refused: int | None = None
    note: str = ""
    first: int = 1

    @property
    def most(self) -> int:
        """The largest size that can be tried."""
        return min(self.limit, len(self.order), self.limit if self.refused is None else self.refused - 1)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to try."""
        return self.unflipped >= self.most if self.flipped is None else self.flipped - self.unflipped <= 1

    def sizes(self, count: int) -> list[int]:
        """Sizes to try next: doubled until a removal flips the prediction, then evenly spaced in between."""
        if self.flipped is None:
            doubled = (max(self.first, 2 * self.unflipped) * 2**step for step in range(count))
            return sorted({min(size, self.most) for size in doubled})
        between = np.linspace(self.unflipped, self.flipped, count + 2)[1:-1].astype(int).tolist()
        return sorted({min(max(size, self.unflipped + 1), self.flipped - 1) for size in between})

    def record(self, size: int, outcome: float | str) -> None:
        """Record the outcome without `size` examples, or why the model cannot be trained without them.

        Sizes come in ascending order; those above a removal that flips the prediction add nothing.
        """
        if self.flipped is not None and size > self.flipped:
            return
        if isinstance(outcome, str) and self.flipped is not None:
            raise ValueError(
                f"the model can be trained without {self.flipped} examples, but not without {size}: {outcome}"
            )
        if isinstance(outcome, str):  # most often because a class has no example left
            self.refused = size if self.refused is None else min(size, self.refused)
            self.note = f"the model cannot be trained without {self.refused}: {outcome}"
        elif self.refused is not None and size > self.refused:
            return
        elif outcome != self.before:
            self.flipped, self.after = size, outcome
        else:
            self.unflipped = max(size, self.unflipped)
