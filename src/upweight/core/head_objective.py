"""How the last step of a model was trained on its features, if that is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class HeadObjective:
    """Cross-entropy and l2: Σ wᵢ ℓᵢ / Σ w + l2/2 ‖W‖², with one logit per class.

    Attributes:
        weights: w, the weights of the examples with those of their classes, (n,).
        l2: above 0. If two classes have one logit, which is the difference of two, half of it applies to that one.
        intercept: whether the logits have an intercept, which has no penalty.
    """

    weights: NDArray[np.float64]
    l2: float
    intercept: bool = True
