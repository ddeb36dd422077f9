"""Retrieve, then re-rank: cheap methods choose candidates, an exact one scores them, an audit says what is missed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.applications.retrieval import Retrieval, RetrievalAudit
from upweight.core.attributor import Fitted
from upweight.core.blocks import blocks
from upweight.core.capability_checks import can, require
from upweight.core.examples import Examples, Id
from upweight.core.from_store import FromStore
from upweight.core.lookup import entry_of
from upweight.core.model import Embeddable, Measurable
from upweight.core.progress import Progress, no_progress
from upweight.core.scores import Unit
from upweight.core.storable import Storable
from upweight.core.tabular import Tabular
from upweight.evaluate.certificate import Certificate, certify_queries, most_above
from upweight.methods.bm25 import BM25, words_of
from upweight.methods.rep_sim import RepSim

Array = NDArray[np.float64]
Candidates = dict[int, list[str]]  # position in the training set → the methods that chose it
QUERIES_AT_A_TIME = 32  # queries scored on all training examples at a time, in an audit


class RetrievedExample(NamedTuple):
    """A training example, its exact score, and the methods that had it among their candidates."""

    id: Id
    score: float
    by: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Retrieved(Tabular):
    """The strongest candidates of every query, by exact scores.

    Attributes:
        query_ids: the queries.
        examples: query id → its candidates with their exact scores, the largest first.
        k: how many proponents and opponents are answered.
        unit: of the exact scores.
        recipe: the exact method and its settings.
        diagnostics: those of the exact method.
        certificate: the statements of an audit of queries about what was missed; None without one.
        rows_above: query id → with the confidence of the audit, at most this many of the other training examples score
            higher than the k-th proponent; empty without an audit of rows.
        confidence: of either audit.
        train: the training set, for pages.
        queries: the queries, for pages.
    """

    query_ids: NDArray[Any]
    examples: Mapping[Id, Sequence[RetrievedExample]]
    k: int
    unit: Unit
    recipe: Mapping[str, Any]
    diagnostics: Mapping[str, Any]
    certificate: Certificate | None = None
    rows_above: Mapping[Id, int] = field(default_factory=dict)
    confidence: float = 0.95
    train: Examples | None = None
    queries: Examples | None = None

    def proponents(self, query: Id) -> list[RetrievedExample]:
        """The k candidates that raised this query's measurement most. Raises KeyError for an unknown query."""
        return [example for example in self._of(query)[: self.k] if example.score > 0]

    def opponents(self, query: Id) -> list[RetrievedExample]:
        """The k candidates that lowered this query's measurement most, strongest first."""
        return [example for example in self._of(query)[::-1][: self.k] if example.score < 0]

    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON can hold it."""
        ends = {"proponents": self.proponents, "opponents": self.opponents}
        return {
            "recipe": dict(self.recipe),
            "unit": str(self.unit),
            "queries": [
                {"query": query, **{name: [e._asdict() for e in end(query)] for name, end in ends.items()}}
                for query in self.query_ids.tolist()
            ],
            "certificate": None if self.certificate is None else vars(self.certificate),
            "rows_above": dict(self.rows_above),
            "warnings": list(self.diagnostics.get("warnings", ())),
        }

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        for query in self.query_ids.tolist():
            for example in self._of(query):
                yield {"query": query, **example._asdict()}

    def __repr__(self) -> str:
        count = np.mean([len(examples) for examples in self.examples.values()])
        audit = "" if self.certificate is None else f", {self.certificate.least_complete:.0%} certified complete"
        return (
            f"Retrieved({len(self.query_ids)} queries, {count:.0f} candidates each, {self.unit} by "
            f"{self.recipe['method']}{audit})"
        )

    def _of(self, query: Id) -> Sequence[RetrievedExample]:
        return entry_of(self.examples, query, self.query_ids)


def retrieve(
    model: Any,
    train: Examples,
    queries: Examples,
    retrieval: Retrieval | None = None,
    *,
    store: Any = None,
    audit: RetrievalAudit | None = None,
    progress: Progress = no_progress,
) -> Retrieved:
    """The strongest training examples of every query: candidates by cheap methods, scored by an exact one.

    Args:
        model: the trained model.
        train: its training set.
        queries: what is asked.
        retrieval: the exact method, the methods that choose candidates, and how many; None for the defaults.
        store: a `uw.Store`, which is built if it is not finished. The methods that choose candidates answer from it
            if they can, and KFAC and EK-FAC of the exact method take their factors from it, so that only gradients of
            candidates are computed.
        audit: what is scored exactly beyond the candidates, to say what was missed; None for no audit.
        progress: called with (stage, done, total).

    Raises:
        TypeError: the model lacks a capability, or no method can choose candidates.
        ValueError: more queries or rows are to be audited than there are, or no candidate was found.
    """
    retrieval = Retrieval() if retrieval is None else retrieval
    require(model, [Measurable], "retrieve", train, queries)
    if audit is not None:
        audit.require_enough(queries, train)
    retrievers = _fitted(model, train, retrieval, store)
    chosen: list[Candidates] = [{} for _ in range(len(queries))]
    for done, (name, fitted) in enumerate(retrievers.items()):
        progress("retrieve", done, len(retrievers))
        _add_candidates(chosen, name, fitted, queries, retrieval.candidates)
    progress("retrieve", len(retrievers), len(retrievers))
    exact_model = model
    if store is not None and isinstance(model, Storable):
        exact_model = model.with_stored_factors(store, train)
    exact = retrieval.method.fit(exact_model, train)
    union = np.array(sorted({position for of_query in chosen for position in of_query}), dtype=np.intp)
    if not len(union):
        raise ValueError("no method found a candidate for any query; pass other methods as Retrieval(by=[…])")
    progress("score", 0, 1)
    scores = exact.selected(queries, train.ids[union])
    examples = {
        query: _ranked(of_query, scores.values[row], union, train)
        for row, (query, of_query) in enumerate(zip(queries.ids.tolist(), chosen, strict=True))
    }
    answer = Retrieved(
        query_ids=queries.ids,
        examples=examples,
        k=retrieval.k,
        unit=scores.unit,
        recipe=scores.recipe,
        diagnostics=scores.diagnostics,
        train=train,
        queries=queries,
    )
    answer = answer if audit is None else _audited(answer, exact, queries, chosen, audit)
    progress("score", 1, 1)
    return answer


def _fitted(model: Any, train: Examples, retrieval: Retrieval, store: Any) -> dict[str, Fitted[Any, Any]]:
    """Name → fitted method that chooses candidates. Raises TypeError if there is none."""
    by = retrieval.by
    if by is None:
        by = [retrieval.method] if store is not None and retrieval.method.answers_from_store else []
        by = [*by, *([BM25()] if _has_words(train) else []), *([RepSim()] if can(model, Embeddable) else [])]
    if not by:
        raise TypeError("retrieve needs a method that chooses candidates: pass store=uw.Store(folder), or by=[…]")
    fitted: dict[str, Fitted[Any, Any]] = {}
    for recipe in by:
        name = type(recipe).__name__
        name = name if name not in fitted else f"{name} {len(fitted) + 1}"
        from_store = store is not None and recipe.answers_from_store
        fitted[name] = (FromStore(recipe=recipe, store=store) if from_store else recipe).fit(model, train)
    return fitted


def _has_words(train: Examples) -> bool:
    try:
        words_of(train.take([0]))
    except TypeError:
        return False
    return True


def _add_candidates(
    chosen: list[Candidates], name: str, fitted: Fitted[Any, Any], queries: Examples, count: int
) -> None:
    """Add the strongest of both ends, by their position in the training set."""
    top = fitted.top(queries, min(count, len(fitted.train)))
    for of_query, query in zip(chosen, queries.ids.tolist(), strict=True):
        ids = dict.fromkeys(a.id for end in (top.proponents(query), top.opponents(query)) for a in end)
        if ids:
            for position in fitted.train.positions(list(ids)).tolist():
                of_query.setdefault(position, []).append(name)


def _ranked(of_query: Candidates, values: Array, union: NDArray[np.intp], train: Examples) -> list[RetrievedExample]:
    """The candidates of one query, the largest score first and equal ones in the order of the training set."""
    positions = np.array(sorted(of_query), dtype=np.intp)
    own = values[np.searchsorted(union, positions)]
    order = np.argsort(-own, kind="stable")
    ids = train.ids[positions].tolist()
    return [RetrievedExample(ids[i], float(own[i]), tuple(of_query[int(positions[i])])) for i in order.tolist()]


def _audited(
    answer: Retrieved, exact: Fitted[Any, Any], queries: Examples, chosen: Sequence[Candidates], audit: RetrievalAudit
) -> Retrieved:
    """The answer with the statements of an audit."""
    generator, train = np.random.default_rng(audit.seed), exact.train
    certificate = None
    if audit.queries:
        drawn = np.sort(generator.choice(len(queries), audit.queries, replace=False))
        recalls = _recalls(exact, queries, drawn, chosen, answer.k)
        certificate = certify_queries(recalls, answer.k, audit.confidence, audit.seed)
    above: dict[Id, int] = {}
    if audit.rows:
        drawn = np.sort(generator.choice(len(train), audit.rows, replace=False))
        values = exact.selected(queries, train.ids[drawn]).values
        for row, query in enumerate(queries.ids.tolist()):
            is_other = np.array([position not in chosen[row] for position in drawn.tolist()])
            examples = answer.examples[query]
            above[query] = _rows_above(values[row], is_other, examples, answer.k, len(train), audit.confidence)
    return replace(answer, certificate=certificate, rows_above=above, confidence=audit.confidence)


def _recalls(
    exact: Fitted[Any, Any],
    queries: Examples,
    drawn: NDArray[np.intp],
    chosen: Sequence[Candidates],
    k: int,
) -> Array:
    """For each audited query the share of its k strongest proponents that is among its candidates; 1 if it has none."""
    recalls = np.empty(len(drawn))
    for block in blocks(len(drawn), QUERIES_AT_A_TIME):
        values = exact.attribute(queries.take(drawn[block])).values
        for offset, row in enumerate(values):
            strongest = [i for i in np.argsort(-row, kind="stable")[:k].tolist() if row[i] > 0]
            hits = sum(i in chosen[int(drawn[block][offset])] for i in strongest)
            recalls[block.start + offset] = hits / len(strongest) if strongest else 1.0
    return recalls


def _rows_above(
    values: Array, is_other: NDArray[np.bool_], examples: Sequence[RetrievedExample], k: int, n: int, confidence: float
) -> int:
    """How many training examples that are not candidates may score higher than the k-th proponent."""
    threshold = examples[k - 1].score if len(examples) >= k else -np.inf
    above = int((values[is_other] > threshold).sum())
    return most_above(above, int(is_other.sum()), n - len(examples), confidence)
