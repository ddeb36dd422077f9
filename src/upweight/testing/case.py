"""Case: one method with its settings on one family, fitted once for all laws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from upweight.core.attributor import Attributor, Fitted
from upweight.core.examples import Examples
from upweight.core.model import can
from upweight.core.scores import Scores, Top
from upweight.testing.family import Family

STRONGEST = 3  # proponents and opponents that are asked for
PARTS = (1, 2, 3, 5)  # where the queries are cut into parts
DEFAULT = ""  # the name of the settings that a class has by itself


class Answers(NamedTuple):
    """What one fit said to the same questions: all queries together, parts of them, the strongest, itself."""

    together: Scores
    parts: Sequence[Scores]
    top: Top
    own: Scores


@dataclass(frozen=True, repr=False, eq=False)
class Case:
    """A recipe on a family.

    Attributes:
        settings: the name of its settings; empty for those by default.
    """

    recipe: Attributor
    family: Family
    settings: str = DEFAULT

    @property
    def name(self) -> str:
        """Method, settings and family, for people."""
        return f"{type(self.recipe).__name__}{', ' * bool(self.settings)}{self.settings} on {self.family.name}"

    def __repr__(self) -> str:
        return self.name

    @cached_property
    def lacks(self) -> str | None:
        """Why this is no pair: the model lacks what the method needs, or these settings do not fit it; None for one.

        Settings that do not fit a model are refused by a TypeError in `fit`.
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
        """The fit that most laws ask."""
        return self.recipe.fit(self.family.trained, self.family.train)

    @cached_property
    def scores(self) -> Scores:
        """Its scores of all queries: the first question that it gets."""
        return self.fitted.attribute(self.family.queries)

    @cached_property
    def answers(self) -> Answers:
        """What it says further, the widest question first."""
        together = self.scores
        parts = [self.fitted.attribute(part) for part in self.parts]
        return Answers(together, parts, self.fitted.top(self.family.queries, k=STRONGEST), self.own)

    @cached_property
    def own(self) -> Scores:
        """Its self-influence, asked after the scores."""
        assert self.scores is not None
        return self.fitted.self_influence()

    @cached_property
    def again(self) -> tuple[Answers, bool]:
        """(what a second fit says in the opposite order, of parts the first two; whether the user's things stayed)."""
        family = self.family
        before = belongings(family)
        fitted = self.recipe.fit(family.trained, family.train)
        own = fitted.self_influence()
        parts = [fitted.attribute(part) for part in reversed(self.parts[:2])]
        top, together = fitted.top(family.queries, k=STRONGEST), fitted.attribute(family.queries)
        return Answers(together, parts[::-1], top, own), belongings(family) == before

    @property
    def parts(self) -> Sequence[Examples]:
        """The queries in parts of 1, 1, 1, 2 and what is left."""
        queries = self.family.queries
        places = np.split(np.arange(len(queries)), [place for place in PARTS if place < len(queries)])
        return [queries.take(part) for part in places]

    def waived(self, law: str) -> str | None:
        """Why the method waives this law; None where it does not."""
        return next((reason for name, reason in self.recipe.promises.waives.items() if name == law), None)


def belongings(family: Family) -> tuple[Any, ...]:
    """Everything that is the user's: model, data, numpy's random state."""
    state: Any = np.random.get_state()
    data = family.train.digest(), family.queries.digest()
    return family.belongings(family.trained), data, np.asarray(state[1], dtype=np.uint32).tobytes()


def recipes(method: Attributor | type[Attributor]) -> Iterator[tuple[str, Attributor]]:
    """(name of the settings, recipe): of a class those by default and its variants, of a recipe itself.

    Raises TypeError for what is neither.
    """
    if not isinstance(method, Attributor) and not (isinstance(method, type) and issubclass(method, Attributor)):
        raise TypeError(f"expected a method, as a recipe such as GradDot() or as its class, got {method!r}")
    if isinstance(method, Attributor):
        yield DEFAULT, method
        return
    yield DEFAULT, method()
    for name, settings in method.variants.items():
        yield name, method(**settings)


def candidates(method: Attributor | type[Attributor], families: Sequence[Family]) -> Iterator[Case]:
    """Every recipe of the method on every family whose model can do what the method needs."""
    if isinstance(families, Family) or not all(isinstance(family, Family) for family in families):
        raise TypeError(f"expected families as a list of upweight.testing.Family, got {families!r}")
    for settings, recipe in recipes(method):
        for family in families:
            if all(can(family.trained, need) for need in type(recipe).needs):
                yield Case(recipe, family, settings)
