"""Why influence and retraining differ: the gap between them in five parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from upweight.core.capability_checks import require
from upweight.core.examples import Examples, Id
from upweight.core.library_calls import with_gradients
from upweight.core.plottable import Plottable
from upweight.core.responsive import Responsive
from upweight.core.scores import Scores
from upweight.evaluate.agreement import correlation, formatted
from upweight.evaluate.pbrf import Responses
from upweight.evaluate.removals import Removal, predicted_effects
from upweight.evaluate.retrain_truth import retrain_truth
from upweight.evaluate.truth import Truth
from upweight.retraining.retraining import Retraining

Array = NDArray[np.float64]

STAGES = ("retraining", "warm start", "proximity", "non-convergence", "linearisation", "solver")
PARTS = STAGES[1:]
SAME_MODEL = 1e-3  # relative difference of measurements on different processors
STEPS = 1000  # of L-BFGS, at most
OTHER_SCALE = 10.0  # times the linearised effects, from which scores do not look like effects
HEAD = ("stage", "changes effects by", "Pearson with retraining", "what changes")
MEANINGS = {
    "warm start": "retraining starts from new parameters; here it starts from the trained ones",
    "proximity": "the parameters are held near the trained ones by the damping",
    "non-convergence": "training had not reached the optimum, and would continue; here only the removal moves the net",
    "linearisation": "the net and the measurement are replaced by their derivatives at the trained parameters",
    "solver": "the curvature is approximated, and solved for approximately",
}


@dataclass(frozen=True, eq=False)
class InfluenceGap(Plottable):
    """The effects of removals by retraining, by these scores, and by the four steps between them.

    Attributes:
        effects: stage → effects (queries, removals), from "retraining" to "solver", which is what the scores predict.
        removals: one per column.
        query_ids: (m,).
        damping: λ of the middle stages.
        warnings: sentences about stages that could not be followed to their end.
    """

    _display: ClassVar[tuple[str, str]] = ("InfluenceGapDisplay", "from_gap")

    effects: Mapping[str, Array]
    removals: tuple[Removal, ...]
    query_ids: NDArray[Any]
    damping: float
    warnings: tuple[str, ...] = field(default=())

    @cached_property
    def distances(self) -> dict[str, float]:
        """Part → mean |effect of this stage − effect of the stage before|, in the measurement's unit."""
        return {
            part: float(np.abs(self.effects[part] - self.effects[before]).mean())
            for before, part in zip(STAGES, PARTS, strict=False)
        }

    @cached_property
    def correlations(self) -> dict[str, float]:
        """Stage → Pearson correlation of its effects with those of retraining, over queries and removals."""
        actual = self.effects["retraining"].ravel()
        return {stage: correlation(effect.ravel(), actual) for stage, effect in self.effects.items()}

    @property
    def largest(self) -> str:
        """The part with the largest distance."""
        return max(self.distances, key=self.distances.__getitem__)

    @property
    def sentence(self) -> str:
        """A sentence about the cause of most of the gap."""
        share = self.distances[self.largest] / max(sum(self.distances.values()), 1e-300)
        return f"{share:.0%} of the gap is due to {self.largest}: {MEANINGS[self.largest]}"

    def cells(self) -> list[list[str]]:
        """The rows of the table under `HEAD`, as text."""
        return [
            [part, f"{self.distances[part]:.3g}", formatted(self.correlations[part], 2), MEANINGS[part]]
            for part in PARTS
        ]

    def to_pandas(self) -> Any:
        """One row per stage: its distance from the stage before, and its correlation with retraining."""
        import pandas as pd

        return pd.DataFrame(
            {
                "distance": [np.nan, *self.distances.values()],
                "pearson": [self.correlations[stage] for stage in STAGES],
                "mean_effect": [float(np.abs(self.effects[stage]).mean()) for stage in STAGES],
            },
            index=pd.Index(STAGES, name="stage"),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "distances": self.distances,
            "pearson": self.correlations,
            "largest": self.largest,
            "sentence": self.sentence,
            "damping": self.damping,
            "removals": len(self.removals),
            "queries": self.query_ids.tolist(),
            "warnings": list(self.warnings),
        }

    def __repr__(self) -> str:
        return f"InfluenceGap({len(self.removals)} removals × {len(self.query_ids)} queries; {self.sentence})"


