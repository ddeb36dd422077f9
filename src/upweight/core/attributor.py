"""Attributor (a recipe) and Fitted (ready to answer): what every method is made of."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import Answer, AnswerFacts, Block, combine_facts
from upweight.core.archive import as_plain, read_archive, write_archive
from upweight.core.change_checks import check_changes_once
from upweight.core.examples import Examples, require_examples
from upweight.core.identity import checksum, digest
from upweight.core.model import Measurable, Predictions, require
from upweight.core.promises import Promises
from upweight.core.provenance import identity_of, require_same
from upweight.core.scores import Scores, Top, Unit, require_finite

__all__ = ["Attributor", "Fitted", "ModelT", "Promises", "RecipeT"]

QUERIES = 256  # queries whose strongest examples are sought at a time
SCHEMA = 2  # of saved fits: the second form carries the identity of the model part by part

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # with defaults, which type checkers know before Python 3.13: `Fitted` alone

    RecipeT = TypeVar("RecipeT", bound="Attributor", default=Any)
    ModelT = TypeVar("ModelT", bound=Measurable, default=Any)
else:
    from typing import TypeVar

    RecipeT = TypeVar("RecipeT", bound="Attributor")
    ModelT = TypeVar("ModelT", bound=Measurable)


@dataclass(frozen=True, kw_only=True)
class Attributor(ABC):
    """A recipe: a frozen dataclass that is at once constructor, settings and provenance.

    A method is such a class with a `fit`, and a `Fitted` with `blocks` and `self_values`. Facts of the class:

        summary: what it does, in one line.
        paper: where it comes from.
        cost: what it takes, in one or two lines.
        unit: of its scores; EFFECT where some settings or models give less, which their scores then say.
        needs: the capabilities that it needs of a model.
        variants: settings that the laws try beside the default ones: a name for each → its settings.
    """

    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    unit: ClassVar[Unit] = Unit.RANK
    needs: ClassVar[tuple[type, ...]] = (Measurable,)
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "fit" in vars(cls):
            cls.fit = _checked(check_changes_once(cls.fit))  # type: ignore[method-assign]

    @property
    def promises(self) -> Promises:
        """What these settings stand by; nothing where it is left out, which the laws do not let pass."""
        return Promises()

    @abstractmethod
    def fit(self, model: Any, train: Examples) -> Fitted[Any, Any]:
        """Do all the work that does not depend on the queries.

        Whatever a subclass writes here, it is called with a model that has the capabilities in `needs` and with
        Examples that are not all of weight 0; anything else is refused before (see `require`).
        """

    def restore(
        self, model: Any, train: Examples, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> Fitted[Any, Any]:
        """The fitted form from what `Fitted.state` gave; left out, it is fitted again."""
        return self.fit(model, train)

    def load(self, path: str | Path, model: Any, train: Examples) -> Fitted[Any, Any]:
        """Read what `Fitted.save` wrote.

        Raises:
            ValueError: recipe, model (parameters, objective, loss, measurement, training) or training set are not the
                same; a damaged file.
            TypeError: an estimator in place of a model, arrays in place of Examples.
        """
        require(model, [Measurable], type(self).__name__, train)
        state, facts = read_archive(path, "fitted", SCHEMA)
        here = {"recipe": digest(self), **identity_of(model, train)}
        require_same(f"the fit in {path}", facts.get("identity", {}), here, "fit again")
        return self.restore(model, train, state, facts)

    def described(self) -> dict[str, Any]:
        """Name and settings as plain values."""
        described: dict[str, Any] = as_plain({"method": type(self).__name__, **_settings(self)})
        return described


class Fitted(ABC, Generic[RecipeT, ModelT]):
    """A method that has seen model and training set and can answer for any query.

    Attributes:
        recipe, train: as they were handed in.
        model: what is measured: the model handed in, or the same at the optimum of its training.
        handed_in: the model handed in.
        unit: of its answers, where an answer does not say otherwise.
    """

    def __init__(
        self, recipe: RecipeT, model: ModelT, train: Examples, unit: Unit, handed_in: ModelT | None = None
    ) -> None:
        self.recipe = recipe
        self.model = model
        self.handed_in = model if handed_in is None else handed_in
        self.train = train
        self.unit = unit
        self._contents = self._seen()
        self._version = self.handed_in.version()

    @abstractmethod
    def blocks(self, queries: Examples) -> Iterator[Block]:
        """Scores of all queries for consecutive blocks of training examples: (which, (m, block)).

        A generator that ends with `return AnswerFacts(…)` says what is true of this answer alone.
        """

    @abstractmethod
    def self_values(self) -> NDArray[np.float64]:
        """The score of every training example on itself, shape (n,)."""

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """How far to trust the answers, as far as the fit alone can say; here what is known of the model."""
        return {"warnings": list(self.model.notes)}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """What is worth keeping: arrays and facts from which `restore` makes the same answers; here nothing."""
        return {}, {}

    def answer(self, queries: Examples) -> Answer:
        """The blocks of these queries as they come, checked: every training example once, in arrays that fit."""
        return Answer(self.blocks(queries), len(queries), len(self.train), type(self.recipe).__name__)

    @check_changes_once
    def attribute(self, queries: Examples) -> Scores:
        """Scores [query, train] of these queries.

        Raises:
            ValueError: the training set has been changed in place since the fit.
        """
        require_examples(queries, "the queries")
        self.require_unchanged()
        measured = self.model.measure(queries)
        values = np.empty((len(queries), len(self.train)))
        answer = self.answer(queries)
        for where, block in answer:
            values[:, where] = block
        predictions = self.model.predict(queries)
        scores = self.scores(values, queries.ids, self.train.ids, measured, predictions, answer.facts)
        return replace(scores, contents=(checksum(queries.ids), queries.checksum()))

    @check_changes_once
    def self_influence(self) -> Scores:
        """One row, `self`: the score of every training example on itself; large = memorised or mislabeled."""
        self.require_unchanged()
        return self.scores(self.self_values()[None, :], np.array(["self"]), self.train.ids)

    @check_changes_once
    def top(self, queries: Examples, k: int = 10) -> Top:
        """The k strongest proponents and opponents of every query; never holds the full matrix."""
        if k < 1:
            raise ValueError(f"expected k of at least 1, got {k}")
        require_examples(queries, "the queries")
        self.require_unchanged()
        answers, ends = list[Answer](), []
        for some in queries.batches(QUERIES):
            answers.append(self.answer(some))
            ends.append(_ends_of(answers[-1], len(some), k))
        values, places = (np.vstack(parts) for parts in zip(*ends, strict=True))
        unit, diagnostics = self.answered(combine_facts([answer.facts for answer in answers]))
        return Top(queries.ids, self.train.ids[places], values, k, unit, diagnostics)

    @check_changes_once
    def save(self, path: str | Path) -> None:
        """Keep the fit in one file; `recipe.load(path, model, train)` gives the same answers.

        Raises:
            ValueError: model or data hold what cannot be told apart from another (see `upweight.named`), or the
                training set has been changed in place since the fit.
        """
        self.require_unchanged()
        arrays, facts = self.state()
        identity = {"recipe": digest(self.recipe), **identity_of(self.handed_in, self.train)}
        write_archive(
            path, "fitted", arrays, {**facts, "described": self.recipe.described(), "identity": identity}, SCHEMA
        )

    def scores(
        self,
        values: NDArray[np.float64],
        query_ids: NDArray[Any],
        train_ids: NDArray[Any],
        measured: NDArray[np.float64] | None = None,
        predictions: Predictions | None = None,
        facts: AnswerFacts | None = None,
    ) -> Scores:
        """Values as the noun that users hold, with the unit and the diagnostics of this answer."""
        unit, diagnostics = self.answered(facts or AnswerFacts())
        return Scores(
            values=values,
            query_ids=query_ids,
            train_ids=train_ids,
            unit=unit,
            measurement=self.model.measurement,
            recipe=self.recipe.described(),
            diagnostics=diagnostics,
            measured=measured,
            predictions=predictions,
        )

    def require_unchanged(self) -> None:
        """Raise ValueError where the training set or the model was changed in place since the fit."""
        if self.handed_in.version() != self._version:
            raise ValueError(
                "the model was changed, moved or copied since this fit (trained further or again, for instance), so "
                "its answers would be of neither; fit again, or fit a model of a copy that stays: copy.deepcopy(net) "
                "or copy.deepcopy(estimator)"
            )
        if self._seen() != self._contents:
            raise ValueError(
                "the training set was changed in place since this fit, so its answers would be of neither set; make "
                "other examples with train.replaced(x=…, y=…) and fit again"
            )

    def _seen(self) -> int:
        """What is there to notice changes by: labels and weights at least, where inputs have no contents."""
        contents = self.train.checksum()
        return checksum(self.train.y, self.train.weights) if contents is None else contents

    def answered(self, facts: AnswerFacts) -> tuple[Unit, dict[str, Any]]:
        """Unit and diagnostics of an answer: those of the fit, and what is true of this answer alone."""
        fit = self.diagnostics
        warnings = dict.fromkeys([*fit.get("warnings", ()), *facts.diagnostics.get("warnings", ())])
        return facts.unit or self.unit, {**fit, **facts.diagnostics, "warnings": list(warnings)}

    def __repr__(self) -> str:
        return f"Fitted {type(self.recipe).__name__} on {len(self.train)} training examples ({self.unit})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v))}</td></tr>"
            for k, v in self.diagnostics.items()
        )
        return f"<p><b>{html.escape(repr(self))}</b></p><table>{rows}</table>"


def _checked(fit: Callable[..., Any]) -> Callable[..., Any]:
    """The fit, after its model and training set were found to be what the method needs."""

    @wraps(fit)
    def checking(recipe: Attributor, model: Any, train: Examples, *given: Any, **named: Any) -> Any:
        require(model, recipe.needs, type(recipe).__name__, train)
        return fit(recipe, model, train, *given, **named)

    return checking


def _ends_of(answer: Answer, m: int, k: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Values and places of both ends of every query, (m, ≤ 2k), largest first, from blocks as they come."""
    values, places = np.empty((m, 0)), np.empty((m, 0), dtype=np.intp)
    for where, block in answer:
        columns = np.broadcast_to(np.arange(where.start, where.stop), block.shape)
        values, places = np.hstack([values, require_finite(block)]), np.hstack([places, columns])
        if values.shape[1] > 2 * k:
            ends = _ends(values, k)
            values, places = values[ends].reshape(m, 2 * k), places[ends].reshape(m, 2 * k)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(places, order, axis=1)


def _ends(values: NDArray[np.float64], k: int) -> NDArray[np.bool_]:
    """Where the k largest and k smallest of every row are; of equals the first, so that blocks make no difference."""
    high = _largest(values, k)
    return high | _largest(np.where(high, -np.inf, -values), k)


def _largest(values: NDArray[np.float64], k: int) -> NDArray[np.bool_]:
    least = -np.partition(-values, k - 1, axis=1)[:, k - 1, None]
    above, equal = values > least, values == least
    room = k - above.sum(axis=1, keepdims=True)
    largest: NDArray[np.bool_] = above | (equal & (np.cumsum(equal, axis=1) <= room))
    return largest


def _settings(recipe: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for item in (item for item in fields(recipe) if item.compare):  # what is not compared changes no answer
        value = getattr(recipe, item.name)
        is_recipe = is_dataclass(value) and not isinstance(value, type)
        settings[item.name] = {"kind": type(value).__name__, **_settings(value)} if is_recipe else value
    return settings
