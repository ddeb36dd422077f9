"""Training-set attacks: which predictions are their targets, which training examples attack, and what removal does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from upweight.applications.deep_knn import DeepKNN, deep_knn
from upweight.applications.mitigation import Mitigation, Mitigator
from upweight.applications.target_search import (
    FIT,
    TargetSearch,
    default_recipe,
    require_label_measurement,
    rough,
    search_targets,
)
from upweight.core.attributor import Attributor
from upweight.core.blocks import require_count
from upweight.core.capability_checks import can, require
from upweight.core.examples import Examples, Id
from upweight.core.lookup import entry_of
from upweight.core.model import Embeddable, Measurable, Retrainable
from upweight.core.progress import no_progress
from upweight.core.scores import Attribution
from upweight.core.tabular import Tabular
from upweight.retraining.retraining import Retraining

Array = NDArray[np.float64]
UNUSUAL = 3.0  # z-value from which a training example is listed as an attacker
MAX_NAMED = 5  # ids in a warning
MITIGATED = 3  # flagged queries whose attackers are removed, unless the caller names another number


@dataclass(frozen=True, eq=False)
class SuspectedTarget:
    """One query: how heavy the upper tail of its influences is, and what makes it heavy.

    Attributes:
        id, label: of the query.
        predicted: the label that the model predicts, which an attack would be meant to cause.
        probability: of the predicted label; None if the model has none.
        heaviness: the k-th largest robust z-value of the influences on the prediction.
        p: the probability of a clean query at least as heavy; NaN if it could not be estimated.
        flagged: whether p is at most the level.
        attackers: training examples of the predicted label with unusually large influence (z ≥ 3), with their
            z-values, strongest first; empty unless the query was flagged or named.
        z: (n,), the z-value of every training example, −∞ if it cannot attack (another label, weight 0, the
            query itself); None unless the query was flagged or named.
        removed: ids that were removed for this query before its label changed.
        mitigation: what removal did; None if it was not tried.
    """

    id: Id
    label: Any
    predicted: Any
    probability: float | None
    heaviness: float
    p: float
    flagged: bool
    attackers: tuple[Attribution, ...] = ()
    z: Array | None = None
    removed: tuple[Id, ...] = ()
    mitigation: Mitigation | None = None

    @property
    def is_target(self) -> bool | None:
        """Whether retraining confirms it: without its attackers the label changes, without random examples it stays.

        None if removal was not tried. A query that is predicted as it is labelled is not the target of an attack that
        succeeded; without a label, an honest query that rests on a few training examples looks the same.
        """
        if self.mitigation is not None and self.label == self.predicted:
            return False
        return None if self.mitigation is None else self.mitigation.confirmed

    @property
    def sentence(self) -> str:
        """The effect of removal; without a removal, what is unusual."""
        tried = self.mitigation
        if tried is None:
            of_label = f"training examples of label {self.predicted} have unusual influence on it"
            return f"{len(self.attackers):,} {of_label}." if self.flagged else "Nothing unusual."
        if not tried.changed:
            return f"Still predicted {tried.label}: {tried.why_not}."
        own = f"these {len(self.removed):,} training examples" if self.removed else "what was removed for the others"
        if self.removed and tried.others:
            own += f" and {tried.others:,} that were removed for others"
        control = f"also predicted {tried.control}" if tried.control != tried.base else f"still {tried.control}"
        return f"Predicted {tried.label} without {own}; {control} without as many random ones."

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        tried = self.mitigation
        return {
            "id": self.id,
            "label": self.label,
            "predicted": self.predicted,
            "probability": self.probability,
            "heaviness": self.heaviness,
            "p": None if np.isnan(self.p) else self.p,
            "flagged": self.flagged,
            "attackers": [{"id": a.id, "z": a.score} for a in self.attackers],
            "sentence": self.sentence,
            "target": self.is_target,
            "removed": list(self.removed),
            "after": None if tried is None else tried.label,
            "control": None if tried is None else tried.control,
            "trainings": 0 if tried is None else tried.trainings,
            "why_not": None if tried is None else tried.why_not,
        }


@dataclass(frozen=True, eq=False)
class Poisoned(Tabular):
    """The queries in the order in which they look like targets of an attack.

    Attributes:
        suspects: one per query, heaviest first.
        train, queries: the examples.
        neighbours: the Deep k-NN filter of the training set; None if the model has no features.
        model: the model trained without all that was removed; None if nothing was removed.
        removed: ids of all training examples that were removed, in this order.
        accuracy: (before, after), of the queries that are not flagged, before and after removal; None each if it is
            not known.
        by_chance: how many queries would be flagged if all were clean; None if that is not known.
        recipe: the attribution method.
        fit: how queries were flagged.
        diagnostics: `warnings` and `notes`.
    """

    _table: ClassVar = "queries"
    _examples: ClassVar = {"id": "queries"}
    suspects: tuple[SuspectedTarget, ...]
    train: Examples
    queries: Examples
    neighbours: DeepKNN | None
    model: Any
    removed: tuple[Id, ...]
    accuracy: tuple[float | None, float | None]
    by_chance: float | None
    recipe: Attributor
    fit: FIT
    diagnostics: Mapping[str, Any]

    @property
    def flagged(self) -> list[Id]:
        """The ids of the queries with an unusually heavy tail, heaviest first."""
        return [suspect.id for suspect in self.suspects if suspect.flagged]

    @property
    def targets(self) -> list[Id]:
        """The ids of the queries for which retraining confirmed an attack."""
        return [suspect.id for suspect in self.suspects if suspect.is_target]

    def of(self, query: Id) -> SuspectedTarget:
        """The audited prediction of one query. Raises KeyError for an unknown id."""
        return entry_of({suspect.id: suspect for suspect in self.suspects}, query, self.queries.ids)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: one entry per query, heaviest first."""
        return {
            "method": self.recipe.described(),
            "k": self.fit.k,
            "level": self.fit.level,
            "flagged": self.flagged,
            "flagged_by_chance": self.by_chance,
            "targets": self.targets,
            "removed": list(self.removed),
            "accuracy_before": self.accuracy[0],
            "accuracy_after": self.accuracy[1],
            "deep_knn": None if self.neighbours is None else self.neighbours.as_dict(),
            "queries": [suspect.as_dict() for suspect in self.suspects],
            "warnings": list(self.diagnostics["warnings"]),
            "notes": list(self.diagnostics["notes"]),
        }

    def __repr__(self) -> str:
        tried = sum(suspect.mitigation is not None for suspect in self.suspects)
        chance = "" if self.by_chance is None else f", about {rough(self.by_chance)} by chance"
        confirmed = f", {len(self.targets)} of {tried} confirmed by retraining" if tried else ""
        return f"Poisoned({len(self.flagged):,} of {len(self.suspects):,} queries flagged{chance}{confirmed})"


