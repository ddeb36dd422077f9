"""`Forgotten`: an estimator without some of its training examples, with its certificate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from upweight.applications.certificate_file import sealed
from upweight.applications.membership import Membership
from upweight.core.examples import Examples, Id
from upweight.core.files import CERTIFICATE, open_atomically
from upweight.core.forgettable import ForgottenStep, Route
from upweight.core.tabular import Tabular


@dataclass(frozen=True)
class Distance:
    """How far the measurements of some examples are from those of a retrained model.

    Attributes:
        part: which examples: "forgotten", "remaining" or "unseen".
        examples: how many were measured.
        before: root mean square difference of the original model's measurements from the retrained model's.
        after: that of the new model's.
    """

    part: str
    examples: int
    before: float
    after: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"part": self.part, "examples": self.examples, "before": self.before, "after": self.after}


@dataclass(frozen=True, eq=False)
class Forgotten(Tabular):
    """What `forget` returns.

    Attributes:
        estimator: without the forgotten examples; of the user's own class, and a new object.
        model: the model of it, for everything that this library does with models.
        ids: of the forgotten examples, in the order of the training set.
        route: how it was computed.
        steps: of its pipeline, with what each of them remembers.
        membership: of the model before, after and, if there was one, retrained; empty if there were no unseen examples.
        distances: to a model that was retrained without the examples; empty if none was.
        facts: numbers of the route, e.g. the gradient norm at the end.
        digests: of the estimators before and after, the training set and the ids.
        measurement: in words.
        train: the training set, with the forgotten examples.
        diagnostics: `warnings` and `notes`.
    """

    _table: ClassVar = "steps"
    estimator: Any
    model: Any
    ids: tuple[Id, ...]
    route: Route
    steps: tuple[ForgottenStep, ...]
    membership: tuple[Membership, ...]
    distances: tuple[Distance, ...]
    facts: Mapping[str, Any]
    digests: Mapping[str, str | None]
    measurement: str
    train: Examples
    diagnostics: Mapping[str, Any]

    @property
    def remembering(self) -> tuple[ForgottenStep, ...]:
        """The steps that still hold something of the forgotten examples."""
        return tuple(step for step in self.steps if step.remembers is not None)

    @property
    def is_deletion(self) -> bool:
        """Whether nothing in the estimator depends on the forgotten examples."""
        return self.route.is_deletion and not self.remembering

    @property
    def remaining(self) -> Examples:
        """The training set without them."""
        return self.train.without(list(self.ids))

    @property
    def sentence(self) -> str:
        """A sentence about what was done, and whether it is a deletion."""
        count = f"{len(self.ids):,} of {len(self.train):,} training examples"
        if self.is_deletion:
            return f"Deletion: this {self._name} does not depend on {count}. {self._how}"
        if self.route.is_deletion:
            names = ", ".join(step.name for step in self.remembering)
            return f"No deletion: the last step was computed without {count}, but {names} remembers them. {self._how}"
        return f"No deletion: {self._how} {self._away}".rstrip()

    @property
    def certificate(self) -> dict[str, Any]:
        """What was done as plain values for JSON. The same call on the same model and data gives the same bytes."""
        content = {
            "statement": self.sentence,
            "deletion": self.is_deletion,
            "route": self.route.value,
            "forgotten": len(self.ids),
            "examples": len(self.train),
            "digests": dict(self.digests),
            "steps": [step.as_dict() for step in self.steps],
            "facts": dict(self.facts),
            "measurement": self.measurement,
            "membership": [check.as_dict() for check in self.membership],
            "distances": [distance.as_dict() for distance in self.distances],
        }
        return sealed(content)

    def save_certificate(self, path: str | Path) -> Path:
        """Write the certificate as JSON, whole or not at all. Raises ValueError if that file holds something else."""
        with open_atomically(path, CERTIFICATE) as file:
            file.write((json.dumps(self.certificate, indent=2, ensure_ascii=False) + "\n").encode())
        return Path(path)

    def require_deletion(self) -> Forgotten:
        """This result. Raises ValueError if it is not a deletion, with what to do instead."""
        if self.is_deletion:
            return self
        remedy = (
            "forget with refit=True trains again without these examples"
            if not self.route.is_deletion
            else "fit these parts without the examples, and call forget on the result"
        )
        raise ValueError(f"{self.sentence} {remedy[0].upper()}{remedy[1:]}.")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the certificate, the ids, warnings and notes."""
        return {
            **self.certificate,
            "ids": list(self.ids),
            "warnings": list(self.diagnostics["warnings"]),
            "notes": list(self.diagnostics["notes"]),
        }

    @property
    def _name(self) -> str:
        return self.steps[-1].kind if self.steps else type(self.estimator).__name__

    @property
    def _how(self) -> str:
        if self.route is Route.OPTIMUM:
            return (
                "Newton steps reached the optimum of its training objective without them (gradient norm "
                f"{self.facts['gradient_norm']:.1g} of gradients with random signs)."
            )
        if self.route is Route.CLOSED_FORM:
            return "Its training is a closed form, which was computed without them."
        if self.route is Route.REFIT:
            return "It was trained again without them."
        if self.route is Route.FIXED_STRUCTURE:
            return (
                f"the leaf values of this {self._name} were computed without {len(self.ids):,} training examples, but "
                "its splits were chosen with them."
            )
        return (
            f"one influence step moved this {self._name} towards what training without {len(self.ids):,} examples "
            "gives; it is an estimate, and traces of them remain."
        )

    @property
    def _away(self) -> str:
        """How much of the distance to retraining is left, on the forgotten examples."""
        distance = next((each for each in self.distances if each.part == "forgotten"), None)
        if distance is None:
            return "Its distance to a retrained model was not measured."
        words = (
            f"Compared with retraining, their measurements are off by {distance.after:.3g}, and by "
            f"{distance.before:.3g} before."
        )
        trees = self.facts.get("trees_split_otherwise")
        return f"{words} {trees:,} of {self.facts['trees']:,} trees have other splits." if trees is not None else words

    def __repr__(self) -> str:
        kind = "deletion" if self.is_deletion else "no deletion"
        return f"Forgotten({len(self.ids):,} of {len(self.train):,} training examples, {self.route.value}: {kind})"
