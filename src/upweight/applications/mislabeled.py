"""mislabeled: which labels to check first under a budget, what they should perhaps be, and what harm they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from upweight.applications.changes import with_labels
from upweight.applications.cross_fitting import HeldOut, held_out
from upweight.core.attributor import Fitted
from upweight.core.deprecation import accept_old_keywords
from upweight.core.examples import Examples
from upweight.core.model import Differentiable, Measurable, Predictions, Retrainable, can, require
from upweight.core.progress import no_progress
from upweight.core.scores import Unit
from upweight.core.weights import weighted_positions
from upweight.methods.influence import Influence
from upweight.retraining import deprecated_keywords
from upweight.retraining.retraining import ONE_BY_ONE, Retraining

Array = NDArray[np.float64]
TOGETHER = 256  # evaluation examples whose scores are held at a time


@dataclass(frozen=True, eq=False)
class Suspects:
    """Training examples in the order in which their labels should be checked.

    Attributes:
        ids: (budget,) what to check, most suspicious first.
        score: (n,) what all training examples are ranked by, in training order; a mean rank in (0, 1], or nats where
            one loss is all there is. An example of weight 0 took no part: it is never chosen, and has the lowest score.
        loss: (n,) under the model that saw the label.
        self_influence: (n,) how much of that fit the label bought for itself; loss + self-influence is the loss of a
            model trained without the example. NaN where the model has no gradients.
        held_out: what models said that did not see the label; None where the model cannot be trained again.
        suggested: (budget,) the likeliest other label.
        chances: (budget, 2) probability of the given and of the suggested label by a model that did not see it, or
            without `held_out` by the model itself; NaN where the model has none.
        harm: (budget,) what the mean measurement of the evaluation set would gain without each; None without one.
        notes: what was not done, as sentences.
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
        """Plain values for JSON, one entry per example to check."""
        places = self.train.positions(self.ids)
        rows = []
        for rank, (identifier, place) in enumerate(zip(self.ids.tolist(), places.tolist(), strict=True)):
            given, other = self.chances[rank].tolist()
            rows.append(
                {
                    "id": identifier,
                    "label": self.train.label(identifier),
                    "suggested": self.train.labels.get(self.suggested[rank], self.suggested[rank]),
                    "score": float(self.score[place]),
                    "loss": float(self.loss[place]),
                    "self_influence": _number(self.self_influence[place]),
                    "probability": _number(given),
                    "probability_of_suggested": _number(other),
                    "harm": None if self.harm is None else float(self.harm[rank]),
                }
            )
        return {"train": len(self.train), "measurement": self.measurement, "suspects": rows, "notes": list(self.notes)}

    def __repr__(self) -> str:
        return f"Suspects({len(self.ids)} of {len(self.train)} training labels to check)"


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
    folds: int = 5,
    retraining: Retraining | None = None,
) -> Suspects:
    """Rank the training labels by how likely they are wrong.

    The score is the mean rank of three losses of each example: under the model itself, leave-one-out (loss +
    self-influence, from one factorisation), and out-of-fold (`folds` trainings, then `folds` more without the examples
    that look wrong after the first, so that wrong labels do not vouch for each other). The second round counts only
    where it makes held-out labels easier to predict; where a model is too weak to say what is wrong, the score is the
    leave-one-out loss alone.

    Args:
        model: a classifier that measures −loss (the default measurement), `Differentiable` or `Retrainable`.
        train: what it was trained on.
        budget: how many labels can be checked: a whole number, or a share of the training set below 1 (of its examples
            of weight above 0).
        evaluation: labelled examples, of which the harm is told.
        folds: parts for out-of-fold predictions.
        retraining: where and how, with one seed, which draws the parts, too; None for one by one in this process (a few
            trainings of a small model take less time than starting other processes). Its progress is called with the
            stages "fit", "retrain" and "attribute" (the evaluation set).

    Raises:
        ValueError: a budget or number of folds that makes no sense; labels that are amounts or of one class only; a
            measurement other than −loss; an evaluation set without labels.
        TypeError: a model that can neither be differentiated nor trained again.
    """
    require(model, [Measurable], "mislabeled", train)
    retraining = ONE_BY_ONE if retraining is None else retraining
    tell, there = retraining.progress or no_progress, weighted_positions(train)
    count, classes = _count(budget, len(there)), _classes(model, train, evaluation)
    tell("fit", 0, 1)
    loss, own, fitted, said, notes = _evidence(model, train, folds, retraining)
    score = _suspicion(loss, None if fitted is None else loss + own, said, there)
    chosen = there[np.argsort(-score[there], kind="stable")[:count]]
    suggested, chances = _suggestions(model, train, chosen, classes, said)
    harm = None
    if evaluation is not None and fitted is not None:
        harm = -_total(fitted, evaluation, lambda done, total: tell("attribute", done, total))[chosen] / len(evaluation)
    elif evaluation is not None:
        notes.append("The harm to the evaluation set is not told: it needs a model with gradients.")
    return Suspects(
        train.ids[chosen],
        score,
        loss,
        own,
        said,
        suggested,
        chances,
        harm,
        train,
        evaluation,
        model.measurement,
        tuple(notes),
    )