def poisoned(
    model: Measurable,
    train: Examples,
    queries: Examples,
    recipe: Attributor | None = None,
    *,
    fit: FIT | None = None,
    targets: Sequence[Id] | int = MITIGATED,
    retraining: Retraining | None = None,
) -> Poisoned:
    """Find the targets of training-set attacks among the queries, and the training examples that attack them.

    Hammoudeh & Lowd (2022), Identifying a Training-Set Attack's Target Using Renormalized Influence Estimation. The
    influences of the training examples on each predicted label are turned into robust z-values (median and Qn) within
    the training examples of that label. A query is flagged if the k-th largest is unusual among all queries. Then the
    training examples above a falling cutoff are removed and the model is retrained, until the target's label changes.

    Args:
        model: a model of classes that measures −loss or the margin.
        train: the training set.
        queries: predictions to look at; labels are needed only for the accuracy.
        recipe: the attribution method. None for GAS if the model has checkpoints, else RelatIF with EK-FAC for
            networks, GradCos for other models with gradients, and for the rest the one that suits the model.
        fit: how queries are flagged; None for `FIT()`.
        targets: how many of the flagged queries to mitigate by retraining, heaviest first, without those that are
            predicted as they are labelled; or the ids of the queries to mitigate, flagged or not. 0 retrains nothing.
        retraining: how to retrain, with one seed; None for this process. Its progress is called with the stages "fit",
            "attribute" and "retrain".

    Raises:
        ValueError: training labels that are missing or of one class, regression, another measurement.
        KeyError: an unknown id among `targets`.
        TypeError: a model without the capabilities that the recipe needs.
    """
    require(model, [Measurable], "poisoned", train, queries)
    require_label_measurement(model, train)
    if isinstance(targets, str):
        raise TypeError(f"expected a list of ids or a number as targets, got {targets!r}; pass targets=[{targets!r}]")
    fit, retraining = fit or FIT(), retraining or Retraining()
    named = None if isinstance(targets, int | np.integer) else queries.positions(list(dict.fromkeys(targets))).tolist()
    number = require_count("targets", targets, least=0) if named is None else 0
    recipe = default_recipe(model, train) if recipe is None else recipe
    search = search_targets(model, train, queries, recipe, fit, retraining.progress or no_progress)
    order = np.lexsort((np.arange(len(queries)), -search.tails.heaviness)).tolist()
    flagged = [i for i in order if search.flagged[i]]
    tried = [i for i in flagged if not search.is_right[i]][:number] if named is None else named
    z = search.z_of([i for i in order if search.flagged[i] or i in tried])
    notes, mitigator, mitigations = list(search.notes), None, dict[int, Mitigation]()
    if tried and not can(model, Retrainable):
        notes.append(f"Nothing was removed: this {type(model).__name__} cannot be retrained.")
    elif tried:
        mitigator = Mitigator(model, train, retraining)
        of_targets = mitigator.mitigate([(queries.take([i]), search.labels[i].item(), z[i]) for i in tried])
        mitigations = dict(zip(tried, of_targets, strict=True))
    before_after = None if mitigator is None else mitigator.accuracy(queries, ~search.flagged)
    return Poisoned(
        suspects=tuple(_suspect(train, queries, search, i, z.get(i), mitigations.get(i)) for i in order),
        train=train,
        queries=queries,
        neighbours=deep_knn(model, train) if isinstance(model, Embeddable) and can(model, Embeddable) else None,
        model=None if mitigator is None else mitigator.current,
        removed=() if mitigator is None else tuple(train.ids[mitigator.removed].tolist()),
        accuracy=before_after or (None, None),
        by_chance=search.by_chance,
        recipe=recipe,
        fit=fit,
        diagnostics={"warnings": [*search.warnings, *_irreproducible(mitigations, queries)], "notes": notes},
    )


