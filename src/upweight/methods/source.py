"""SOURCE: training as a few stretches of constant curvature, unrolled in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.checkpoints import Checkpointed, Segment
from upweight.core.examples import Examples
from upweight.core.model import require
from upweight.core.recipes import CurvatureRecipe
from upweight.core.rows import Rows
from upweight.core.scores import Unit

Array = NDArray[np.float64]
BLOCK = 4096  # training examples whose scores are held at a time
PAIRED = 64  # examples whose effect on themselves is taken at a time


@dataclass(frozen=True, kw_only=True)
class SOURCE(Attributor):
    """Bae et al. (2024), approximate unrolling: −1/n Σ_l ⟨F_l(u_l), ḡ_i^l⟩ over segments l of the training. RANK.

    u_L = ∇m_q, u_{l−1} = e^{−τ_l H_l} u_l and F_l(σ) = (1 − e^{−τ_l σ})/σ on the curvature H_l and the gradients ḡ
    averaged over the checkpoints of the segment; in Adam's metric where that trained. Unlike Influence it does not ask
    for an optimum, and needs no damping.

    Args:
        curvature: `GaussNewton()` (exact products) or `EKFAC()`; None for `GaussNewton()`.
        segments: stretches; each needs a checkpoint, two are better.

    Cost: per checkpoint a curvature and a pass over the training set, per segment an exponential for each query.
    """

    curvature: CurvatureRecipe | None = None
    segments: int = 3

    def __post_init__(self) -> None:
        if self.segments < 1:
            raise ValueError(f"expected at least 1 segment, got {self.segments}")

    @property
    def promises(self) -> Promises:
        """Sign and order; sizes were not held against retraining."""
        return Promises()

    def fit(self, model: Any, train: Examples) -> FittedSOURCE:
        """The curvature of every segment."""
        require(model, [Checkpointed], "SOURCE", train)
        return FittedSOURCE(self, model, train, model.segments(train, self.curvature, self.segments))

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedSOURCE:
        """The curvatures are built again."""
        fitted = self.fit(model, train)
        here = fitted.state()[1]["checkpoints"]
        if facts["checkpoints"] != here:
            raise ValueError(f"fitted with other checkpoints ({facts['checkpoints']}, not {here}); fit again")
        return fitted


class FittedSOURCE(Fitted):
    """SOURCE, ready to answer."""

    model: Checkpointed

    def __init__(self, recipe: SOURCE, model: Checkpointed, train: Examples, segments: Sequence[Segment]) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        self.segments = segments

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """The responses of all segments once, then their products with the gradients at every checkpoint."""
        answers, n = self._responses(queries), len(self.train)
        for start in range(0, n, BLOCK):
            where = np.arange(start, min(start + BLOCK, n))
            part = self.train.take(where)
            block = np.zeros((len(queries), len(where)))
            for response, share, rows in self._pairs(answers, part):
                block -= share * response.dot(rows)
            yield slice(start, int(where[-1]) + 1), block / n

    def self_values(self) -> Array:
        """Each training example's score on itself."""
        values = np.empty(len(self.train))
        for start in range(0, len(values), PAIRED):
            where = np.arange(start, min(start + PAIRED, len(values)))
            part = self.train.take(where)
            values[where] = -sum(
                share * np.diagonal(response.dot(rows))
                for response, share, rows in self._pairs(self._responses(part), part)
            )
        return values / len(self.train)

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """What each segment is."""
        news = [dict(segment.diagnostics) for segment in self.segments]
        warnings = [text for one in news for text in one.pop("warnings", ())]
        return {"segments": news, "warnings": [*getattr(self.model, "notes", ()), *dict.fromkeys(warnings)]}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Nothing is kept; the checkpoints' names, so that others are noticed."""
        return {}, {"checkpoints": [c.identity for segment in self.segments for c in segment.checkpoints]}

    def _responses(self, queries: Examples) -> list[Rows]:
        """F_l(u_l) of every segment, in their order."""
        carried: Rows = self.model.measure_rows(queries)
        answers = []
        for segment in reversed(self.segments):
            response, carried = segment.passed(carried)
            answers.append(response)
        return answers[::-1]

    def _pairs(self, answers: Sequence[Rows], train: Examples) -> Iterator[tuple[Rows, float, Rows]]:
        """(response, weight of the checkpoint in its segment, gradients there)."""
        for segment, response in zip(self.segments, answers, strict=True):
            for checkpoint in segment.checkpoints:
                if checkpoint.travelled > 0:
                    rows = cast(Checkpointed, checkpoint.model()).loss_rows(train)
                    yield response, checkpoint.travelled / segment.travelled, rows
