"""SOURCE: a training unrolled from its checkpoints, step by step or as a few segments of constant curvature."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts, Blocks
from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.blocks import blocks
from upweight.core.capability_checks import require
from upweight.core.checkpoints import Checkpointed, Layered, Segment, Stepwise
from upweight.core.curvature_recipes import EKFAC, CurvatureRecipe
from upweight.core.examples import Examples
from upweight.core.forecast import counted
from upweight.core.library_calls import library_call
from upweight.core.modules import Modules, as_parts
from upweight.core.rows import Rows
from upweight.core.scores import Scores, Unit
from upweight.core.token_scoring import LinearScores, ScoreDirection, Span, measuring
from upweight.methods.parts.checkpoint_state import checkpoint_state, require_same_checkpoints
from upweight.methods.parts.repeated_removals import (
    COARSE_SEGMENTS,
    NO_STEPS,
    REMOVALS_OF_FEW,
    ROUGH_TRAINING,
    SOME_MODULES,
    RepeatedRemovals,
    not_compared,
    removal_facts,
)

Array = NDArray[np.float64]
TRAIN_BLOCK = 4096  # training examples whose scores are held in memory at once
SELF_BLOCK = 64  # training examples whose self-influence is computed at once
SELF_QUERIES = 16  # training examples whose scores are compared with repeated trainings, of self-influence
DEFAULT_SEGMENTS = 3


@dataclass(frozen=True, kw_only=True)
class SOURCE(Attributor):
    """A training unrolled from its checkpoints: by its recorded steps, or in closed form as Bae et al. (2024). RANK.

    If the trajectory has the initial model and the examples of every step, the backward pass goes through every step:
    u ← u − η_t H_t u, with momentum, weight decay and Adam's moments as recorded, at parameters on the straight line
    between checkpoints. The score is Σ_t ⟨u_t, ∇ℓ_i⟩ over the steps of example i.

    Otherwise, or with `segments`, the score is −1/n Σ_l ⟨F_l(u_l), ḡ_i^l⟩ over segments l of the training, with
    u_L = ∇m_q, u_{l−1} = e^{−τ_l H_l} u_l and F_l(σ) = (1 − e^{−τ_l σ})/σ. Curvature H_l and gradients ḡ are averaged
    over the checkpoints of the segment, and taken in Adam's metric if Adam trained the net.

    Unlike Influence, both work away from an optimum and need no damping.

    Args:
        curvature: of segments: `GaussNewton()` (exact products) or `EKFAC()`; None for `GaussNewton()`.
        segments: how many; each needs a checkpoint, and two are better. None for the recorded steps if they are known
            and neither a curvature nor modules are given, else 3.
        modules: the part of the model whose gradients and curvature count, with all other parameters moving as they
            were recorded: patterns of modules (see `Influence`); "last" is the last layer. None for all of it.
    """

    summary = "A training unrolled from its checkpoints, step by step or as a few segments of constant curvature"
    paper = "Bae et al. (2024)"
    cost = (
        "by steps: one backward pass through the training, with a product with the batch per query and step; by "
        "segments: a curvature and a pass over the training set per checkpoint, and an exponential per segment and "
        "query"
    )
    needs = (Checkpointed,)
    variants: ClassVar = {"segments": {"segments": 2}, "EK-FAC": {"curvature": EKFAC(), "segments": 2}}

    curvature: CurvatureRecipe | None = None
    segments: int | None = None
    modules: Modules | None = None

    def __post_init__(self) -> None:
        if self.segments is not None and self.segments < 1:
            raise ValueError(f"expected at least 1 segment, got {self.segments}")

    @property
    def promises(self) -> Promises:
        """A low correlation with retraining."""
        return Promises(correlation=0.3)

    def fit(self, model: Any, train: Examples) -> FittedSOURCE | FittedSteps:
        """Read the recorded steps, or compute the curvature of every segment."""
        follows_steps = self.segments is None and self.curvature is None and self.modules is None
        steps = model.stepwise(train) if follows_steps else _known_steps(model, train)
        if follows_steps and steps is not None:
            return FittedSteps(self, model, train, steps)
        count = DEFAULT_SEGMENTS if self.segments is None else self.segments
        narrowed = model if self.modules is None else _narrowed(model, self.modules)
        segments = narrowed.segments(train, self.curvature, count)
        return FittedSOURCE(self, (narrowed, model), train, segments, steps)

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> FittedSOURCE | FittedSteps:
        """Fit again, and check that the checkpoints are the same."""
        fitted = self.fit(model, train)
        require_same_checkpoints(facts, fitted.state()[1])
        return fitted


class FittedSteps(Fitted[SOURCE, Checkpointed]):
    """SOURCE by the recorded steps, ready to answer."""

    def __init__(self, recipe: SOURCE, model: Checkpointed, train: Examples, steps: Stepwise) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        self.steps, self.removals = steps, RepeatedRemovals(model, train, steps)

    def blocks(self, queries: Examples) -> Blocks:
        """One block from one backward pass, and warnings if the pass of a query ended early or predicts no removal."""
        values = self.steps.gradients(self.steps.outcome_rows(self.model, queries))
        ended_early = Counter(self.steps.lost)
        yield slice(0, len(self.train)), values
        return self._facts(ended_early, queries, values @ self.removals.left_out.T)

    def self_values(self) -> Array:
        """The score of each training example on itself, from a backward pass for every example."""
        return np.concatenate([np.diagonal(values[:, block.start :]) for block, _, values in self._self_blocks()])

    @library_call
    def self_influence(self) -> Scores:
        """One row, `self`, and warnings if the backward pass of an example ended early or predicts no removal."""
        self.require_unchanged()
        values, predicted, ended_early = np.empty(len(self.train)), [], Counter[int]()
        with self.announced_self_influence():
            for block, _, of_block in self._self_blocks():
                values[block] = np.diagonal(of_block[:, block.start :])
                ended_early.update(self.steps.lost)
                predicted.append(of_block @ self.removals.left_out.T)
            facts = self._facts(ended_early, self.train, np.concatenate(predicted))
        return self.scores(values[None, :], np.array(["self"]), self.train.ids, facts=facts)

    def _facts(self, ended_early: Counter[int], queries: Examples, predicted: Array) -> AnswerFacts:
        """How far scores predict the effects of removals, and warnings about passes that ended early.

        `ended_early`: step → number of queries whose backward pass ended there.
        """
        facts = removal_facts(self.removals.effects(queries, predicted), ROUGH_TRAINING)
        if ended_early:
            warning = (
                f"The backward pass ended early for {ended_early.total()} queries (the first at step "
                f"{max(ended_early)}): between these checkpoints the derivative grows without bound, as it can if "
                "training is at the edge of stability. Record more checkpoints, or pass segments=3."
            )
            facts = {**facts, "warnings": [warning, *facts.get("warnings", ())]}
        return AnswerFacts(diagnostics=facts)

    def _self_blocks(self) -> Iterator[tuple[slice, Examples, Array]]:
        """(block of training examples, these as queries, their scores (block, n))."""
        for block, examples in zip(blocks(len(self.train), SELF_BLOCK), self.train.batches(SELF_BLOCK), strict=True):
            yield block, examples, self.steps.gradients(self.steps.outcome_rows(self.model, examples))

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """How many steps there are, how many were checked, between which checkpoints, and what was found."""
        checkpoints = [checkpoint.step for checkpoint in self.steps.checkpoints]
        warnings = [*self.steps.contradictions, *self.model.notes]
        if self.steps.unseen:
            warnings.append(
                f"{self.steps.unseen} of {len(self.train)} examples took part in no step of this training: their "
                "scores are 0."
            )
        facts = {"steps": self.steps.steps, "checked_steps": self.steps.checked, "checkpoints": checkpoints}
        return {**facts, "warnings": warnings}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """No arrays; the identities of the checkpoints, so that loading refuses other checkpoints."""
        return checkpoint_state(self.steps.checkpoints)


class FittedSOURCE(LinearScores[SOURCE, Checkpointed]):
    """SOURCE by segments, ready to answer."""

    def __init__(
        self,
        recipe: SOURCE,
        models: tuple[Checkpointed, Checkpointed],  # the one whose gradients count, and the original one
        train: Examples,
        segments: Sequence[Segment],
        steps: Stepwise | None,
    ) -> None:
        super().__init__(recipe, models[0], train, Unit.RANK, models[1])
        self.segments, self.contradictions = segments, models[1].contradictions(steps)
        self.checked = 0 if steps is None else steps.checked
        is_whole = recipe.modules is None
        self.removals = RepeatedRemovals(models[1], train, steps) if steps is not None and is_whole else None

    def blocks(self, queries: Examples) -> Blocks:
        """The responses of all segments once, then their products with the gradients at every checkpoint."""
        responses, predicted = self._responses(queries), np.zeros((len(queries), REMOVALS_OF_FEW))
        for block in blocks(len(self.train), TRAIN_BLOCK):
            scores = self._scores(responses, np.arange(block.start, block.stop))
            if self.removals is not None:
                predicted += scores @ self.removals.left_out[:, block].T
            yield block, scores
        return self._facts(queries, predicted)

    def _scores(self, responses: Sequence[Rows], positions: NDArray[np.intp]) -> Array:
        """Scores of the training examples at these positions, (queries, positions)."""
        scores = np.zeros((len(responses[0]), len(positions)))
        for response, share, rows in self._checkpoint_gradients(responses, self.train.take(positions)):
            scores -= share * response.dot(rows)
        return scores / self.model.mean_over(self.train)

    def _facts(self, queries: Examples, predicted: Array) -> AnswerFacts:
        """How far scores predict the effects of removals (m, removals), or why they are not compared."""
        if self.removals is not None:
            return AnswerFacts(diagnostics=removal_facts(self.removals.effects(queries, predicted), COARSE_SEGMENTS))
        return AnswerFacts(diagnostics=not_compared(NO_STEPS if self.recipe.modules is None else SOME_MODULES))

    def score_directions(self, queries: Examples, tokens: Span | None = None) -> list[ScoreDirection]:
        """The responses of the segments, at each of their checkpoints with its share."""
        count = self.model.mean_over(self.train)
        responses = [rows.dense() for rows in self._responses(queries, tokens)]
        return [
            ScoreDirection(cast(Checkpointed, checkpoint.model()), response * (share / count))
            for segment, response in zip(self.segments, responses, strict=True)
            for checkpoint in segment.checkpoints
            if (share := checkpoint.learning_rate_sum / (segment.learning_rate_sum or 1.0)) > 0
        ]

    def self_values(self) -> Array:
        """The score of each training example on itself."""
        values = np.empty(len(self.train))
        for block in blocks(len(values), SELF_BLOCK):
            examples = self.train.take(np.arange(block.start, block.stop))
            values[block] = -sum(
                share * np.diagonal(response.dot(rows))
                for response, share, rows in self._checkpoint_gradients(self._responses(examples), examples)
            )
        return values / self.model.mean_over(self.train)

    def self_facts(self) -> AnswerFacts:
        """How far the scores of some training examples as queries predict the effects of removals on these."""
        queries, predicted = self.train.take(np.arange(min(SELF_QUERIES, len(self.train)))), np.empty((0, 0))
        if self.removals is not None:
            left_out = self.removals.left_out
            positions = np.flatnonzero(left_out.any(axis=0))
            predicted = self._scores(self._responses(queries), positions) @ left_out[:, positions].T
        return self._facts(queries, predicted)

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """The diagnostics of every segment, how many recorded steps were checked, and what was found."""
        segments = [dict(segment.diagnostics) for segment in self.segments]
        warnings = [text for facts in segments for text in facts.pop("warnings", ())]
        warnings = [*self.contradictions, *self.model.notes, *dict.fromkeys(warnings)]
        return {"segments": segments, "checked_steps": self.checked, "warnings": warnings}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """No arrays; the identities of the checkpoints, so that loading refuses other checkpoints."""
        return checkpoint_state(checkpoint for segment in self.segments for checkpoint in segment.checkpoints)

    def _responses(self, queries: Examples, tokens: Span | None = None) -> list[Rows]:
        """F_l(u_l) of every segment, in the order of the segments."""
        carried: Rows = measuring(self.model, tokens).measure_rows(queries)
        responses = []
        for segment in counted(reversed(self.segments), len(self.segments)):
            response, carried = segment.passed(carried)
            responses.append(response)
        return responses[::-1]

    def _checkpoint_gradients(self, responses: Sequence[Rows], train: Examples) -> Iterator[tuple[Rows, float, Rows]]:
        """(response of the segment, weight of the checkpoint in it, loss gradients there) of every checkpoint."""
        pairs = zip(self.segments, responses, strict=True)
        for segment, response in counted(pairs, len(self.segments)):
            for checkpoint in counted(segment.checkpoints, len(segment.checkpoints)):
                if checkpoint.learning_rate_sum > 0:
                    rows = cast(Checkpointed, checkpoint.model()).loss_rows(train)
                    yield response, checkpoint.learning_rate_sum / segment.learning_rate_sum, rows


def _narrowed(model: Any, modules: Modules) -> Any:
    """The model with the gradients of these modules only. Raises ValueError for some rows of an embedding."""
    require(model, [Layered], "SOURCE(modules=…)")
    parts = as_parts(model.layers[-1:] if modules == "last" else modules)
    if any(part.rows is not None for part in parts):
        raise ValueError(
            "expected whole modules for SOURCE, got rows of an embedding; use Influence(modules=…) or "
            "GradDot(modules=…)"
        )
    return model.narrowed(parts)


def _known_steps(model: Any, train: Examples) -> Stepwise | None:
    """The recorded steps; None too if they cannot be followed (dampening, ids of other examples)."""
    try:
        return cast("Stepwise | None", model.stepwise(train))
    except ValueError:
        return None