def _suspect(
    train: Examples, queries: Examples, search: TargetSearch, i: int, z: Array | None, tried: Mitigation | None
) -> SuspectedTarget:
    identifier = queries.ids[i].item()
    order = [] if z is None else np.argsort(-z, kind="stable")[: int((z >= UNUSUAL).sum())].tolist()
    return SuspectedTarget(
        id=identifier,
        label=queries.label(identifier),
        predicted=_readable(train, search.labels[i].item()),
        probability=None if search.probabilities is None else float(search.probabilities[i]),
        heaviness=float(search.tails.heaviness[i]),
        p=float(search.p[i]),
        flagged=bool(search.flagged[i]),
        attackers=() if z is None else tuple(Attribution(train.ids[j].item(), float(z[j])) for j in order),
        z=z,
        removed=() if tried is None else tuple(train.ids[tried.removed].tolist()),
        mitigation=None if tried is None else _with_names(tried, train),
    )


def _with_names(tried: Mitigation, train: Examples) -> Mitigation:
    """The same with readable labels."""
    names = {name: _readable(train, getattr(tried, name)) for name in ("label", "base", "control")}
    return replace(tried, **names)


def _readable(train: Examples, label: Any) -> Any:
    return train.labels.get(label, label)


def _irreproducible(mitigations: Mapping[int, Mitigation], queries: Examples) -> list[str]:
    """A warning if training on everything does not give the predictions that were to be mitigated."""
    ids = [queries.ids[i].item() for i, tried in mitigations.items() if not tried.reproduced]
    if not ids:
        return []
    return [
        f"Training on everything does not predict for {ids[:MAX_NAMED]} what the model predicts: removal was not tried "
        "for them. The given training is not the one that made the model; check its seed and its data."
    ]
