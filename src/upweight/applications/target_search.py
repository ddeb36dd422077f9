"""FIT: the search for targets, the queries whose influences have an unusually heavy upper tail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.influence_tails import (
    MIN_CLASS,
    MIN_QUERIES,
    Tails,
    flagged_by_chance,
    tail_probabilities,
    tails_of,
)
from upweight.applications.predicted_labels import class_labels, predicted_labels, with_predicted
from upweight.applications.supported_labels import OF_THE_LABEL
from upweight.core.attributor import Attributor, Fitted
from upweight.core.blocks import require_count
from upweight.core.capability_checks import can
from upweight.core.checkpoints import Checkpointed, Layered
from upweight.core.curvature_recipes import EKFAC
from upweight.core.examples import Examples
from upweight.core.model import Differentiable, Measurable
from upweight.core.progress import Progress, no_progress
from upweight.methods.gas import GAS
from upweight.methods.gradcos import GradCos
from upweight.methods.registry import first_choice
from upweight.methods.relatif import RelatIF

Array = NDArray[np.float64]
MAX_NAMED = 5  # ids or labels in a warning
CLEAN = "FIT(clean=…) (--clean on the command line)"


@dataclass(frozen=True, kw_only=True, eq=False)
class FIT:
    """Hammoudeh & Lowd (2022): targets are the queries with the heaviest upper tail of influences.

    Args:
        k: a query's heaviness is the k-th largest z-value of its influences. Attacks with fewer than k training
            examples per target are missed; a larger k is less easily disturbed by single training examples.
        level: the share of clean queries that may be flagged.
        clean: queries that are known to be clean, with which the others are compared; None to compare queries with
            each other, most of which then have to be clean.
    """

    k: int = 3
    level: float = 0.01
    clean: Examples | None = None

    def __post_init__(self) -> None:
        require_count("k", self.k)
        if not isinstance(self.level, int | float | np.floating) or not 0 < self.level < 1:
            raise ValueError(f"expected a level between 0 and 1, got {self.level!r}")


@dataclass(frozen=True, eq=False)
class TargetSearch:
    """The results of the search for all queries.

    Attributes:
        fitted: the fitted method.
        queries: with their predicted labels.
        labels: the predicted labels, (m,), as values of the training labels.
        own_labels: those of the queries, (m,); None without labels.
        probabilities: of the predicted labels, (m,); None if the model has none.
        tails: the upper tails.
        p: the probability of a clean query at least as heavy, (m,).
        flagged: where it is at most the level, (m,).
        by_chance: how many queries would be flagged if all were clean; None if that is not known.
        fit: the settings.
        warnings, notes: sentences for the reader.
    """

    fitted: Fitted[Any, Any]
    queries: Examples
    labels: NDArray[Any]
    own_labels: NDArray[Any] | None
    probabilities: Array | None
    tails: Tails
    p: Array
    flagged: NDArray[np.bool_]
    by_chance: float | None
    fit: FIT
    warnings: Sequence[str]
    notes: Sequence[str]

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Whether the prediction is the query's own label, (m,); False without labels."""
        return np.zeros(len(self.labels), dtype=bool) if self.own_labels is None else self.labels == self.own_labels

    def z_of(self, positions: Sequence[int]) -> dict[int, Array]:
        """Position of a query → z-values of the training examples, (n,); all −∞ if its label is too rare."""
        absent = np.full(len(self.fitted.train), -np.inf)
        missing = [i for i in positions if i not in self.tails.z]
        if not missing or self.tails.is_complete:
            return {i: self.tails.z.get(i, absent) for i in positions}
        own_labels = None if self.own_labels is None else self.own_labels[missing]
        tails = tails_of(self.fitted, self.queries.take(missing), own_labels, self.fit.k, no_progress).z
        return {i: tails.get(missing.index(i), absent) for i in positions}


