"""Label errors: which labels to review first under a budget, a suggested label for each, and the harm they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from upweight.applications.changes import with_labels
from upweight.applications.cross_fitting import HeldOut, can_be_held_out, held_out
from upweight.core.attributor import Fitted
from upweight.core.capability_checks import can, require
from upweight.core.deprecation import accept_old_keywords
from upweight.core.examples import Examples
from upweight.core.model import Differentiable, Measurable, Predictions, Retrainable
from upweight.core.progress import no_progress
from upweight.core.scores import Unit
from upweight.core.weights import weighted_positions
from upweight.methods.influence import Influence
from upweight.retraining import deprecated_keywords
from upweight.retraining.retraining import ONE_BY_ONE, Retraining

Array = NDArray[np.float64]
EVALUATION_BATCH = 256  # evaluation examples whose scores are held in memory at a time


@dataclass(frozen=True, eq=False)
class Suspects:
    """Training examples in the order in which their labels should be reviewed.

    Attributes:
        ids: (budget,), the examples to review, most suspicious first.
        score: (n,), the score of suspicion of all training examples, in training order. It is a mean rank in (0, 1], or
            a loss in nats if only one loss is available. An example of weight 0 is never chosen, and has the lowest
            score.
        loss: (n,), the loss under the model, which was trained with the label.
        self_influence: (n,), how much the label lowers its own loss; loss + self-influence is the loss under a model
            trained without the example. NaN if the model has no gradients.
        held_out: predictions by models that were not trained with the label; None if the model cannot be retrained.
        suggested: (budget,), the most likely other label.
        chances: (budget, 2), the probabilities of the given and of the suggested label, by a model that was not trained
            with the label; without `held_out`, and for the only example of a class, by the model itself. NaN if the
            model has no probabilities.
        harm: (budget,), the increase of the mean measurement on the evaluation set if the example were removed; None
            without an evaluation set.
        notes: sentences about what could not be computed.
    """

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
                }
            )
        return {"train": len(self.train), "measurement": self.measurement, "suspects": rows, "notes": list(self.notes)}

    def __repr__(self) -> str:
        return f"Suspects({len(self.ids)} of {len(self.train)} training labels to review)"


@accept_old_keywords(
    {
        **deprecated_keywords.one_seed(),
        **deprecated_keywords.stages(fit="influence", retrain="folds", attribute="harm"),
    },
    deprecated_keywords.retraining_builder(ONE_BY_ONE),
)
def mislabeled(
    model: Measurable,
    train: Examples,
    *,
    budget: float = 0.1,
    evaluation: Examples | None = None,
    folds: int | None = None,
    retraining: Retraining | None = None,
) -> Suspects:
    """Rank the training labels by how likely they are wrong.

    The score is the mean rank of three losses of each example: under the model itself, leave-one-out (loss +
    self-influence, from one factorisation), and out-of-fold. The out-of-fold loss takes two rounds of `folds`
    trainings; the second leaves out the examples that look wrong after the first, so that wrong labels do not support
    each other. The second round is used only if it predicts held-out labels better. Otherwise the score is the
    leave-one-out loss alone.

    Args:
        model: a classifier that measures −loss (the default measurement), `Differentiable` or `Retrainable`.
        train: the training set of the model.
        budget: how many labels can be reviewed: a whole number, or a share below 1 of the training examples with weight
            above 0.
        evaluation: labelled examples for which the harm is reported.
        folds: the number of folds for out-of-fold predictions; None for five, or fewer if there are fewer examples. The
            only example of a class is in no fold; its leave-one-out loss counts instead, and a note names it.
        retraining: where and how to retrain, with one seed, which also draws the folds. None retrains one by one in
            this process: a few trainings of a small model take less time than starting other processes. Its progress is
            called with the stages "fit", "retrain" and "attribute" (the evaluation set).

    Raises:
        ValueError: an invalid budget or number of folds; labels that are regression targets or of one class only; a
            measurement other than −loss; an evaluation set without labels.
        TypeError: a model that can neither be differentiated nor retrained.
    """
    require(model, [Measurable], "mislabeled", train)
    retraining = ONE_BY_ONE if retraining is None else retraining
    report, weighted = retraining.progress or no_progress, weighted_positions(train)
    count, classes = _count(budget, len(weighted)), _classes(model, train, evaluation)
    report("fit", 0, 1)
    loss, self_influence, fitted, out_of_fold, notes = _evidence(model, train, folds, retraining)
    score = _suspicion(loss, None if fitted is None else loss + self_influence, out_of_fold, weighted)
    chosen = weighted[np.argsort(-score[weighted], kind="stable")[:count]]
    suggested, chances = _suggestions(model, train, chosen, classes, out_of_fold)
    harm = None
    if evaluation is not None and fitted is not None:
        total = _total_scores(fitted, evaluation, lambda done, total: report("attribute", done, total))
        harm = -total[chosen] / len(evaluation)
    elif evaluation is not None:
        notes.append("The harm to the evaluation set is not reported: it needs a model with gradients.")
    return Suspects(
        train.ids[chosen],
        score,
        loss,
        self_influence,
        out_of_fold,
        suggested,
        chances,
        harm,
        train,
        evaluation,
        model.measurement,
        tuple(notes),
    )


def _evidence(
    model: Any, train: Examples, folds: int | None, retraining: Retraining
) -> tuple[Array, Array, Fitted[Any, Any] | None, HeldOut | None, list[str]]:
    """Loss, self-influence, the fitted influence, out-of-fold predictions, and notes on what could not be computed."""
    loss, notes = -model.measure(train), list(model.notes)
    fitted = Influence().fit(model, train) if isinstance(model, Differentiable) else None
    self_influence = np.full(len(train), np.nan) if fitted is None else fitted.self_influence().values[0]
    (retraining.progress or no_progress)("fit", 1, 1)
    if fitted is not None and fitted.unit is Unit.RANK:
        notes.append(
            "For this model, leave-one-out losses and harm are not calibrated: only their order means something."
        )
    out_of_fold = None
    if fitted is None:
        notes.append(f"This {type(model).__name__} has no gradients: labels are ranked by out-of-fold loss alone.")
    has_folds = can_be_held_out(train)
    if not has_folds and fitted is not None:
        notes.append(
            "No class has two examples, so none can be left out: labels are ranked by leave-one-out loss alone."
        )
    elif can(model, Retrainable):
        leave_one_out = None if fitted is None else loss + self_influence
        out_of_fold = held_out(model, train, leave_one_out, folds, retraining)
        notes += out_of_fold.notes
    else:
        notes.append(f"This {type(model).__name__} cannot be retrained: labels are ranked by leave-one-out loss alone.")
    return loss, self_influence, fitted, out_of_fold, notes


def _suspicion(
    loss: Array, leave_one_out: Array | None, out_of_fold: HeldOut | None, weighted: NDArray[np.intp]
) -> Array:
    """The score of suspicion, (n,): the mean relative rank of the three losses, or the one loss that is available.

    Losses are compared by rank, so that none dominates by its size: out-of-fold losses have a longer tail than the
    others. Examples of weight 0, which are not among `weighted`, have the lowest score.
    """
    if leave_one_out is None:
        assert out_of_fold is not None
        evidence = out_of_fold.counted[weighted]
    elif out_of_fold is None or not out_of_fold.helps:
        evidence = leave_one_out[weighted]
    else:
        ranks = (rankdata(losses[weighted]) for losses in (loss, leave_one_out, out_of_fold.counted))
        evidence = np.asarray(sum(ranks) / (3 * len(weighted)))
    score = np.full(len(loss), evidence.min())
    score[weighted] = evidence
    return score


def _count(budget: float, n: int) -> int:
    if isinstance(budget, bool) or not np.isfinite(budget) or budget <= 0:
        raise ValueError(f"expected a budget above 0 (a number of labels, or a share below 1), got {budget!r}")
    if budget >= 1 and budget != int(budget):
        raise ValueError(f"expected a whole number of labels or a share below 1 as budget, got {budget!r}")
    return min(n, max(1, round(budget * n)) if budget < 1 else int(budget))


def _classes(model: Any, train: Examples, evaluation: Examples | None) -> list[Any]:
    """The classes of the training labels. Raises an error if the model or the data cannot be reviewed."""
    if not can(model, Retrainable):
        require(model, [Differentiable], "mislabeled")
    if evaluation is not None and evaluation.y is None:
        raise ValueError("expected an evaluation set with labels; pass Examples(x, y), or leave it out")
    if train.y is None:
        raise ValueError("the training set has no labels to check; pass Examples(x, y)")
    if not str(model.measurement).startswith(("−loss", "-loss")):
        raise ValueError(
            f"expected a model that measures −loss, got {model.measurement!r}; make the model without measure="
        )
    if not model.predict(train.take([0])).classes or train.y.ndim != 1:
        raise ValueError(
            "expected labels that are classes; for regression targets use "
            "uw.Influence().fit(model, train).self_influence()"
        )
    classes: list[Any] = np.unique(train.y[weighted_positions(train)]).tolist()
    if len(classes) < 2:
        raise ValueError(
            f"expected at least two classes among the labels, got only {classes[0]!r}, so no label can be wrong"
        )
    return classes


def _suggestions(
    model: Any, train: Examples, chosen: NDArray[np.intp], classes: list[Any], out_of_fold: HeldOut | None
) -> tuple[tuple[Any, ...], Array]:
    """The most likely other label of each, and the probabilities of both labels: see `Suspects.chances`."""
    examples = train.take(chosen)
    assert examples.y is not None
    given = np.searchsorted(np.array(classes), examples.y)
    names = [train.labels.get(c, c) for c in classes]
    table = by_class(model.predict(examples), names) if out_of_fold is None else out_of_fold.chances(chosen, names)
    if table is not None and np.isnan(table).any():  # the only example of a class was in no fold
        in_no_fold = np.isnan(table).any(axis=1)
        own = by_class(model.predict(examples.take(np.flatnonzero(in_no_fold))), names)
        table[in_no_fold] = np.nan if own is None else own
    belief = table if table is not None else _measurement_by_class(model, examples, classes)
    others = belief.copy()
    others[np.arange(len(chosen)), given] = -np.inf
    best = others.argmax(axis=1)
    chances = np.full((len(chosen), 2), np.nan)
    if table is not None:
        rows = np.arange(len(chosen))
        chances = np.stack([table[rows, given], table[rows, best]], axis=1)
    return tuple(classes[c] for c in best.tolist()), chances


def by_class(predictions: Predictions, names: list[Any]) -> Array | None:
    """Probabilities in the order of these class names; None if there are none."""
    if predictions.probabilities is None:
        return None
    return np.asarray(predictions.probabilities[:, [predictions.classes.index(name) for name in names]])


def _measurement_by_class(model: Any, examples: Examples, classes: list[Any]) -> Array:
    """The measurement under each label, for models without probabilities: (n, classes)."""
    assert examples.y is not None
    constant_labels = [np.full(len(examples), c, dtype=examples.y.dtype) for c in classes]
    return np.stack([model.measure(with_labels(examples, y)) for y in constant_labels], axis=1)


def _total_scores(fitted: Any, evaluation: Examples, report: Callable[[int, int], None]) -> Array:
    """The sum of scores over the evaluation set, (n,)."""
    total, done = np.zeros(len(fitted.train)), 0
    for part in evaluation.batches(EVALUATION_BATCH):
        total += fitted.attribute(part).values.sum(axis=0)
        done += len(part)
        report(done, len(evaluation))
    return total


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
