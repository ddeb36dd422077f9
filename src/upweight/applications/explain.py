"""explain: what caused these predictions, and does real retraining agree."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor
from upweight.core.deprecation import ReplacedBy, accept_old_keywords
from upweight.core.examples import Examples, Id
from upweight.core.model import Measurable, Retrainable, can
from upweight.core.progress import no_progress
from upweight.core.scores import Attribution, Scores, Unit
from upweight.evaluate.agreement import Agreement
from upweight.evaluate.verify import Check, verify
from upweight.methods.registry import first_choice
from upweight.retraining import deprecated_keywords
from upweight.retraining.retraining import Retraining

log = logging.getLogger("upweight")


@dataclass(frozen=True, eq=False)
class Explanation:
    """Scores of some queries, and what real retraining said of them.

    Attributes:
        scores: one row per query.
        train, queries: the examples behind the two axes.
        check: the verification; None when none was asked for.
        seconds: what it took.
        notes: sentences about what was not done as asked.
    """

    scores: Scores
    train: Examples
    queries: Examples
    check: Check | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """All bad news in one list: of the method, of the verification, of this run."""
        checked = () if self.check is None else self.check.diagnostics.get("warnings", ())
        return [str(w) for w in (*self.scores.diagnostics.get("warnings", ()), *checked, *self.notes)]

    def as_dict(self, k: int = 5) -> dict[str, Any]:
        """Plain values for JSON, with the k strongest proponents and opponents of every query; NaN becomes None.

        Keys: `method` (the recipe), `measurement`, `unit` (EFFECT or RANK), `train` (how many examples),
        `queries` (a list of `id`, `label`, `predicted`, `probability` of what was predicted, `measured`,
        `proponents` and `opponents`, each a list of `id`, `label`, `score`), `check` (None, or `slope`, `pearson`,
        `spearman`, `trainings`, and the first three plus `count` under `single` and `groups`), `warnings`, `seconds`.
        """
        return {
            "method": dict(self.scores.recipe),
            "measurement": self.scores.measurement,
            "unit": str(self.scores.unit),
            "train": len(self.train),
            "queries": [self._query(place, k) for place in range(len(self.queries))],
            "check": None if self.check is None else _checked(self.check),
            "warnings": self.warnings,
            "seconds": round(self.seconds, 3),
        }

    def probability(self, place: int) -> tuple[float | None, float | None]:
        """(of what was predicted, of the true label) for the query at this place, None where the model has none."""
        said = self.scores.predictions
        if said is None or said.probabilities is None:
            return None, None
        of = dict(zip(said.classes, said.probabilities[place].tolist(), strict=True))
        return of.get(said.predicted[place]), of.get(self.queries.label(self.queries.ids[place].item()))

    def without(self, place: int, score: float) -> float | None:
        """The probability of the query's true label if the example with this score were not there.

        None unless scores are effects on the log-probability of the label.
        """
        _, known = self.probability(place)
        measured = self.scores.measured
        if known is None or measured is None or self.scores.unit != Unit.EFFECT:
            return None
        # Other measurements, and losses that are sums over classes, are no log-probability: it shows on the query. Not
        # to the last digit, because a method may measure at the optimum near the model that was handed in.
        if not math.isclose(math.exp(min(measured[place], 0.0)), known, rel_tol=1e-2, abs_tol=1e-9):
            return None
        return float(min(1.0, math.exp(measured[place] - score)))

    def _query(self, place: int, k: int) -> dict[str, Any]:
        identifier = self.queries.ids[place].item()
        said, measured = self.scores.predictions, self.scores.measured
        return {
            "id": identifier,
            "label": _plain(self.queries.label(identifier)),
            "predicted": None if said is None else _plain(said.predicted[place]),
            "probability": _number(self.probability(place)[0]),
            "measured": None if measured is None else _number(measured[place]),
            "proponents": self._named(self.scores.proponents(identifier, k)),
            "opponents": self._named(self.scores.opponents(identifier, k)),
        }

    def _named(self, found: Sequence[Attribution]) -> list[dict[str, Any]]:
        return [{"id": a.id, "label": _plain(self.train.label(a.id)), "score": _number(a.score)} for a in found]


@accept_old_keywords(
    {"method": ReplacedBy("recipe"), **deprecated_keywords.stages(retrain="verify")},
    deprecated_keywords.retraining_builder(),
)
def explain(
    model: Measurable,
    train: Examples,
    queries: Examples,
    recipe: Attributor | None = None,
    *,
    removals: int | Mapping[str, Sequence[Id]] = 16,
    seed: int = 0,
    retraining: Retraining | None = None,
) -> Explanation:
    """Fit the recipe, attribute the queries, and hold the scores against real retraining.

    Args:
        model, train: as handed to the recipe's `fit`.
        queries: what to explain.
        recipe: the method; None for what suits the model.
        removals: as handed to `verify`; 0 verifies nothing.
        seed: as handed to `verify`.
        retraining: as handed to `verify`. Its progress is called with the stages "fit", "attribute" and "retrain".

    Raises:
        TypeError: a model that lacks what the recipe needs.
        ValueError: what the recipe or `verify` refuses.
    """
    recipe = first_choice(model, train) if recipe is None else recipe
    start = time.perf_counter()
    tell = (None if retraining is None else retraining.progress) or no_progress
    tell("fit", 0, 1)
    fitted = recipe.fit(model, train)
    tell("fit", 1, 1)
    tell("attribute", 0, 1)
    scores = fitted.attribute(queries)
    tell("attribute", 1, 1)
    log.info("%s scored %d queries in %.2f s", type(recipe).__name__, len(queries), time.perf_counter() - start)
    check, notes = None, []
    if removals and can(model, Retrainable):
        tell("retrain", 0, 1)
        check = verify(model, train, queries, scores, removals, seed=seed, retraining=retraining)
    elif removals:
        notes.append(f"Nothing was verified: this {type(model).__name__} cannot be retrained.")
    return Explanation(scores, train, queries, check, time.perf_counter() - start, tuple(notes))


def confident_mistakes(model: Measurable, queries: Examples, k: int = 8) -> list[Id]:
    """Ids of at most k queries that the model gets wrong, the ones it was surest of first.

    Sureness is the probability of what was predicted; without probabilities it is how low the measurement is. Where
    labels are amounts every prediction is off, and the largest errors come first.

    Raises:
        ValueError: queries without labels.
    """
    if queries.y is None:
        raise ValueError(
            "the queries have no labels, so none of them can be called a mistake; "
            "pass Examples(x, y), or choose queries by id"
        )
    said = model.predict(queries)
    if not said.classes:
        off = np.asarray(said.predicted, dtype=np.float64) - np.asarray(queries.y, dtype=np.float64)
        return _first(queries, np.linalg.norm(off.reshape(len(queries), -1), axis=1), k)
    labels = [queries.label(i) for i in queries.ids.tolist()]
    wrong = np.array([p != label for p, label in zip(said.predicted, labels, strict=True)])
    sure = -model.measure(queries) if said.probabilities is None else said.probabilities.max(axis=1)
    return _first(queries, np.where(wrong, sure, -np.inf), k)


def worth_explaining(model: Measurable, queries: Examples, k: int = 8) -> tuple[list[Id], str | None]:
    """The most confident mistakes; where there are none, the k queries the model is least sure of, and why these."""
    found = [] if queries.y is None else confident_mistakes(model, queries, k)
    if found:
        return found, None
    chances = model.predict(queries).probabilities
    doubt = -model.measure(queries) if chances is None else -chances.max(axis=1)
    why = "The queries have no labels" if queries.y is None else "The model gets every query right"
    return _first(queries, doubt, k), f"{why}; these are the ones it is least sure of."


def agreed_on(check: Check, kind: Literal["one", "group"]) -> Agreement | None:
    """How well single examples or groups agree, None when no removal was of this kind."""
    return check.of(kind) if any(r.kind == kind for r in check.removals) else None


def _first(queries: Examples, rank: NDArray[np.float64], k: int) -> list[Id]:
    order = np.argsort(-rank, kind="stable")[:k]
    return [queries.ids[i].item() for i in order if np.isfinite(rank[i])]


def _checked(check: Check) -> dict[str, Any]:
    whole = _agreed(check.of())
    del whole["count"]
    kinds = {"single": _agreed(agreed_on(check, "one")), "groups": _agreed(agreed_on(check, "group"))}
    return {**whole, "trainings": (done := check.diagnostics["trainings"]), "refits": done, **kinds}


def _agreed(agreement: Agreement | None) -> dict[str, float | int | None]:
    if agreement is None:
        return {"slope": None, "pearson": None, "spearman": None, "count": 0}
    numbers = {name: _number(getattr(agreement, name)) for name in ("slope", "pearson", "spearman")}
    return {**numbers, "count": agreement.count}


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
