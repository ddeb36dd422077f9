"""A small right method, and one with a fault for every law: each is caught by the law that is meant for it."""

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


class FittedRight(GroupRemoval):
    """Inner products of gradients, as plainly as they can be written; effects of groups are sums."""

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

    def removed(self, member: Any, queries: Any, form: str) -> Any:
        return self.products(queries) @ member.T, AnswerFacts()

    def state(self) -> Any:
        return {"scale": np.array([self.scale])}, {}


@dataclass(frozen=True, kw_only=True)
class Right(Attributor):
    """Nothing is wrong with it."""

    summary = "Inner products of gradients"
    cost = "a product of two matrices"
    needs = (Differentiable,)
    answers: ClassVar[type[Fitted]] = FittedRight

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


def _as(kind: type, scores: Scores) -> Any:
    return kind(**vars(scores))


class WithoutFloor(Right):
    @property
    def promises(self) -> Promises:
        return Promises()


class Overpromised(Right):
    @property
    def promises(self) -> Promises:
        return Promises(correlation=0.999)


class LoadsAnything(Right):
    def load(self, path: Any, model: Any, train: Any) -> Any:
        return self.fit(model, train)


class Forgetful(Right):
    def restore(self, model: Any, train: Any, state: Any, facts: Any) -> Any:
        return self.answers(self, model, train)


class ByView(FittedRight):
    def attribute(self, queries: Any) -> Any:
        return _as(Rounded, super().attribute(queries))


class Flipped(FittedRight):
    def products(self, queries: Any) -> Any:
        return -super().products(queries)


class ByPosition(FittedRight):
    def products(self, queries: Any) -> Any:
        return super().products(queries) * (1 + np.arange(len(self.train)) / 10)


class ByCompany(FittedRight):
    def products(self, queries: Any) -> Any:
        return super().products(queries) / len(queries)


class OtherUnit(FittedRight):
    def attribute(self, queries: Any) -> Any:
        answer = super().attribute(queries)
        self.unit = Unit.RANK
        return answer


class Drifting(FittedRight):
    asked = 0

    def attribute(self, queries: Any) -> Any:
        self.asked += 1
        answer = super().attribute(queries)
        return replace(answer, values=answer.values * (1 + 1e-3 * self.asked))


class Noisy(FittedRight):
    noise = np.random.default_rng(0)

    def products(self, queries: Any) -> Any:
        return super().products(queries) * (1 + 1e-12 * self.noise.normal())


class HalfTop(FittedRight):
    def top(self, queries: Any, k: int = 10) -> Top:
        top = super().top(queries, k)
        return replace(top, ids=top.ids[:, 1:], values=top.values[:, 1:])


class AbsoluteSelf(FittedRight):
    def self_values(self) -> Any:
        return 2 * super().self_values()


class DoubledGroups(FittedRight):
    def attribute(self, queries: Any) -> Any:
        return _as(Doubled, super().attribute(queries))


class AnyForm(FittedRight):
    def remove(self, groups: Any, queries: Any, form: str | None = None) -> Any:
        return super().remove(groups, queries)


class TwiceRemoved(FittedRight):
    def removed(self, member: Any, queries: Any, form: str) -> Any:
        return 2 * self.products(queries) @ member.T, AnswerFacts()


class CachedByAddress(FittedRight):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.cache: dict[int, Any] = {}

    def products(self, queries: Any) -> Any:
        if id(queries) not in self.cache:
            self.cache[id(queries)] = queries, super().products(queries)
        return self.cache[id(queries)][1]


class NeverLooks(FittedRight):
    def require_unchanged(self) -> None:
        pass


class Writes(FittedRight):
    def products(self, queries: Any) -> Any:
        self.model.predictor.coef_ += 1e-9
        return super().products(queries)


class CountsRows(FittedRight):
    def products(self, queries: Any) -> Any:
        return super().products(queries) / len(self.train)


class Crashes(FittedRight):
    def self_values(self) -> Any:
        raise KeyError("a name that is not there")


@dataclass(frozen=True, kw_only=True)
class Effects(Right):
    """The same, whose scores are called effects."""

    unit = Unit.EFFECT


def answering(kind: type[Fitted], of: type[Right] = Right) -> Attributor:
    """A recipe whose fits are of this kind."""
    return dataclass(frozen=True, kw_only=True)(type(f"{kind.__name__}Method", (of,), {"answers": kind}))()


BROKEN: Mapping[str, tuple[Attributor, Law]] = {
    "states no floor": (WithoutFloor(), Law.FACTS),
    "another array than its values": (answering(ByView), Law.SHAPE),
    "a flipped sign": (answering(Flipped), Law.COPY),
    "depends on positions": (answering(ByPosition), Law.PERMUTATION),
    "depends on who is asked beside it": (answering(ByCompany), Law.BATCHES),
    "changes its unit after the first question": (answering(OtherUnit, Effects), Law.HISTORY),
    "changes its values with every question": (answering(Drifting), Law.HISTORY),
    "random": (answering(Noisy), Law.SEED),
    "a top without the first": (answering(HalfTop), Law.TOP),
    "another self-influence": (answering(AbsoluteSelf), Law.SELF),
    "groups that are no sums": (answering(DoubledGroups), Law.GROUPS),
    "takes any form": (answering(AnyForm), Law.REMOVAL),
    "effects of groups twice as large": (answering(TwiceRemoved, Effects), Law.REMOVAL),
    "loses its scale on disk": (Forgetful(), Law.SAVED),
    "loads anything": (LoadsAnything(), Law.IDENTITY),
    "remembers queries by their address": (answering(CachedByAddress), Law.CHANGED_QUERIES),
    "never looks at its training set": (answering(NeverLooks), Law.CHANGED_TRAINING),
    "writes to the model": (answering(Writes), Law.UNTOUCHED),
    "counts rows of weight 0": (answering(CountsRows), Law.WEIGHTS),
    "promises too much": (Overpromised(), Law.RETRAINING),
    "crashes": (answering(Crashes), Law.SHAPE),
}
