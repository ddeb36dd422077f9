"""Case: one method with one of its settings on one family, fitted once for all laws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from upweight.core.attributor import Attributor, Fitted
from upweight.core.capability_checks import can
from upweight.core.examples import Examples
from upweight.core.scores import Scores, Top
from upweight.testing.family import Family

TOP_K = 3  # proponents and opponents that `top` is called for
PART_BOUNDARIES = (1, 2, 3, 5)  # positions at which the queries are cut into parts
DEFAULT_SETTINGS = ""  # the name of a method's default settings


class CaseAnswers(NamedTuple):
    """What one fit answers: all queries together, the queries in parts, the strongest scores, self-influence."""

    all_queries: Scores
    parts: Sequence[Scores]
    top: Top
    self_influence: Scores


@dataclass(frozen=True, repr=False, eq=False)
class Case:
    """A recipe on a family.

    Attributes:
        settings: the name of the recipe's settings; empty for the default ones.
    """

    recipe: Attributor
    family: Family
    settings: str = DEFAULT_SETTINGS

    @property
    def name(self) -> str:
        """Method, settings and family, as reports name them."""
        return f"{type(self.recipe).__name__}{', ' * bool(self.settings)}{self.settings} on {self.family.name}"

    def __repr__(self) -> str:
        return self.name

    @cached_property
    def lacks(self) -> str | None:
        """Why the recipe cannot be fitted on this family; None if it can.

        Either the model lacks a capability that the method needs, or `fit` refuses the settings with a TypeError.
        """
        model = self.family.trained
        missing = [need.__name__ for need in type(self.recipe).needs if not can(model, need)]
        if missing:
            return f"it needs a model that is {' and '.join(missing)}"
        try:
            self.fitted  # noqa: B018 - fitted for all laws
        except TypeError as error:
            return str(error)
        return None

    @cached_property
    def fitted(self) -> Fitted[Any, Any]:
        """The fit that most laws use."""
        return self.recipe.fit(self.family.trained, self.family.train)

    @cached_property
    def scores(self) -> Scores:
        """The scores of all queries, which are the first that the fit computes."""
        return self.fitted.attribute(self.family.queries)

    @cached_property
    def copied(self) -> Scores:
        """The scores of one query, with a training set whose last two examples are its copy, and one of another label.

        See `Family.copied`.
        """
        train, query, model = self.family.copied
        return self.recipe.fit(model, train).attribute(query)

    @cached_property
    def answers(self) -> CaseAnswers:
        """All results of the fit; those of all queries are computed first."""
        all_queries = self.scores
        parts = [self.fitted.attribute(part) for part in self.parts]
        top = self.fitted.top(self.family.queries, k=TOP_K)
        return CaseAnswers(all_queries, parts, top, self.self_influence)

    @cached_property
    def self_influence(self) -> Scores:
        """The self-influence by the same fit, computed after the scores."""
        assert self.scores is not None
        return self.fitted.self_influence()

    @cached_property
    def second_fit(self) -> tuple[CaseAnswers, bool]:
        """(answers of a second fit in the opposite order, with the first two parts alone; whether nothing changed).

        The second value says whether model, data and random state of the user were left as they were.
        """
        family = self.family
        before = belongings(family)
        fitted = self.recipe.fit(family.trained, family.train)
        self_influence = fitted.self_influence()
        parts = [fitted.attribute(part) for part in reversed(self.parts[:2])]
        top, all_queries = fitted.top(family.queries, k=TOP_K), fitted.attribute(family.queries)
        return CaseAnswers(all_queries, parts[::-1], top, self_influence), belongings(family) == before

    @property
    def parts(self) -> Sequence[Examples]:
        """The queries in parts of 1, 1, 1 and 2, and the rest."""
        queries = self.family.queries
        boundaries = [position for position in PART_BOUNDARIES if position < len(queries)]
        return [queries.take(part) for part in np.split(np.arange(len(queries)), boundaries)]

    def waived(self, law: str) -> str | None:
        """Why the method waives this law; None if it does not."""
        return next((reason for name, reason in self.recipe.promises.waives.items() if name == law), None)


def belongings(family: Family) -> tuple[Any, ...]:
    """Return the user's model, data and numpy random state in a form that shows any change."""
    state: Any = np.random.get_state()
    data = family.train.digest(), family.queries.digest()
    return family.belongings(family.trained), data, np.asarray(state[1], dtype=np.uint32).tobytes()


def recipes(method: Attributor | type[Attributor]) -> Iterator[tuple[str, Attributor]]:
    """Yield (name of the settings, recipe): for a class its default settings and its variants, for a recipe itself.

    Raises TypeError for anything that is neither.
    """
    if not isinstance(method, Attributor) and not (isinstance(method, type) and issubclass(method, Attributor)):
        raise TypeError(f"expected a method, as a recipe such as GradDot() or as its class, got {method!r}")
    if isinstance(method, Attributor):
        yield DEFAULT_SETTINGS, method
        return
    yield DEFAULT_SETTINGS, method()
    for name, settings in method.variants.items():
        yield name, method(**settings)


def candidates(method: Attributor | type[Attributor], families: Sequence[Family]) -> Iterator[Case]:
    """Yield every recipe of the method on every family whose model has the capabilities that the method needs."""
    if isinstance(families, Family) or not all(isinstance(family, Family) for family in families):
        raise TypeError(f"expected families as a list of upweight.testing.Family, got {families!r}")
    for settings, recipe in recipes(method):
        for family in families:
            if all(can(family.trained, need) for need in type(recipe).needs):
                yield Case(recipe, family, settings)