@with_gradients()
def influence_gap(
    model: Any,
    train: Examples,
    queries: Examples,
    scores: Scores,
    removals: Sequence[Removal] | Mapping[str, Sequence[Id]],
    *,
    damping: float = 1e-3,
    retraining: Retraining | None = None,
) -> InfluenceGap:
    """Split the difference between these scores and real retraining into five parts.

    From retraining to the scores one thing changes at a time (Bae et al. 2022, §4 and fig. 2):

        retraining        from new initial parameters, as the model was trained
        warm start        the training objective is minimised from the trained parameters θ₀
        proximity         λ/2 ‖θ − θ₀‖² is added
        non-convergence   the losses are replaced by their Bregman divergences from θ₀ (`uw.pbrf`)
        linearisation     to first order at θ₀: −∇mᵀ (G + λ + l2)⁻¹ Σ ∇ℓᵢ, with the exact Gauss–Newton matrix
        solver            the scores that were passed

    In the second and third stage the whole training set has a minimum of its own, from which each removal starts.

    Args:
        model: a `TorchModel` that can be retrained, and whose loss is a function of the net's output.
        train, queries: as for `verify`.
        scores: of these queries.
        removals: the examples to leave out, from `subsets` or `singles`, or groups of your own as name → ids.
        damping: λ on the scale of the mean loss.
        retraining: where and how to retrain, and with which seeds.

    Cost: one retraining and three minimisations by L-BFGS per removal, and one solve with the Gauss–Newton matrix.

    Raises:
        TypeError: a model that cannot be retrained, or whose loss is not a function of one output tensor.
        ValueError: scores of other queries or of another model, no removals, or a damping that is not positive.
    """
    from upweight.core.curvature_recipes import GaussNewton
    from upweight.methods.influence import Influence

    require(model, [Responsive], "influence_gap", train, queries)
    retraining = Retraining() if retraining is None else retraining
    scores.require_queries(queries)
    scores.require_train(train)
    notes = _notes_on_model(model, queries, scores)
    responses = Responses(model, train, queries, STEPS)
    stages = {
        "warm start": responses.terms(bregman=False, proximity=0.0),
        "proximity": responses.terms(bregman=False, proximity=damping),
        "non-convergence": responses.terms(bregman=True, proximity=damping),
    }
    truth = retrain_truth(model, train, queries, removals, retraining=retraining)
    truths = {"retraining": truth}
    for stage, terms in stages.items():
        truths[stage] = responses.truth(truth.removals, terms)
    names = [{removal.name for removal in each.removals} for each in truths.values()]
    done = [removal for removal in truth.removals if all(removal.name in each for each in names)]
    effects = {stage: _effects(each, done) for stage, each in truths.items()}
    linear = Influence(curvature=GaussNewton(), damping=damping, correction=None).fit(model, train).attribute(queries)
    effects |= {"linearisation": predicted_effects(linear, done), "solver": predicted_effects(scores, done)}
    named = [f"{stage}: {warning}" for stage, each in truths.items() for warning in each.warnings]
    notes += _notes_on_scale(effects["linearisation"], effects["solver"])
    warnings = tuple(dict.fromkeys([*notes, *model.notes, *named]))
    return InfluenceGap(effects, tuple(done), truth.query_ids, damping, warnings)


def _notes_on_scale(linear: Array, predicted: Array) -> list[str]:
    """What to say of scores on a scale of their own, by least squares without a constant."""
    scale = float((linear * predicted).sum() / max(float((linear**2).sum()), np.finfo(float).tiny))
    if 1 / OTHER_SCALE <= scale <= OTHER_SCALE or not linear.any():
        return []
    return [
        f"solver: these scores are {scale:.2g} times the linearised effects; those of methods without a curvature "
        "(GradDot, TracIn) have a scale of their own, which counts as the solver's part here"
    ]


def _notes_on_model(model: Any, queries: Examples, scores: Scores) -> list[str]:
    """What to say of the model of these scores. Raises ValueError if it measures other values than this one."""
    if scores.measured is None:
        return ["solver: these scores do not say what their model measures; they may be those of another model"]
    measured = model.measure(queries)
    if np.abs(measured - scores.measured).max() > SAME_MODEL * np.abs(measured).max():
        raise ValueError(
            f"expected scores of this model, for which the measurement of {queries.ids[0]} is {measured[0]:.4g}, got "
            f"scores of a model or a measurement for which it is {scores.measured[0]:.4g}; fit the method on this "
            "model, and call attribute(queries)"
        )
    return []


def _effects(truth: Truth, done: Sequence[Removal]) -> Array:
    column_of = {removal.name: column for column, removal in enumerate(truth.removals)}
    return truth.actual[:, [column_of[removal.name] for removal in done]]