def _evidence(
    model: Any, train: Examples, folds: int, retraining: Retraining
) -> tuple[Array, Array, Fitted[Any, Any] | None, HeldOut | None, list[str]]:
    """Loss, self-influence, the fit it came from, out-of-fold answers, and what could not be had."""
    loss, notes = -model.measure(train), list(model.notes)
    fitted = Influence().fit(model, train) if isinstance(model, Differentiable) else None
    own = np.full(len(train), np.nan) if fitted is None else fitted.self_influence().values[0]
    (retraining.progress or no_progress)("fit", 1, 1)
    if fitted is not None and fitted.unit is Unit.RANK:
        notes.append("Losses without an example, and its harm, are not calibrated for this model: they rank, no more.")
    said = None
    if fitted is None:
        notes.append(f"This {type(model).__name__} has no gradients: labels are ranked by out-of-fold loss alone.")
    if can(model, Retrainable):
        said = held_out(model, train, None if fitted is None else loss + own, folds, retraining)
        notes += said.notes
    else:
        notes.append(f"This {type(model).__name__} cannot be retrained: labels are ranked by leave-one-out loss alone.")
    return loss, own, fitted, said, notes


def _suspicion(loss: Array, alone: Array | None, said: HeldOut | None, there: NDArray[np.intp]) -> Array:
    """What there is to go by, (n,); where all of it is there, the mean share of the training set that each puts below.

    Ranks, so that no single evidence decides by its size: out-of-fold losses have a longer tail than the others.
    Examples that are not among `there` have the lowest score.
    """
    if alone is None:
        assert said is not None
        evidence = said.counted[there]
    elif said is None or not said.helps:
        evidence = alone[there]
    else:
        ranks = (rankdata(each[there]) for each in (loss, alone, said.counted))
        evidence = np.asarray(sum(ranks) / (3 * len(there)))
    score = np.full(len(loss), evidence.min())
    score[there] = evidence
    return score


def _count(budget: float, n: int) -> int:
    if isinstance(budget, bool) or not np.isfinite(budget) or budget <= 0:
        raise ValueError(f"expected a budget above 0 (a number of labels, or a share below 1), got {budget!r}")
    if budget >= 1 and budget != int(budget):
        raise ValueError(f"expected a whole number of labels or a share below 1 as budget, got {budget!r}")
    return min(n, max(1, round(budget * n)) if budget < 1 else int(budget))


def _classes(model: Any, train: Examples, evaluation: Examples | None) -> list[Any]:
    """The labels there are, if this can be answered at all."""
    if not can(model, Retrainable):
        require(model, [Differentiable], "mislabeled")
    if evaluation is not None and evaluation.y is None:
        raise ValueError("expected an evaluation set with labels; pass Examples(x, y), or leave it out")
    if train.y is None:
        raise ValueError("the training set has no labels to check; pass Examples(x, y)")
    if not str(model.measurement).startswith(("−loss", "-loss")):
        raise ValueError(
            f"expected a model that measures −loss, got {model.measurement!r}; make it without measure= for this"
        )
    said = model.predict(train.take([0]))
    if not said.classes or train.y.ndim != 1:
        raise ValueError(
            "expected labels that are classes; for amounts look at uw.Influence().fit(model, train).self_influence()"
        )
    classes: list[Any] = np.unique(train.y[weighted_positions(train)]).tolist()
    if len(classes) < 2:
        raise ValueError(
            f"expected at least two classes among the labels, got only {classes[0]!r}: nothing can be wrong"
        )
    return classes


def _suggestions(
    model: Any, train: Examples, chosen: NDArray[np.intp], classes: list[Any], said: HeldOut | None
) -> tuple[tuple[Any, ...], Array]:
    """The likeliest other label of each, and the probabilities of both: see `Suspects.chances`."""
    some = train.take(chosen)
    assert some.y is not None
    given = np.searchsorted(np.array(classes), some.y)
    table = None if said is None else said.chances(chosen, [train.labels.get(c, c) for c in classes])
    if table is None and said is None:
        table = by_class(model.predict(some), [train.labels.get(c, c) for c in classes])
    belief = table if table is not None else _believed(model, some, classes)
    others = belief.copy()
    others[np.arange(len(chosen)), given] = -np.inf
    best = others.argmax(axis=1)
    chances = np.full((len(chosen), 2), np.nan)
    if table is not None:
        rows = np.arange(len(chosen))
        chances = np.stack([table[rows, given], table[rows, best]], axis=1)
    return tuple(classes[place] for place in best.tolist()), chances


def by_class(said: Predictions, names: list[Any]) -> Array | None:
    """Probabilities in the order of these class names, None where there are none."""
    if said.probabilities is None:
        return None
    return np.asarray(said.probabilities[:, [said.classes.index(name) for name in names]])


def _believed(model: Any, some: Examples, classes: list[Any]) -> Array:
    """The measurement under each label, for models without probabilities: (n, classes)."""
    assert some.y is not None
    every = [np.full(len(some), c, dtype=some.y.dtype) for c in classes]
    return np.stack([model.measure(with_labels(some, y)) for y in every], axis=1)


def _total(fitted: Any, evaluation: Examples, tell: Callable[[int, int], None]) -> Array:
    """Σ of scores over the evaluation set, (n,)."""
    out, done = np.zeros(len(fitted.train)), 0
    for part in evaluation.batches(TOGETHER):
        out += fitted.attribute(part).values.sum(axis=0)
        done += len(part)
        tell(done, len(evaluation))
    return out


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
