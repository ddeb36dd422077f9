"""Decisions made in another tool, checked together, as a patch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from upweight.applications.patch import Patch
from upweight.core.examples import Examples, Id
from upweight.report.exports.choices import Choices

MAX_NAMED = 3  # examples that a message names


@dataclass(frozen=True)
class Decided:
    """A decision about one example: its id, and the text that was chosen."""

    id: Any
    text: str


def patch_of(decided: Sequence[Decided], train: Examples, choices: Choices, name: str) -> Patch:
    """The decisions as a patch; labels that were kept are not part of it.

    Raises ValueError for unknown ids or labels, for decisions that contradict each other, and if there is none.
    """
    assert train.y is not None
    known = set(train.ids.tolist())
    unknown = list(dict.fromkeys(str(d.id) for d in decided if d.id not in known))
    if unknown:
        raise ValueError(
            f"{name} decides on {_named(unknown)}, which the training set does not have; its ids look like "
            f"{train.ids[:3].tolist()}. Nothing was changed"
        )
    if not decided:
        raise ValueError(f"{name} has no decision yet: label some of its examples, and export them again")
    chosen: dict[Id, Any] = {}
    contradictions = []
    for decision in decided:
        try:
            label = choices.decision(decision.text)
        except ValueError as error:
            raise ValueError(f"{name}, example {decision.id!r}: {error}. Nothing was changed") from None
        given = train.y[train.positions([decision.id])[0]].item()
        label = given if label is None else label
        if chosen.setdefault(decision.id, label) != label:
            contradictions.append(str(decision.id))
    if contradictions:
        raise ValueError(
            f"{name} has different decisions for {_named(list(dict.fromkeys(contradictions)))}; settle them there, and "
            "export again. Nothing was changed"
        )
    old = dict(zip(train.ids.tolist(), train.y.tolist(), strict=True))
    return Patch.of(train, {identifier: label for identifier, label in chosen.items() if label != old[identifier]})


def id_of(key: Any, name: str) -> Id:
    """The id that an export wrote as JSON. Raises ValueError for anything else."""
    try:
        identifier = json.loads(key)
    except (TypeError, ValueError):
        identifier = None
    if not isinstance(identifier, int | str | float):
        raise ValueError(f"{name}: expected the id of an example as the export wrote it, got {key!r:.60}")
    return identifier  # type: ignore[return-value]  # floats are refused as unknown ids


def read_json(content: bytes, name: str, what: str) -> list[dict[str, Any]]:
    """A list of objects. Raises ValueError for anything else."""
    try:
        entries = json.loads(content.decode("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{name} is not JSON ({error}); expected {what}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{name} is not a list of objects; expected {what}")
    return entries


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - MAX_NAMED} more" if len(ids) > MAX_NAMED else ""
    return ("the id " if len(ids) == 1 else "the ids ") + ", ".join(repr(i) for i in ids[:MAX_NAMED]) + more
