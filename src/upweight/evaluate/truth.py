"""Truth: measurements of retrained models, kept so that many methods can be compared with it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.archive import read_archive, stored_array, well_formed, write_archive
from upweight.core.contents import UnidentifiedError
from upweight.core.examples import Examples
from upweight.core.model import Measurable
from upweight.core.provenance import identity_of, require_same
from upweight.core.scores import Scores
from upweight.core.scores_file import ID_KINDS
from upweight.evaluate.removals import Removal, predicted_effects

Array = NDArray[np.float64]
ROUNDING = 1e-12  # share of a measurement below which a difference is rounding, not an effect
SCHEMA = 2  # format of saved truths; since 2 with the identity of the model part by part


@dataclass(frozen=True, eq=False)
class Truth:
    """Measurements of retrained models, made by `retrain_truth`.

    Attributes:
        base: measurements after training on everything, (seeds, queries).
        after: measurements after training without each removal, (seeds, queries, removals).
        removals: one per column.
        seeds: the seeds with which every removal was trained.
        query_ids, train_ids: the axes that scores must have to be compared with it.
        facts: `identity` (digests of model, training set and queries; None if they cannot be distinguished from
            others), `measurement` in words, `seed_noise` (how far another seed moves the measurement if nothing is
            removed; None if it is not known), `refused` (removal → why the model could not be trained without it),
            `reproduction` (how retraining on everything compares with the model).
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
        """Actual effects of every seed, (seeds, queries, removals): with the examples minus without; rounding is 0."""
        effect = self.base[:, :, None] - self.after
        size = np.maximum(np.abs(self.base[:, :, None]), np.abs(self.after))
        return np.where(np.abs(effect) <= ROUNDING * size, 0.0, effect)

    @cached_property
    def actual(self) -> Array:
        """Actual effects, the mean over seeds, (queries, removals)."""
        return np.asarray(self.each.mean(axis=0))

    @property
    def deterministic(self) -> bool | None:
        """Whether another seed gives the same model; None if that is not known."""
        noise = self.facts.get("seed_noise")
        return None if noise is None else bool(noise <= ROUNDING * max(float(np.abs(self.base).max()), 1e-300))

    @property
    def warnings(self) -> list[str]:
        """A training that does not reproduce the model, and removals without which it cannot be trained."""
        refused = [f"Removal {name!r} was left out: {why}" for name, why in self.facts.get("refused", {}).items()]
        return [*self.facts.get("reproduction", {}).get("warnings", ()), *refused]

    def predicted(self, scores: Scores) -> Array:
        """The effects that these scores predict, (queries, removals). Raises ValueError for scores of other queries."""
        if scores.query_ids.tolist() != self.query_ids.tolist():
            raise ValueError("expected scores of exactly these queries, in this order; call attribute(queries) again")
        return predicted_effects(scores, self.removals)

    def require(self, model: Measurable, train: Examples, queries: Examples) -> None:
        """Raise ValueError if this is the truth of another model, other training data or other queries.

        Models differ if their parameters, objective, loss, measurement or training differ.
        """
        identity = identity_of(model, train, queries)
        require_same("this truth", self.facts.get("identity") or {}, identity, "retrain for this one")

    def take(self, columns: Sequence[int]) -> Truth:
        """The truth of the removals at these positions."""
        positions = np.asarray(columns, dtype=np.intp)
        removals, after = tuple(self.removals[i] for i in positions), self.after[:, :, positions]
        return Truth(self.base, after, removals, self.seeds, self.query_ids, self.train_ids, self.facts)

    def save(self, path: str | Path) -> None:
        """Write to one file, atomically.

        Raises ValueError for the truth of a model that cannot be distinguished from others (see `upweight.named`).
        """
        if "identity" in self.facts and self.facts["identity"] is None:
            raise ValueError(
                "the model or the data of this truth cannot be distinguished from others, so it cannot be saved: name "
                'the functions in them with uw.named("name", function), and retrain'
            )
        position_of = {identifier: position for position, identifier in enumerate(self.train_ids.tolist())}
        removed = np.zeros((len(self.removals), len(position_of)), dtype=bool)
        for row, removal in zip(removed, self.removals, strict=True):
            row[[position_of[i] for i in removal.ids]] = True
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
        with well_formed(path):
            return cls(**_stored(arrays, facts))

    def __repr__(self) -> str:
        return f"Truth({len(self.removals)} removals × {len(self.query_ids)} queries × {len(self.seeds)} seeds)"

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{html.escape(w)}</li>" for w in self.warnings)
        return f"<p><b>{html.escape(repr(self))}</b></p><ul>{notes}</ul>"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: how much was trained, and how reliable it is."""
        return {
            "removals": len(self.removals),
            "queries": len(self.query_ids),
            "seeds": list(self.seeds),
            "seed_noise": self.facts.get("seed_noise"),
            "refused": dict(self.facts.get("refused", {})),
        }


def identity_or_none(model: Any, train: Examples, queries: Examples) -> dict[str, str] | None:
    """Identities of model, training set and queries; None if one of them cannot be distinguished from others."""
    try:
        return identity_of(model, train, queries)
    except UnidentifiedError:
        return None


def _stored(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a truth from its file. Raises ValueError or TypeError if the file is not that of a truth."""
    names, seeds, more = facts["names"], facts["seeds"], facts["facts"]
    expected = ((names, list, str), (seeds, list, int), (more, dict, str))
    if not all(type(part) is kind and all(type(value) is member for value in part) for part, kind, member in expected):
        raise TypeError("expected names and seeds of trainings, and facts by name")
    _require_facts(more)
    query_ids, train_ids = (stored_array(arrays, name, (None,), ID_KINDS) for name in ("query_ids", "train_ids"))
    size = (len(seeds), len(query_ids))
    packed = stored_array(arrays, "removed", (len(names), -(-len(train_ids) // 8)), "u")
    removed = np.unpackbits(packed, axis=1, count=len(train_ids)).astype(bool)
    removals = tuple(
        Removal(name, "one" if row.sum() == 1 else "group", tuple(train_ids[row].tolist()))
        for name, row in zip(names, removed, strict=True)
    )
    base = stored_array(arrays, "base", size, finite=False)
    after = stored_array(arrays, "after", (*size, len(names)), finite=False)
    return {
        "base": base,
        "after": after,
        "removals": removals,
        "seeds": tuple(seeds),
        "query_ids": query_ids,
        "train_ids": train_ids,
        "facts": more,
    }


def _require_facts(facts: Mapping[str, Any]) -> None:
    """Raise TypeError if a fact is of another type than it is written with."""
    refused, reproduction, noise = facts.get("refused", {}), facts.get("reproduction", {}), facts.get("seed_noise")
    objects = (refused, reproduction, facts.get("identity") or {})
    if not all(isinstance(part, dict) for part in objects) or not isinstance(noise, int | float | None):
        raise TypeError("expected what was refused and reproduced, the identity, and the noise of seeds")
    warnings = reproduction.get("warnings", [])
    texts = [*refused.values(), *(warnings if isinstance(warnings, list) else [None])]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("expected sentences about what was refused and reproduced")