def search_targets(
    model: Measurable, train: Examples, queries: Examples, recipe: Attributor, fit: FIT, report: Progress
) -> TargetSearch:
    """Attribute the predictions of all queries, and flag those with an unusually heavy tail."""
    labels, probabilities = predicted_labels(model, train, queries)
    report("fit", 0, 1)
    fitted = recipe.fit(model, train)
    report("fit", 1, 1)
    labelled = with_predicted(queries, labels)
    tails, clean = tails_of(fitted, labelled, queries.y, fit.k, report), None
    if fit.clean is not None:
        reference = with_predicted(fit.clean, predicted_labels(model, train, fit.clean)[0])
        clean = tails_of(fitted, reference, fit.clean.y, fit.k, no_progress).heaviness
    p = tail_probabilities(tails.heaviness, clean)
    flagged, by_chance = np.nan_to_num(p, nan=1.0) <= fit.level, flagged_by_chance(tails.heaviness, fit.level, clean)
    return TargetSearch(
        fitted=fitted,
        queries=labelled,
        labels=labels,
        own_labels=queries.y,
        probabilities=probabilities,
        tails=tails,
        p=p,
        flagged=flagged,
        by_chance=by_chance,
        fit=fit,
        warnings=_warnings(tails, queries, p, fit),
        notes=[*_chance_note(flagged, p, by_chance, fit), *_notes(model, recipe)],
    )


def default_recipe(model: Measurable, train: Examples) -> Attributor:
    """GAS if the model has checkpoints, else the one that suits the model.

    That is RelatIF for networks, GradCos for other models with gradients, and the one of `explain` for the rest.
    """
    if can(model, Checkpointed):
        return GAS()
    if not can(model, Differentiable):
        return first_choice(model, train)
    return RelatIF(curvature=EKFAC()) if can(model, Layered) else GradCos()


def require_label_measurement(model: Measurable, train: Examples) -> None:
    """Raise ValueError unless training labels are classes and the measurement is about a label."""
    class_labels(train, "poisoned")
    if not str(model.measurement).startswith(OF_THE_LABEL):
        raise ValueError(
            f"expected a model that measures −loss or the margin of a label, got {model.measurement!r}; make the model "
            "without measure="
        )


def _warnings(tails: Tails, queries: Examples, p: Array, fit: FIT) -> list[str]:
    warnings = list(tails.warnings)
    if tails.equal:
        ids = queries.ids[tails.equal[:MAX_NAMED]].tolist()
        warnings.append(
            f"{len(tails.equal)} of {len(queries)} queries are in the training set ({ids}{_more(tails.equal)}): "
            "training examples equal to a query, with its label, are left out of its influences."
        )
    if tails.rare:
        least = max(MIN_CLASS, fit.k)
        warnings.append(
            f"Queries that are predicted as {tails.rare[:MAX_NAMED]}{_more(tails.rare)} cannot be flagged: these "
            f"labels have fewer than {least} training examples."
        )
    if np.isnan(p).any() and (tails.heaviness.any() or not tails.rare):
        cause = (
            f"there are {len(queries)} queries, and {MIN_QUERIES} are needed to know what is usual"
            if len(queries) < MIN_QUERIES
            else "most queries are equally heavy"
        )
        warnings.append(f"No query can be flagged: {cause}; pass more queries, or {CLEAN}, or name targets=.")
    if fit.clean is not None and len(fit.clean) + 1 < 1 / fit.level:
        warnings.append(
            f"No query can be flagged at level {fit.level:g} with {len(fit.clean)} clean queries; pass at least "
            f"{int(np.ceil(1 / fit.level)) - 1}, or a higher level."
        )
    return warnings


def rough(number: float) -> str:
    """An expected number of queries in words: two digits if it is below ten."""
    return f"{number:,.0f}" if number >= 9.95 else f"{number:.2g}" if number >= 0.095 else "0"


def _chance_note(flagged: NDArray[np.bool_], p: Array, by_chance: float | None, fit: FIT) -> list[str]:
    """How many flags are to be expected if no query is a target; nothing if none can be flagged."""
    queries, count = len(flagged), int(flagged.sum())
    if np.isnan(p).all():
        return []
    if by_chance is None:
        share = rough(fit.level * queries)
        return [f"If all {queries:,} queries were clean, about {share} would be flagged; {CLEAN} holds the level."]
    source = "the upper tail of all queries" if fit.clean is None else "the clean queries"
    text = f"If all {queries:,} queries were clean, about {rough(by_chance)} would be flagged, by {source}"
    if 0 < count <= by_chance + 2.0 * by_chance**0.5:
        return [f"{text}: so many flags alone are no sign of an attack."]
    return [f"{text}."]


def _notes(model: Measurable, recipe: Attributor) -> list[str]:
    if can(model, Differentiable) and not can(model, Checkpointed) and not isinstance(recipe, GAS):
        return ["Without checkpoints of the training, influences are those at the trained parameters."]
    return []


def _more(values: Sequence[Any]) -> str:
    return ", …" if len(values) > MAX_NAMED else ""
