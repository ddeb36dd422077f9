"""SOURCE: a training unrolled from its checkpoints, step by step or as a few stretches of constant curvature."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts, Blocks
from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.change_checks import check_changes_once
from upweight.core.checkpoints import Checkpointed, Segment, Stepwise
from upweight.core.curvature_recipes import EKFAC, CurvatureRecipe
from upweight.core.examples import Examples
from upweight.core.rows import Rows
from upweight.core.scores import Scores, Unit

Array = NDArray[np.float64]
BLOCK = 4096  # training examples whose scores are held at a time
USUAL = 3  # segments
PAIRED = 64  # examples whose effect on themselves is taken at a time


@dataclass(frozen=True, kw_only=True)
class SOURCE(Attributor):
    """Unrolling a training from its checkpoints: by its recorded steps, or as Bae et al. (2024) in closed form. RANK.

    Where the trajectory says where the first step began and which examples every step took, it is gone back through
    step by step, u ← u − η_t H_t u with momentum, weight decay and Adam's moments as they were, at parameters on the
    straight line between checkpoints: score = Σ_t ⟨u_t, ∇ℓ_i⟩ over the steps of example i.

    Else, or with `segments`: −1/n Σ_l ⟨F_l(u_l), ḡ_i^l⟩ over segments l of the training, u_L = ∇m_q,
    u_{l−1} = e^{−τ_l H_l} u_l and F_l(σ) = (1 − e^{−τ_l σ})/σ on the curvature H_l and the gradients ḡ averaged over
    the checkpoints of the segment; in Adam's metric where that trained.

    Unlike Influence neither asks for an optimum, nor needs a damping.

    Args:
        curvature: of segments: `GaussNewton()` (exact products) or `EKFAC()`; None for `GaussNewton()`.
        segments: stretches; each needs a checkpoint, two are better. None for steps where they are known (and no
            curvature is asked for), else 3.
    """

    summary = "A training unrolled from its checkpoints, step by step or as a few stretches of constant curvature"
    paper = "Bae et al. (2024)"
    cost = (
        "by steps that of going back through the training once, a product of its batch for each query and step; by "
        "segments a curvature and a pass over the training set per checkpoint, and an exponential per segment and "
        "query"
    )
    needs = (Checkpointed,)
    variants: ClassVar = {"segments": {"segments": 2}, "EK-FAC": {"curvature": EKFAC(), "segments": 2}}

    curvature: CurvatureRecipe | None = None
    segments: int | None = None

    def __post_init__(self) -> None:
        if self.segments is not None and self.segments < 1:
            raise ValueError(f"expected at least 1 segment, got {self.segments}")

    @property
    def promises(self) -> Promises:
        """Most of the order."""
        return Promises(correlation=0.3)

    def fit(self, model: Any, train: Examples) -> FittedSOURCE | FittedSteps:
        """The curvature of every segment, or the recorded steps."""
        if self.segments is None and self.curvature is None:
            steps = model.stepwise(train)
            if steps is not None:
                return FittedSteps(self, model, train, steps)
        count = USUAL if self.segments is None else self.segments
        return FittedSOURCE(self, model, train, model.segments(train, self.curvature, count))

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedSOURCE | FittedSteps:
        """The curvatures are built again."""
        fitted = self.fit(model, train)
        here = fitted.state()[1]["checkpoints"]
        if facts["checkpoints"] != here:
            raise ValueError(f"fitted with other checkpoints ({facts['checkpoints']}, not {here}); fit again")
        return fitted


class FittedSteps(Fitted[SOURCE, Checkpointed]):
    """SOURCE by the steps themselves, ready to answer."""

    def __init__(self, recipe: SOURCE, model: Checkpointed, train: Examples, steps: Stepwise) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        self.steps = steps

    def blocks(self, queries: Examples) -> Blocks:
        """All examples by one way back; and for which queries it ended early."""
        values = self.steps.gradients(self.model.measure_rows(queries))
        lost = Counter(self.steps.lost)
        yield slice(0, len(self.train)), values
        return _lost(lost)

    def self_values(self) -> Array:
        """Each training example's score on itself: the way back for all of them."""
        return self._own()[0]

    @check_changes_once
    def self_influence(self) -> Scores:
        """One row, `self`; and for how many examples the way back ended early."""
        self.require_unchanged()
        values, lost = self._own()
        return self.scores(values[None, :], np.array(["self"]), self.train.ids, facts=_lost(lost))

    def _own(self) -> tuple[Array, Counter[int]]:
        """(own scores (n,), step → examples whose way back ended there)."""
        own, lost = np.empty(len(self.train)), Counter[int]()
        for first, some in zip(range(0, len(own), PAIRED), self.train.batches(PAIRED), strict=True):
            gradients = self.steps.gradients(self.model.measure_rows(some))
            own[first : first + len(some)] = np.diagonal(gradients[:, first:])
            lost.update(self.steps.lost)
        return own, lost

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """How many steps, and between which checkpoints."""
        marks = [checkpoint.step for checkpoint in self.steps.checkpoints]
        warnings = list(self.model.notes)
        if self.steps.unseen:
            warnings.append(
                f"{self.steps.unseen} of {len(self.train)} examples took part in no step of this training: their "
                "scores are 0."
            )
        return {"steps": self.steps.steps, "checkpoints": marks, "warnings": warnings}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Nothing is kept; the checkpoints' names, so that others are noticed."""
        return {}, {"checkpoints": [checkpoint.identity for checkpoint in self.steps.checkpoints]}


class FittedSOURCE(Fitted[SOURCE, Checkpointed]):
    """SOURCE by segments, ready to answer."""

    def __init__(self, recipe: SOURCE, model: Checkpointed, train: Examples, segments: Sequence[Segment]) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        self.segments = segments

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """The responses of all segments once, then their products with the gradients at every checkpoint."""
        answers, n, over = self._responses(queries), len(self.train), self.model.mean_over(self.train)
        for start in range(0, n, BLOCK):
            where = np.arange(start, min(start + BLOCK, n))
            part = self.train.take(where)
            block = np.zeros((len(queries), len(where)))
            for response, share, rows in self._pairs(answers, part):
                block -= share * response.dot(rows)
            yield slice(start, int(where[-1]) + 1), block / over

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
        return values / self.model.mean_over(self.train)

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """What each segment is."""
        news = [dict(segment.diagnostics) for segment in self.segments]
        warnings = [text for one in news for text in one.pop("warnings", ())]
        return {"segments": news, "warnings": [*self.model.notes, *dict.fromkeys(warnings)]}

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


def _lost(lost: Counter[int]) -> AnswerFacts:
    """What to know of an answer whose way back ended early (step → queries)."""
    if not lost:
        return AnswerFacts()
    text = (
        f"The way back ended early for {lost.total()} queries (the first at step {max(lost)}): between these "
        "checkpoints their derivative grows without bound, as it can where training is at the edge of stability. "
        "Record more of them, or take segments=3."
    )
    return AnswerFacts(diagnostics={"warnings": [text]})
