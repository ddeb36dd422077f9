"""Explanations: which training examples caused predictions, with the scores verified by retraining."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from upweight.applications.audit_results import Audit
from upweight.applications.overview import Overview, overview
from upweight.applications.shared_inputs_result import SharedInputs
from upweight.core.attributor import Attributor, Fitted
from upweight.core.capability_checks import can, why_not_verified
from upweight.core.deprecation import ReplacedBy, accept_old_keywords
from upweight.core.examples import Examples, Id
from upweight.core.model import Measurable, Retrainable
from upweight.core.progress import no_progress
from upweight.core.scores import Attribution, Scores, Unit
from upweight.core.tabular import Tabular
from upweight.evaluate.agreement import Agreement
from upweight.evaluate.verify import Check, verify
from upweight.methods.registry import first_choice
from upweight.retraining import deprecated_keywords
from upweight.retraining.retraining import Retraining

log = logging.getLogger("upweight")

OTHER_LOSSES = ("error)", "hinge)")  # ends of measurements that are not log-probabilities, though 0 where these are 0


@dataclass(frozen=True, eq=False)
class Explanation(Tabular):
    """Scores of some queries, and their verification by retraining.

    Attributes:
        scores: one row per query. EFFECT scores that the verification did not confirm are RANK, with a warning;
            `diagnostics["verdict"]` is the verdict.
        train, queries: the examples behind the two axes.
        check: the verification; None if nothing was verified.
        seconds: the time it took.
        notes: sentences about what was requested but could not be done.
        fitted: the fitted method; None if it is not known.
        audit: the support audit of these queries; None if there was none.
        inputs: which parts of the inputs decide, in the queries and in their training examples; None if not known.
    """

    _examples: ClassVar = {"query": "queries", "train": "train"}
    scores: Scores
    train: Examples
    queries: Examples
    check: Check | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    fitted: Fitted[Any, Any] | None = None
    audit: Audit | None = None
    inputs: SharedInputs | None = None

    @property
    def warnings(self) -> list[str]:
        """All warnings in one list: of the method, of the verification, of the support audit, and the notes."""
        answers = (self.scores, self.check, self.audit, self.inputs)
        parts = [part.diagnostics for part in answers if part is not None]
        return [str(w) for w in (*(w for part in parts for w in part.get("warnings", ())), *self.notes)]

    def with_audit(self, audit: Audit) -> Explanation:
        """This explanation with the support audit of its queries. Raises ValueError for the audit of others."""
        missing = [i for i in self.queries.ids.tolist() if i not in set(audit.queries.ids.tolist())]
        if missing:
            raise ValueError(
                f"expected the audit of these queries, got none of {missing[:3]}; pass uw.audit(explained)"
            )
        return replace(self, audit=audit)

    def with_inputs(self, inputs: SharedInputs) -> Explanation:
        """This explanation with input attributions, which its report shows side by side.

        Raises ValueError for those of other queries.
        """
        missing = [i for i in self.queries.ids.tolist() if i not in inputs.examples]
        if missing:
            raise ValueError(
                f"expected the input attributions of these queries, got none of {missing[:3]}; pass "
                "uw.shared_inputs(model, explained)"
            )
        return replace(self, inputs=inputs)

    def as_dict(self, k: int = 5) -> dict[str, Any]:
        """Plain values for JSON, with the k strongest proponents and opponents of every query; NaN becomes None.

        Keys: `method` (the recipe), `measurement`, `unit` (EFFECT or RANK), `train` (how many examples), `queries` (a
        list of `id`, `label`, `predicted`, `probability` of what was predicted, `at_optimum` (None, or `predicted` and
        `probability` at the optimum that the scores are taken at, if it differs), `measured`, `audit` (None, or
        `flagged`, `p`, `sentence`), `inputs` (`SharedInputs.as_dict`) if they are known,
        `proponents` and `opponents`, each a list of `id`, `label`, `score`, and `interval`
        if scores are estimated from random trainings), `check` (None, or `verdict`, `slope`, `pearson`, `spearman`,
        `trainings`, and the three numbers plus `count` under `single` and `groups`), `overview` (`Overview.as_dict(k)`;
        None for a single query), `warnings`, `seconds`.
        """
        return {
            "method": dict(self.scores.recipe),
            "measurement": self.scores.measurement,
            "unit": str(self.scores.unit),
            "train": len(self.train),
            "queries": self._queries(k),
            "check": None if self.check is None else _check_dict(self.check),
            "overview": None if len(self.queries) < 2 else self.overview().as_dict(k),
            "warnings": self.warnings,
            "seconds": round(self.seconds, 3),
        }

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        """The strongest of every query, as `as_dict` lists them."""
        for query in self.as_dict()["queries"]:
            for side in ("proponents", "opponents"):
                for entry in query[side]:
                    low, high = entry.get("interval", (None, None))
                    pair = {"query": query["id"], "side": side, "train": entry["id"], "score": entry["score"]}
                    yield pair if low is None else {**pair, "low": low, "high": high}

    def overview(self) -> Overview:
        """Which training examples matter over all of these queries, and for which mistakes."""
        return overview(self.scores, self.queries)

    def probability(self, place: int) -> tuple[float | None, float | None]:
        """The probabilities of the predicted and of the true label of this query; None without probabilities."""
        if (predictions := self.scores.predictions) is None or predictions.probabilities is None:
            return None, None
        by_class = dict(zip(predictions.classes, predictions.probabilities[place].tolist(), strict=True))
        return by_class.get(predictions.predicted[place]), by_class.get(
            self.queries.label(self.queries.ids[place].item())
        )

    def at_optimum(self, place: int) -> tuple[Any, float | None] | None:
        """The prediction for this query at the optimum at which scores are taken, and its probability.

        None if it predicts as the model does.
        """
        if (predictions := self.scores.at_optimum) is None:
            return None
        probabilities = predictions.probabilities
        return predictions.predicted[place], None if probabilities is None else float(probabilities[place].max())

    def without(self, place: int, score: float) -> float | None:
        """The probability of the query's true label if the example with this score were removed.

        None unless scores are effects on the log-probability of the label, of the model itself.
        """
        _, probability = self.probability(place)
        measured = self.scores.measured
        is_effect = self.scores.unit == Unit.EFFECT and self.scores.at_optimum is None
        is_other_loss = self.scores.measurement.endswith(OTHER_LOSSES)
        if probability is None or measured is None or not is_effect or is_other_loss:
            return None
        # Other measurements, and losses summed over classes, are not log-probabilities; comparing them on the query
        # shows it.
        if not math.isclose(math.exp(min(measured[place], 0.0)), probability, rel_tol=1e-2, abs_tol=1e-9):
            return None
        return float(min(1.0, math.exp(measured[place] - score)))

    def _queries(self, k: int) -> list[dict[str, Any]]:
        entries = [self._query(place, k) for place in range(len(self.queries))]
        if self.inputs is None:
            return entries
        inputs = {entry["id"]: entry for entry in self.inputs.as_dict(k)["examples"]}
        return [{**entry, "inputs": inputs[entry["id"]]} for entry in entries]

    def _query(self, place: int, k: int) -> dict[str, Any]:
        identifier = self.queries.ids[place].item()
        predictions, measured = self.scores.predictions, self.scores.measured
        return {
            "id": identifier,
            "label": _plain(self.queries.label(identifier)),
            "predicted": None if predictions is None else _plain(predictions.predicted[place]),
            "probability": _number(self.probability(place)[0]),
            "at_optimum": self._optimum(place),
            "measured": None if measured is None else _number(measured[place]),
            "audit": None if self.audit is None else self.audit.of(identifier).summary(),
            "proponents": self._listed(identifier, self.scores.proponents(identifier, k)),
            "opponents": self._listed(identifier, self.scores.opponents(identifier, k)),
        }

    def _optimum(self, place: int) -> dict[str, Any] | None:
        prediction = self.at_optimum(place)
        return None if prediction is None else {"predicted": _plain(prediction[0]), "probability": prediction[1]}

    def _listed(self, query: Id, attributions: Sequence[Attribution]) -> list[dict[str, Any]]:
        listed = [
            {"id": a.id, "label": _plain(self.train.label(a.id)), "score": _number(a.score)} for a in attributions
        ]
        for a, entry in zip(attributions, listed, strict=True):
            interval = self.scores.interval(query, a.id)
            if interval is not None:
                entry["interval"] = [_number(end) for end in interval]
        return listed


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
    """Fit the recipe, attribute the queries, and compare the scores with retraining.

    If retraining does not confirm the sizes of EFFECT scores, the scores that are returned have the unit RANK.

    Args:
        model, train: passed to the recipe's `fit`.
        queries: the examples to explain.
        recipe: the method; None for the one that suits the model.
        removals: passed to `verify`; 0 verifies nothing.
        seed: passed to `verify`.
        retraining: passed to `verify`. Its progress is called with the stages "fit", "attribute" and "retrain".

    Raises:
        TypeError: a model without the capabilities that the recipe needs.
        ValueError: arguments that the recipe or `verify` refuses.
    """
    recipe = first_choice(model, train) if recipe is None else recipe
    start = time.perf_counter()
    report = (None if retraining is None else retraining.progress) or no_progress
    report("fit", 0, 1)
    fitted = recipe.fit(model, train)
    report("fit", 1, 1)
    report("attribute", 0, 1)
    scores = fitted.attribute(queries)
    report("attribute", 1, 1)
    log.info("%s scored %d queries in %.2f s", type(recipe).__name__, len(queries), time.perf_counter() - start)
    check, notes = None, []
    if removals and can(model, Retrainable):
        report("retrain", 0, 1)
        check = verify(model, train, queries, scores, removals, seed=seed, retraining=retraining)
        scores = check.judged
    elif removals:
        notes.append(why_not_verified(model))
    return Explanation(scores, train, queries, check, time.perf_counter() - start, tuple(notes), fitted)


def agreed_on(check: Check, kind: Literal["one", "group"]) -> Agreement | None:
    """The agreement over removals of single examples or of groups; None if there was no removal of this kind."""
    return check.of(kind) if any(r.kind == kind for r in check.removals) else None


def _check_dict(check: Check) -> dict[str, Any]:
    whole = _agreement_dict(check.of())
    del whole["count"]
    kinds = {"single": _agreement_dict(agreed_on(check, "one")), "groups": _agreement_dict(agreed_on(check, "group"))}
    trainings = check.diagnostics["trainings"]
    verdict = None if check.verdict is None else str(check.verdict)
    return {"verdict": verdict, **whole, "trainings": trainings, "refits": trainings, **kinds}


def _agreement_dict(agreement: Agreement | None) -> dict[str, float | int | None]:
    if agreement is None:
        return {"slope": None, "pearson": None, "spearman": None, "count": 0}
    numbers = {name: _number(getattr(agreement, name)) for name in ("slope", "pearson", "spearman")}
    return {**numbers, "count": agreement.count}


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
