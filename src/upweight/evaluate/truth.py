"""Truth: what models trained again without some examples say of the queries, kept so that many methods meet it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.archive import read_archive, write_archive
from upweight.core.examples import Examples
from upweight.core.model import Measurable
from upweight.core.provenance import identity_of, require_same
from upweight.core.scores import Scores
from upweight.evaluate.removals import Removal, predicted_effects

Array = NDArray[np.float64]
ROUNDING = 1e-12  # share of a measurement below which a difference is rounding, not an effect
SCHEMA = 2  # of saved truths: the second form carries the identity of the model part by part


@dataclass(frozen=True, eq=False)
class Truth:
    """Measurements of retrained models. Made by `retrain_truth`; `save` and `load` keep it, whole or not at all.

    Attributes:
        base: trained on everything, (seeds, queries).
        after: trained without each removal, (seeds, queries, removals).
        removals: one per column.
        seeds: one per training of the same removal.
        query_ids, train_ids: the axes that scores must have to be held against it.
        facts: `identity` (digests of model, training set and queries; None where they cannot be told apart from
            others), `measurement` in words, `seed_noise` (how far another seed moves the measurement when nothing is
            removed; None while it is not known), `refused` (removal → why the model could not be trained without it).
    """

    base: Array
    after: Array
    removals: tuple[Removal, ...]
    seeds: tuple[int, ...]
    query_ids: NDArray[Any]
    train_ids: NDArray[Any]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def each(self) -> Array:
        """Actual effects of every seed, (seeds, queries, removals): with the examples minus without; 0 for rounding."""
        effect = self.base[:, :, None] - self.after
        size = np.maximum(np.abs(self.base[:, :, None]), np.abs(self.after))
        return np.where(np.abs(effect) <= ROUNDING * size, 0.0, effect)

    @cached_property
    def actual(self) -> Array:
        """Actual effects, the mean over seeds, (queries, removals)."""
        return np.asarray(self.each.mean(axis=0))

    @property
    def deterministic(self) -> bool | None:
        """Whether another seed gives the same model; None while that is not known."""
        noise = self.facts.get("seed_noise")
        return None if noise is None else bool(noise <= ROUNDING * max(float(np.abs(self.base).max()), 1e-300))

    @property
    def warnings(self) -> list[str]:
        """Bad news: a training that does not give the model back, removals that the model refused."""
        refused = [f"Removal {name!r} was left out: {why}" for name, why in self.facts.get("refused", {}).items()]
        return [*self.facts.get("reproduction", {}).get("warnings", ()), *refused]

    def predicted(self, scores: Scores) -> Array:
        """What these scores say of the removals, (queries, removals). Raises ValueError for scores of other queries."""
        if scores.query_ids.tolist() != self.query_ids.tolist():
            raise ValueError("expected scores of exactly these queries, in this order; call attribute(queries) again")
        return predicted_effects(scores, self.removals)

    def require(self, model: Measurable, train: Examples, queries: Examples) -> None:
        """Raise ValueError when this is the truth of another model, other training data or other queries.

        A model differs by its parameters, objective, loss, measurement or training.
        """
        here = identity_of(model, train, queries)
        require_same("this truth", self.facts.get("identity") or {}, here, "retrain for this one")

    def take(self, columns: Sequence[int]) -> Truth:
        """The truth of the removals at these positions."""
        where = np.asarray(columns, dtype=np.intp)
        kept = tuple(self.removals[i] for i in where)
        return Truth(self.base, self.after[:, :, where], kept, self.seeds, self.query_ids, self.train_ids, self.facts)

    def save(self, path: str | Path) -> None:
        """Write to one file, atomically.

        Raises ValueError for the truth of a model that cannot be told apart from another (see `upweight.named`).
        """
        if "identity" in self.facts and self.facts["identity"] is None:
            raise ValueError(
                "the model or the data of this truth cannot be told apart from others, so it cannot be kept: give the "
                'functions that they hold names, uw.named("name", function), and retrain'
            )
        place = {identifier: i for i, identifier in enumerate(self.train_ids.tolist())}
        removed = np.zeros((len(self.removals), len(place)), dtype=bool)
        for row, one in zip(removed, self.removals, strict=True):
            row[[place[i] for i in one.ids]] = True
        arrays: dict[str, NDArray[Any]] = {
            "base": self.base,
            "after": self.after,
            "removed": np.packbits(removed, axis=1),
        }
        arrays |= {"query_ids": self.query_ids, "train_ids": self.train_ids}
        facts = {"names": [r.name for r in self.removals], "seeds": list(self.seeds), "facts": dict(self.facts)}
        write_archive(path, "truth", arrays, facts, SCHEMA)

    @classmethod
    def load(cls, path: str | Path) -> Truth:
        """Read what `save` wrote. Raises ValueError for a damaged file or one of another kind."""
        arrays, facts = read_archive(path, "truth", SCHEMA)
        ids = arrays["train_ids"]
        removed = np.unpackbits(arrays["removed"], axis=1, count=len(ids)).astype(bool)
        removals = tuple(
            Removal(name, "one" if row.sum() == 1 else "group", tuple(ids[row].tolist()))
            for name, row in zip(facts["names"], removed, strict=True)
        )
        seeds = tuple(facts["seeds"])
        return cls(arrays["base"], arrays["after"], removals, seeds, arrays["query_ids"], ids, facts["facts"])

    def __repr__(self) -> str:
        return f"Truth({len(self.removals)} removals × {len(self.query_ids)} queries × {len(self.seeds)} seeds)"

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{html.escape(w)}</li>" for w in self.warnings)
        return f"<p><b>{html.escape(repr(self))}</b></p><ul>{notes}</ul>"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: how much was trained, and how sure it is."""
        return {
            "removals": len(self.removals),
            "queries": len(self.query_ids),
            "seeds": list(self.seeds),
            "seed_noise": self.facts.get("seed_noise"),
            "refused": dict(self.facts.get("refused", {})),
        }
