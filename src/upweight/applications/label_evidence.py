"""Evidence for a wrong label: its loss, its self-influence, its loss out of fold, or the suspicion of one method."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from upweight.applications.cross_fitting import HeldOut, can_be_held_out, held_out
from upweight.applications.target_errors import held_out_targets
from upweight.core.attributor import Attributor, Fitted
from upweight.core.capability_checks import can
from upweight.core.examples import Examples
from upweight.core.model import Differentiable, Retrainable
from upweight.core.progress import no_progress
from upweight.core.scores import Unit
from upweight.methods.influence import Influence
from upweight.retraining.retraining import Retraining

Array = NDArray[np.float64]
MAX_POLISHED = 2_000  # labels; beyond it no Newton steps, which hardly change the order and take most of the time


@dataclass(frozen=True, eq=False)
class LabelEvidence:
    """The evidence about every training example's label; see `Suspects`.

    Attributes:
        fitted: the fitted influence; None if the model has no gradients.
        notes: what could not be computed.
        suspicion: of the method that ranks alone; None for the ranking by losses.
    """

    loss: Array
    self_influence: Array
    fitted: Fitted[Any, Any] | None
    held_out: HeldOut | None = None
    notes: list[str] = field(default_factory=list)
    suspicion: Array | None = None

    @property
    def leave_one_out(self) -> Array | None:
        """The loss of each example under a model trained without it, (n,); None without gradients."""
        return None if self.fitted is None else self.loss + self.self_influence

    @property
    def calibrated(self) -> bool:
        """Whether the sizes of leave-one-out losses mean something."""
        return self.fitted is not None and self.fitted.unit is not Unit.RANK


def label_evidence(
    model: Any, train: Examples, folds: int | None, retraining: Retraining, is_regression: bool
) -> LabelEvidence:
    """Loss, self-influence and out-of-fold predictions."""
    loss, notes = -model.measure(train), list(model.notes)
    recipe = Influence() if is_regression or len(train) <= MAX_POLISHED else Influence(polish=0)
    fitted = recipe.fit(model, train) if isinstance(model, Differentiable) else None
    self_influence = np.full(len(train), np.nan) if fitted is None else fitted.self_influence().values[0]
    (retraining.progress or no_progress)("fit", 1, 1)
    evidence = LabelEvidence(loss, self_influence, fitted, None, notes)
    if fitted is not None and not evidence.calibrated:
        notes.append(
            "For this model, leave-one-out losses and harm are not calibrated: only their order means something."
        )
    loss_word, label_word = ("residual", "targets") if is_regression else ("loss", "labels")
    if fitted is None:
        consequence = "its own residuals are used in place of those of leave-one-out"
        consequence = consequence if is_regression else "labels are ranked by out-of-fold loss alone"
        notes.append(f"This {type(model).__name__} has no gradients: {consequence}.")
    if not is_regression and not can_be_held_out(train) and fitted is not None:
        notes.append(
            "No class has two examples, so none can be left out: labels are ranked by leave-one-out loss alone."
        )
    elif not can(model, Retrainable):
        notes.append(
            f"This {type(model).__name__} cannot be retrained: {label_word} are ranked by leave-one-out {loss_word} "
            "alone."
        )
    elif is_regression:
        evidence = replace(evidence, held_out=held_out_targets(model, train, folds, retraining))
    else:
        evidence = replace(evidence, held_out=held_out(model, train, evidence.leave_one_out, folds, retraining))
    notes += [] if evidence.held_out is None else evidence.held_out.notes
    return evidence


def evidence_of_method(
    model: Any, train: Examples, ranking: Attributor, classes: list[Any] | None, evaluation: Examples | None
) -> LabelEvidence:
    """The suspicion of one method. Raises ValueError for regression."""
    if classes is None:
        name = type(ranking).__name__
        raise ValueError(f"expected labels of classes to rank by {name}, got a regression; leave ranking= out")
    fitted = Influence().fit(model, train) if evaluation is not None and isinstance(model, Differentiable) else None
    note = f"Labels are ranked by {type(ranking).__name__} alone; probabilities are those of the model itself."
    loss, suspicion = -model.measure(train), ranking.fit(model, train).suspicion()
    return LabelEvidence(loss, np.full(len(train), np.nan), fitted, None, [*model.notes, note], suspicion)


def suspicion_of(evidence: LabelEvidence, weighted: NDArray[np.intp]) -> Array:
    """The score of suspicion, (n,): the mean relative rank of the three losses, or the one loss that is available.

    Losses are compared by rank, so that none dominates by its size: out-of-fold losses have a longer tail than the
    others. Examples of weight 0, which are not among `weighted`, have the lowest score.
    """
    leave_one_out, out_of_fold = evidence.leave_one_out, evidence.held_out
    if evidence.suspicion is not None:
        suspicion = evidence.suspicion[weighted]
    elif leave_one_out is None:
        assert out_of_fold is not None
        suspicion = out_of_fold.counted[weighted]
    elif out_of_fold is None or not out_of_fold.helps:
        suspicion = leave_one_out[weighted]
    else:
        ranks = (rankdata(losses[weighted]) for losses in (evidence.loss, leave_one_out, out_of_fold.counted))
        suspicion = np.asarray(sum(ranks) / (3 * len(weighted)))
    score = np.full(len(evidence.loss), suspicion.min())
    score[weighted] = suspicion
    return score
