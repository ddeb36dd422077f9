"""Label errors: which labels or targets to review first under a budget, what they may be, and the harm they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.changes import with_labels
from upweight.applications.cross_fitting import HeldOut
from upweight.applications.label_evidence import evidence_of_method, label_evidence, suspicion_of
from upweight.applications.suspects import Suspects
from upweight.applications.target_errors import TargetErrors, target_errors
from upweight.core.attributor import Attributor
from upweight.core.capability_checks import can, require
from upweight.core.deprecation import accept_old_keywords
from upweight.core.examples import Examples
from upweight.core.model import Differentiable, Measurable, Predictions, Retrainable
from upweight.core.progress import no_progress
from upweight.core.weights import weighted_positions
from upweight.retraining import deprecated_keywords
from upweight.retraining.retraining import ONE_BY_ONE, Retraining

Array = NDArray[np.float64]
EVALUATION_BATCH = 256  # evaluation examples whose scores are held in memory at a time


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
    ranking: Attributor | None = None,
) -> Suspects:
    """Rank the training labels, or regression targets, by how likely they are wrong.

    For classes, the score is the mean rank of three losses: under the model itself, leave-one-out (loss +
    self-influence, from one factorisation), and out-of-fold. The out-of-fold loss takes two rounds of `folds`
    trainings; the second leaves out the examples that look wrong after the first, so that wrong labels do not support
    each other. The second round is used only if it predicts held-out labels better. Otherwise the score is the
    leave-one-out loss alone.

    For regression, the score is the mean rank of two residuals in units of the noise: leave-one-out (that of the model
    itself, unless it has gradients and a squared loss), and out-of-fold. The second round leaves out targets beyond
    three standard deviations of the noise, which is estimated by medians, for similar predictions if it varies.

    Args:
        model: a model that measures −loss (the default measurement), `Differentiable` or `Retrainable`.
        train: the training set of the model.
        budget: how many labels can be reviewed: a whole number, or a share below 1 of the training examples with weight
            above 0.
        evaluation: labelled examples for which the harm is reported.
        folds: the number of folds for out-of-fold predictions; None for five, or fewer if there are fewer examples. The
            only example of a class is in no fold; its leave-one-out loss counts instead, and a note names it.
        retraining: where and how to retrain, with one seed, which also draws the folds. None retrains one by one in
            this process: a few trainings of a small model take less time than starting other processes. Its progress is
            called with the stages "fit", "retrain" and "attribute" (the evaluation set).
        ranking: a method whose suspicion alone ranks the labels, without trainings: its self-influence, or |α| of
            `RepresenterPoints`. None for the ranking above, which regression always has.

    Raises:
        ValueError: an invalid budget or number of folds; labels of one class only; several targets per example; a
            measurement other than −loss; an evaluation set without labels.
        TypeError: a model that can neither be differentiated nor retrained.
    """
    require(model, [Measurable], "mislabeled", train)
    retraining = ONE_BY_ONE if retraining is None else retraining
    report, weighted = retraining.progress or no_progress, weighted_positions(train)
    count, classes = _count(budget, len(weighted)), _classes(model, train, evaluation)
    report("fit", 0, 1)
    if ranking is None:
        evidence = label_evidence(model, train, folds, retraining, is_regression=classes is None)
    else:
        evidence = evidence_of_method(model, train, ranking, classes, evaluation)
    errors: TargetErrors | None = None
    if classes is None:
        leave_one_out = evidence.leave_one_out if evidence.calibrated else None
        errors = target_errors(train, model.predict(train), evidence.loss, leave_one_out, evidence.held_out)
        score, notes = errors.suspicion, [*evidence.notes, *errors.notes]
    else:
        score, notes = suspicion_of(evidence, weighted), evidence.notes
    chosen = weighted[np.argsort(-score[weighted], kind="stable")[:count]]
    if errors is None:
        suggested, chances = _suggestions(model, train, chosen, classes or [], evidence.held_out)
    else:
        suggested, chances = tuple(errors.predicted[chosen].tolist()), np.full((count, 2), np.nan)
    harm = None
    if evaluation is not None and evidence.fitted is not None:
        total = _total_scores(evidence.fitted, evaluation, lambda done, total: report("attribute", done, total))
        harm = -total[chosen] / len(evaluation)
    elif evaluation is not None:
        notes.append("The harm to the evaluation set is not reported: it needs a model with gradients.")
    return Suspects(
        ids=train.ids[chosen],
        score=score,
        loss=evidence.loss,
        self_influence=evidence.self_influence,
        held_out=evidence.held_out,
        suggested=suggested,
        chances=chances,
        harm=harm,
        train=train,
        evaluation=evaluation,
        measurement=model.measurement,
        notes=tuple(notes),
        residual=None if errors is None else errors.residual,
        noise=None if errors is None else errors.noise,
    )


def _count(budget: float, n: int) -> int:
    if isinstance(budget, bool) or not np.isfinite(budget) or budget <= 0:
        raise ValueError(f"expected a budget above 0 (a number of labels, or a share below 1), got {budget!r}")
    if budget >= 1 and budget != int(budget):
        raise ValueError(f"expected a whole number of labels or a share below 1 as budget, got {budget!r}")
    return min(n, max(1, round(budget * n)) if budget < 1 else int(budget))


def _classes(model: Any, train: Examples, evaluation: Examples | None) -> list[Any] | None:
    """The classes of the training labels; None for regression. Raises an error if the labels cannot be reviewed."""
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
    if train.y.ndim != 1:
        raise ValueError(
            f"expected one label or target per example, got labels of shape {train.y.shape}; review one at a time"
        )
    classes: list[Any] = np.unique(train.y[weighted_positions(train)]).tolist()
    is_regression = not model.predict(train.take([0])).classes
    if len(classes) < 2:
        noun = "different targets" if is_regression else "classes among the labels"
        raise ValueError(f"expected at least two {noun}, got only {classes[0]!r}, so no label can be wrong")
    return None if is_regression else classes


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
        by_model = by_class(model.predict(examples.take(np.flatnonzero(in_no_fold))), names)
        table[in_no_fold] = np.nan if by_model is None else by_model
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
