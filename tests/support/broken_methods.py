"""A small correct method, and a faulty method for every law, which that law has to catch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from upweight.core.answers import AnswerFacts
from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.group_removal import GroupRemoval
from upweight.core.model import Differentiable
from upweight.core.scores import Scores, Top, Unit
from upweight.testing import Law


class FittedCorrect(GroupRemoval):
    """Inner products of gradients, written as plainly as possible; the effect of a group is a sum."""

    forms: ClassVar = ("sum",)

    def __init__(self, recipe: Any, model: Any, train: Any, scale: float = 1.0) -> None:
        super().__init__(recipe, model, train, recipe.unit)
        self.scale = scale

    def blocks(self, queries: Any) -> Any:
        yield slice(0, len(self.train)), self.products(queries)

    def products(self, queries: Any) -> Any:
        return -self.scale * self.model.measure_rows(queries).dot(self.model.loss_rows(self.train))

    def self_values(self) -> Any:
        return self.products(self.train).diagonal().copy()

    def removed(self, membership: Any, queries: Any, form: str) -> Any:
        return self.products(queries) @ membership.T, AnswerFacts()

    def state(self) -> Any:
        return {"scale": np.array([self.scale])}, {}


@dataclass(frozen=True, kw_only=True)
class Correct(Attributor):
    """A correct method."""

    summary = "Inner products of gradients"
    cost = "a product of two matrices"
    needs = (Differentiable,)
    answers: ClassVar[Any] = FittedCorrect

    @property
    def promises(self) -> Promises:
        return Promises(correlation=0.1)

    def fit(self, model: Any, train: Any) -> Any:
        return self.answers(self, model, train, 2.0)

    def restore(self, model: Any, train: Any, state: Any, facts: Any) -> Any:
        return self.answers(self, model, train, float(state["scale"][0]))


class Doubled(Scores):
    def group(self, by: Any) -> Scores:
        return replace(super().group(by), values=2 * super().group(by).values)


class Rounded(Scores):
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.round(self.values)


def as_scores(kind: type, scores: Scores) -> Any:
    """Return the same scores as an instance of a subclass of Scores."""
    return kind(**vars(scores))


class WithoutFloor(Correct):
    @property
    def promises(self) -> Promises:
        return Promises()


class Overpromised(Correct):
    @property
    def promises(self) -> Promises:
        return Promises(correlation=0.999)


class LoadsAnything(Correct):
    def load(self, path: Any, model: Any, train: Any) -> Any:
        return self.fit(model, train)


class Forgetful(Correct):
    def restore(self, model: Any, train: Any, state: Any, facts: Any) -> Any:
        return self.answers(self, model, train)


class RoundedArray(FittedCorrect):
    def attribute(self, queries: Any = None) -> Any:
        return as_scores(Rounded, super().attribute(queries))


class Flipped(FittedCorrect):
    def products(self, queries: Any) -> Any:
        return -super().products(queries)


class ByPosition(FittedCorrect):
    def products(self, queries: Any) -> Any:
        return super().products(queries) * (1 + np.arange(len(self.train)) / 10)


class ByCompany(FittedCorrect):
    def products(self, queries: Any) -> Any:
        return super().products(queries) / len(queries)


class OtherUnit(FittedCorrect):
    def attribute(self, queries: Any = None) -> Any:
        answer = super().attribute(queries)
        self.unit = Unit.RANK
        return answer


class Drifting(FittedCorrect):
    questions = 0

    def attribute(self, queries: Any = None) -> Any:
        self.questions += 1
        answer = super().attribute(queries)
        return replace(answer, values=answer.values * (1 + 1e-3 * self.questions))


class Noisy(FittedCorrect):
    noise = np.random.default_rng(0)

    def products(self, queries: Any) -> Any:
        return super().products(queries) * (1 + 1e-12 * self.noise.normal())


class TopWithoutFirst(FittedCorrect):
    def top(self, queries: Any = None, k: int = 10, by: Any = None) -> Top:
        top = super().top(queries, k, by)
        return replace(top, ids=top.ids[:, 1:], values=top.values[:, 1:])


class DoubledSelfInfluence(FittedCorrect):
    def self_values(self) -> Any:
        return 2 * super().self_values()


class DoubledGroupScores(FittedCorrect):
    def attribute(self, queries: Any = None) -> Any:
        return as_scores(Doubled, super().attribute(queries))


class AcceptsAnyForm(FittedCorrect):
    def remove(self, groups: Any, queries: Any = None, form: str | None = None) -> Any:
        return super().remove(groups, queries)


class DoubledRemovals(FittedCorrect):
    def removed(self, membership: Any, queries: Any, form: str) -> Any:
        return 2 * self.products(queries) @ membership.T, AnswerFacts()


class CachedByAddress(FittedCorrect):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.cache: dict[int, Any] = {}

    def products(self, queries: Any) -> Any:
        if id(queries) not in self.cache:
            self.cache[id(queries)] = queries, super().products(queries)
        return self.cache[id(queries)][1]


class SkipsChangeCheck(FittedCorrect):
    def require_unchanged(self) -> None:
        pass


class WritesToModel(FittedCorrect):
    def products(self, queries: Any) -> Any:
        self.model.predictor.coef_ += 1e-9
        return super().products(queries)


class CountsRows(FittedCorrect):
    def products(self, queries: Any) -> Any:
        return super().products(queries) / len(self.train)


class Crashes(FittedCorrect):
    def self_values(self) -> Any:
        raise KeyError("no such name")


@dataclass(frozen=True, kw_only=True)
class Effects(Correct):
    """The same method, whose unit is EFFECT."""

    unit = Unit.EFFECT


def recipe_of(fitted: type[Fitted], base: type[Correct] = Correct) -> Attributor:
    """Make a recipe whose `fit` returns this class."""
    recipe: type[Correct] = type(f"{fitted.__name__}Method", (base,), {"answers": fitted})
    return dataclass(frozen=True, kw_only=True)(recipe)()


BROKEN: Mapping[str, tuple[Attributor, Law]] = {
    "states no floor": (WithoutFloor(), Law.FACTS),
    "np.asarray gives rounded values": (recipe_of(RoundedArray), Law.SHAPE),
    "a flipped sign": (recipe_of(Flipped), Law.COPY),
    "depends on positions": (recipe_of(ByPosition), Law.PERMUTATION),
    "depends on the number of queries": (recipe_of(ByCompany), Law.BATCHES),
    "changes its unit after the first question": (recipe_of(OtherUnit, Effects), Law.HISTORY),
    "changes its values with every question": (recipe_of(Drifting), Law.HISTORY),
    "adds random noise": (recipe_of(Noisy), Law.SEED),
    "top leaves out the strongest": (recipe_of(TopWithoutFirst), Law.TOP),
    "doubles self-influence": (recipe_of(DoubledSelfInfluence), Law.SELF),
    "doubles the sums of groups": (recipe_of(DoubledGroupScores), Law.GROUPS),
    "accepts any form of removal": (recipe_of(AcceptsAnyForm), Law.REMOVAL),
    "doubles effects of groups": (recipe_of(DoubledRemovals, Effects), Law.REMOVAL),
    "loses its scale on disk": (Forgetful(), Law.SAVED),
    "loads anything": (LoadsAnything(), Law.IDENTITY),
    "caches queries by their address": (recipe_of(CachedByAddress), Law.CHANGED_QUERIES),
    "never checks its training set for changes": (recipe_of(SkipsChangeCheck), Law.CHANGED_TRAINING),
    "writes to the model": (recipe_of(WritesToModel), Law.UNTOUCHED),
    "counts rows of weight 0": (recipe_of(CountsRows), Law.WEIGHTS),
    "promises too much": (Overpromised(), Law.RETRAINING),
    "crashes": (recipe_of(Crashes), Law.SHAPE),
}
