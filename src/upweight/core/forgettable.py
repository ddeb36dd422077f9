"""`Forgettable`: models that give a usable estimator without some training examples, without a full retraining."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Measurable, Retrainable


class Route(Enum):
    """How an estimator without some training examples was computed.

    Attributes:
        OPTIMUM: Newton steps to the optimum of the training objective without them.
        CLOSED_FORM: the estimator's training is a closed form, which was computed without them.
        REFIT: the estimator was trained again, from nothing.
        FIXED_STRUCTURE: leaf values were computed without them; the splits, which they helped to choose, stayed.
        STEP: one influence step from the parameters that were trained with them.
    """

    OPTIMUM = "optimum"
    CLOSED_FORM = "closed form"
    REFIT = "refit"
    FIXED_STRUCTURE = "fixed structure"
    STEP = "influence step"

    @property
    def is_deletion(self) -> bool:
        """Whether nothing that the route computes depends on the forgotten examples."""
        return self in (Route.OPTIMUM, Route.CLOSED_FORM, Route.REFIT)


@dataclass(frozen=True)
class ForgottenStep:
    """One step of a pipeline, or the estimator itself.

    Attributes:
        name: its name in the pipeline, or its class.
        kind: its class.
        how: what was done to it, e.g. "refitted".
        remembers: what it still holds of the forgotten examples, as a sentence; None if nothing.
    """

    name: str
    kind: str
    how: str
    remembers: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"name": self.name, "class": self.kind, "how": self.how, "remembers": self.remembers}


@dataclass(frozen=True, eq=False)
class Unlearned:
    """An estimator without some training examples.

    Attributes:
        estimator: of the user's own class; a new object.
        model: the model of it, which measures as the original one does.
        route: how it was computed.
        steps: of its pipeline, in order; one for an estimator alone.
        facts: numbers for the certificate, e.g. the gradient norm at the end.
        notes: sentences for the reader.
    """

    estimator: Any
    model: Measurable
    route: Route
    steps: tuple[ForgottenStep, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Forgettable(Retrainable):
    """A model that can give an estimator of the user's own class without some of its training examples."""

    @property
    @abstractmethod
    def estimator(self) -> Any:
        """The user's own object that this model reads: a fitted estimator, a pipeline, or a network."""

    @abstractmethod
    def forget(self, train: Examples, remaining: NDArray[np.bool_], seed: int = 0, refit: bool = False) -> Unlearned:
        """A new estimator on the examples where `remaining` (n,) is true. The user's own one does not change.

        `seed` is used by steps that have no seed of their own. With `refit`, everything is trained again from nothing,
        even if there is a shorter way.

        Raises:
            ValueError: the estimator cannot be fitted on these examples, for example because a class would be lost.
        """
