"""The unit of metagradients: whether retrainings confirm them as effects, as a ranking, or not at all."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts
from upweight.core.scores import Unit
from upweight.retraining.retrained_removals import RetrainedRemovals, within_query_agreement

Array = NDArray[np.float64]
EFFECT_SLOPES = (0.7, 1.4)  # slopes of actual on predicted effects with which scores count as effects
NO_ANSWER = 0.2  # agreement with retraining below which there is no answer


class Settings(Protocol):
    """The settings of `Metagradient` that decide the unit of its answers."""

    @property
    def floor(self) -> float:
        """Agreement with retraining below which scores are a ranking."""

    @property
    def clip(self) -> float | None:
        """The largest growth of a cotangent in one step; None for exact derivatives."""

    @property
    def jitter(self) -> float:
        """The spread of the factors on the example weights."""


def answer_facts(
    recipe: Settings,
    gate: RetrainedRemovals | None,
    effects: tuple[Array, Array] | None,
    facts: dict[str, Any],
) -> AnswerFacts:
    """Unit and diagnostics of an answer, by how well it predicts the removals that were retrained.

    Args:
        recipe: its settings.
        gate: the retrained removals; None if no removals were retrained, so that the unit of the fit is used.
        effects: (actual, predicted) effects of these removals on the queries, both (m, removals).
        facts: diagnostics so far.
    """
    if gate is None or effects is None:
        return AnswerFacts(diagnostics=facts)
    agreement, slope = within_query_agreement(*effects)
    facts = {**facts, "agreement": agreement, "slope": slope, "trainings": gate.trainings}
    has_size = recipe.clip is None or EFFECT_SLOPES[0] <= slope <= EFFECT_SLOPES[1]
    unit = Unit.EFFECT if agreement >= recipe.floor and has_size else Unit.RANK
    if agreement < recipe.floor:
        facts["warnings"] = [
            f"The scores agree with {len(gate)} retrainings at only {agreement:.2f} (expected: {recipe.floor:g}). This "
            f"training does not respond smoothly to its example weights, so the scores are a ranking. {advice(recipe)}"
        ]
    elif unit == Unit.RANK:
        facts["warnings"] = [
            f"The adjoint was clipped in {facts['clipped']:.0%} of the steps and queries: effects are {slope:.2g} "
            "times the scores, which are a ranking; leave clip out for sizes."
        ]
    return AnswerFacts(unit, facts)


def require_agreement(recipe: Settings, gate: RetrainedRemovals | None, facts: AnswerFacts) -> None:
    """Raise ValueError if the scores do not predict the removals that were retrained."""
    agreement = facts.diagnostics.get("agreement", 1.0)
    if gate is not None and agreement < NO_ANSWER:
        raise ValueError(
            f"metagradients do not predict this training: {len(gate)} retrainings agree with them at {agreement:.2f} "
            f"(metasmoothness {gate.metasmoothness:.2f}). {advice(recipe)}"
        )


def advice(recipe: Settings) -> str:
    """Advice for a training that does not respond smoothly, with the gains that were measured."""
    smoothing = []
    if recipe.clip is None:
        smoothing.append("clip=0.99 (LDS on two rough runs .22 to .34 and .72 to .81)")
    if not recipe.jitter:
        smoothing.append("jitter=0.1 with samples=4 (LDS .22 to .26, with clip=0.99 to .41)")
    passed = f"Pass {' and '.join(smoothing)}; train" if smoothing else "Train"
    return (
        f"{passed} with a smaller lr, larger batches, warm-up or smooth activations; or use Influence or "
        "SOURCE(segments=3), which do not differentiate through every step, and compare them with retraining "
        "(uw.verify)."
    )
