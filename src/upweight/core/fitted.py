"""`Fitted`: a method fitted on a model and a training set, which answers queries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import numpy as np
from numpy.typing import NDArray

from upweight.core.announced_fit import announced_queries
from upweight.core.answers import Answer, AnswerFacts, Block, combine_facts
from upweight.core.blocks import blocks, require_count
from upweight.core.departure import Departure, departure_of, with_departure
from upweight.core.deprecation import RenamedAttribute, ReplacedBy, accept_old_keywords
from upweight.core.examples import Examples, Id, require_examples
from upweight.core.forecast import announced, counted, watched
from upweight.core.identity import checksum
from upweight.core.library_calls import library_call
from upweight.core.model import Measurable, Predictions
from upweight.core.notebook_table import notebook_table
from upweight.core.saved_fit import FitParts, Recipe, write_fit
from upweight.core.scores import Scores, Top, Unit, groups_of
from upweight.core.snapshot import Snapshot
from upweight.core.strongest import StrongestOfBatches
from upweight.core.weights import warning_of_single_examples

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # with defaults, which the standard library has from Python 3.13

    RecipeT = TypeVar("RecipeT", bound=Recipe, default=Any)
    ModelT = TypeVar("ModelT", bound=Measurable, default=Any)
else:
    from typing import TypeVar

    RecipeT = TypeVar("RecipeT", bound=Recipe)
    ModelT = TypeVar("ModelT", bound=Measurable)


class Fitted(ABC, Generic[RecipeT, ModelT]):
    """A method fitted on a model and a training set, ready to attribute any query.

    Attributes:
        recipe: the settings.
        model: the model that is measured: the one passed to `fit`, or the same at the optimum of its training.
        original_model: the model passed to `fit`.
        train: the training set.
        unit: of its answers, unless an answer states another.
    """

    top_query_block = 256  # queries whose strongest examples are selected at a time
    handed_in = RenamedAttribute("original_model")

    @accept_old_keywords({"handed_in": ReplacedBy("original_model")})
    def __init__(
        self, recipe: RecipeT, model: ModelT, train: Examples, unit: Unit, original_model: ModelT | None = None
    ) -> None:
        self.recipe = recipe
        self.model = model
        self.original_model = model if original_model is None else original_model
        self.train = train
        self.unit = unit
        self._snapshot = Snapshot.of(self.original_model, train)

    def __getstate__(self) -> dict[str, Any]:
        """All but the version of the estimator, which is recognised by its objects; a copy has others.

        Raises ValueError if the model or the training set was changed in place since the fit.
        """
        self.require_unchanged()
        return {**vars(self), "_snapshot": replace(self._snapshot, version=None)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._snapshot = replace(self._snapshot, version=self.original_model.version())

    @abstractmethod
    def blocks(self, queries: Examples) -> Iterator[Block]:
        """Yield scores of all queries for consecutive blocks of training examples: (slice, (m, block)).

        A generator may end with `return AnswerFacts(…)` to state a unit or diagnostics of this answer alone.
        """

    @abstractmethod
    def self_values(self) -> NDArray[np.float64]:
        """The score of every training example on itself, shape (n,)."""

    def self_facts(self) -> AnswerFacts:
        """Unit, diagnostics and half widths (1, n) of the self-influence that was computed last; by default none."""
        return AnswerFacts()

    @property
    def may_be_undefined(self) -> bool:
        """Whether an answer may hold NaN for examples that its diagnostics list as undefined."""
        return bool(self.diagnostics.get("undefined"))

    def suspicion(self) -> NDArray[np.float64]:
        """How much the method suspects each training label, (n,), higher = more: by default its self-influence."""
        return np.asarray(self.self_influence().values[0])

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """What the fit itself says about how far to trust its answers; by default the notes of the model."""
        return {"warnings": list(self.model.notes)}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and facts from which `restore` can give the same answers; by default none."""
        return {}, {}

    def answer(self, queries: Examples) -> Answer:
        """The blocks for these queries, each checked for its shape and for scoring every training example once."""
        return Answer(self.blocks(queries), len(queries), len(self.train), type(self.recipe).__name__)

    @library_call
    def attribute(self, queries: Examples | None = None) -> Scores:
        """Scores [query, train] of these queries.

        A measurement of the parameters alone (`Coefficient`, `ParameterFunction`) needs none: the answer then has one
        row, whose id is the name of the measurement.

        Raises:
            TypeError: there are no queries, and the measurement needs them.
            ValueError: the model or the training set was changed in place since the fit.
        """
        queries = self.require_queries(queries)
        self.require_unchanged()
        # First: it refuses queries of another shape in our own words.
        measured, predictions = self.original_model.measure_and_predict(queries)
        departure = self.departure(queries)
        values = np.empty((len(queries), len(self.train)))
        facts = list[AnswerFacts]()
        size = max(1, min(len(queries), self.model.max_queries or len(queries)))
        with announced_queries(self, queries):
            for rows in blocks(len(queries), size):
                part = queries if size == len(queries) else queries.take(np.arange(rows.start, rows.stop))
                answer = self.answer(part)
                for where, block in watched(answer, "scores of training examples", len(self.train)):
                    values[rows, where] = block
                facts.append(answer.facts)
        joint = facts[0] if len(facts) == 1 else combine_facts(facts)
        scores = self.scores(values, queries.ids, self.train.ids, measured, predictions, joint)
        scores = with_departure(scores, departure)
        contents, train_contents = [(checksum(each.ids), each.checksum()) for each in (queries, self.train)]
        return replace(scores, contents=contents, train_contents=train_contents)

    def departure(self, queries: Examples) -> Departure | None:
        """How predictions at the optimum, where scores are taken, differ from the model's; None for the same model.

        Raises:
            ValueError: for one of the queries the optimum is another model, and the user did not accept this.
        """
        return departure_of(self.original_model, self.model, self.train, queries)

    @library_call
    def self_influence(self) -> Scores:
        """The score of every training example on itself, in one row `self`; large = memorised or mislabeled.

        Raises TypeError if the measurement depends on the parameters alone.
        """
        self.require_unchanged()
        if self.model.parameter_query() is not None:
            raise TypeError(
                f"self-influence needs a measurement of each example, got {self.model.measurement}, which depends on "
                "the parameters alone; use attribute(), or measure the loss"
            )
        with self.announced_self_influence():
            values = self.self_values()
        return self.scores(values[None, :], np.array(["self"]), self.train.ids, facts=self.self_facts())

    @library_call
    def top(
        self, queries: Examples | None = None, k: int = 10, by: Mapping[Id, Any] | Sequence[Any] | None = None
    ) -> Top:
        """The k strongest proponents and opponents of every query, without holding the full matrix.

        Args:
            queries: the queries; None for a measurement of the parameters alone.
            k: how many at each end.
            by: the group of every training example, as `Scores.group` takes it: the sums of the groups' scores are
                computed in the same pass.
        """
        require_count("k", k)
        of_groups = None if by is None else groups_of(by, self.train.ids)
        queries = self.require_queries(queries)
        self.require_unchanged()
        strongest = StrongestOfBatches(k, of_groups, self.may_be_undefined)
        of_answers, of_departure = list[AnswerFacts](), list[str]()
        size = min(self.top_query_block, self.model.max_queries or self.top_query_block)
        with announced_queries(self, queries, size):
            for batch in counted(queries.batches(size), -(-len(queries) // size)):
                departure = self.departure(batch)
                answer = self.answer(batch)
                largest = strongest.add(answer, len(batch))
                of_answers.append(answer.facts)  # not the answer, which holds a number for every training example
                if departure is not None and not of_departure:
                    of_departure += departure.warnings(largest)
        values, positions = strongest.selected
        facts = combine_facts(of_answers)
        unit, diagnostics = self.answered(facts)
        diagnostics["warnings"] += of_departure
        groups = None
        if of_groups is not None:
            summed = self.scores(strongest.sums, queries.ids, of_groups[0], facts=facts)
            groups = replace(summed, half_widths=None)
        return Top(queries.ids, self.train.ids[positions], values, k, unit, diagnostics, groups)

    @library_call
    def selected(self, queries: Examples, ids: Any) -> Scores:
        """Scores [query, train] for these training examples alone; influence computes no others.

        Args:
            queries: the queries.
            ids: of training examples.

        Raises:
            KeyError: a training example is not known.
            ValueError: the model or the training set was changed in place since the fit.
        """
        self.require_unchanged()
        positions = self.train.positions(ids)
        with announced(f"{type(self.recipe).__name__}, {len(queries):,} queries", None):
            values, facts = self.selected_values(queries, positions)
        return self.scores(values, queries.ids, self.train.ids[positions], facts=facts)

    def selected_values(
        self, queries: Examples, positions: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], AnswerFacts]:
        """Scores of the training examples at these positions, (m, len(positions)); by default out of all blocks."""
        values, answer = np.empty((len(queries), len(positions))), self.answer(queries)
        for where, block in answer:
            inside = np.flatnonzero((positions >= where.start) & (positions < where.stop))
            values[:, inside] = block[:, positions[inside] - where.start]
        return values, answer.facts

    @library_call
    def save(self, path: str | Path) -> None:
        """Write the fit to one file; `recipe.load(path, model, train)` gives the same answers.

        Raises:
            ValueError: model or data have parts without an identity (see `upweight.named`), or one of them was changed
                in place since the fit.
        """
        self.require_unchanged()
        write_fit(path, FitParts(self.recipe, self.original_model, self.train), *self.state())

    def scores(
        self,
        values: NDArray[np.float64],
        query_ids: NDArray[Any],
        train_ids: NDArray[Any],
        measured: NDArray[np.float64] | None = None,
        predictions: Predictions | None = None,
        facts: AnswerFacts | None = None,
    ) -> Scores:
        """The values as `Scores`, with the unit and the diagnostics of this answer."""
        unit, diagnostics = self.answered(facts or AnswerFacts())
        recipe, measurement = self.recipe.described(), self.model.measurement
        half_widths = None if facts is None else facts.half_widths
        scores = Scores(values, query_ids, train_ids, unit, measurement, recipe, diagnostics, measured, predictions)
        return scores if half_widths is None else replace(scores, half_widths=half_widths)

    def announced_self_influence(self) -> AbstractContextManager[None]:
        """A context of self-influence, which says what it takes if that is long."""
        return announced(f"{type(self.recipe).__name__}, self-influence of {len(self.train):,} examples", None)

    def require_queries(self, queries: Examples | None) -> Examples:
        """The queries, or the one of a measurement of the parameters alone. Raises TypeError for anything else."""
        given = self.model.parameter_query() if queries is None else queries
        require_examples(given, "the queries")
        assert given is not None
        return given

    def require_unchanged(self) -> None:
        """Raise ValueError if the training set or the model was changed in place since the fit."""
        self._snapshot.require_unchanged(self.original_model, self.train)

    @cached_property
    def _only_of_class(self) -> str | None:
        """A warning if a class has one training example only, whose removal would take the class away."""
        alone = self.original_model.only_examples(self.train)
        return warning_of_single_examples(alone, self.original_model.classes is not None)

    def answered(self, facts: AnswerFacts) -> tuple[Unit, dict[str, Any]]:
        """Unit and diagnostics of an answer: those of the fit, updated by the facts of this answer."""
        fit = self.diagnostics
        alone = filter(None, [self._only_of_class])
        warnings = dict.fromkeys([*fit.get("warnings", ()), *alone, *facts.diagnostics.get("warnings", ())])
        return facts.unit or self.unit, {**fit, **facts.diagnostics, "warnings": list(warnings)}

    def __repr__(self) -> str:
        return f"Fitted {type(self.recipe).__name__} on {len(self.train)} training examples ({self.unit})"

    def _repr_html_(self) -> str:
        return notebook_table(repr(self), self.diagnostics.items())
