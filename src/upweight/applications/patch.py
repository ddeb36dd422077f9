"""Patches: decisions about labels as a file. A patch is applied to its training set as a whole or not at all."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from upweight.applications.changes import Change, as_label
from upweight.core.archive import MALFORMED
from upweight.core.capability_checks import require, require_reads_examples
from upweight.core.examples import Examples, Id
from upweight.core.files import PATCH, open_atomically, open_regular
from upweight.core.identity import digest
from upweight.core.model import Measurable, Retrainable
from upweight.core.tabular import Tabular

KIND = "upweight patch"
VERSION = 3  # since version 2 the checksum of the training set is a digest; since 3 the patch has one of its own
DROP = "drop"
SCALARS = (type(None), bool, int, float, str)


class Decision(NamedTuple):
    """One training example with its old and its new label; a new label of None drops the example."""

    id: Id
    old: Any
    new: Any


@dataclass(frozen=True)
class Patch(Tabular):
    """Decisions about the labels of one training set.

    `checksum` is the digest of all its ids and labels, `examples` their number.
    """

    _table: ClassVar = "decisions"
    decisions: tuple[Decision, ...]
    checksum: str
    examples: int

    @classmethod
    def of(cls, train: Examples, decided: Mapping[Id, Any]) -> Patch:
        """From id → new label, or "drop". Raises KeyError for an unknown id, ValueError for an unknown label."""
        decisions = []
        for identifier, new in decided.items():
            label = None if isinstance(new, str) and new == DROP else as_label(train, new)
            decisions.append(Decision(identifier, _label(train, identifier), label))
        return cls(tuple(decisions), checksum(train), len(train))

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically. Raises ValueError if it would replace a file of something else."""
        with open_atomically(path, PATCH) as file:
            file.write(json.dumps(self.as_dict(), indent=1, ensure_ascii=False).encode())

    @classmethod
    def load(cls, path: str | Path) -> Patch:
        """Read what `save` or a review page wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is anything else, or a patch that was changed since.
        """
        with open_regular(path) as file:
            text = file.read()
        try:
            content = json.loads(text.decode("utf-8-sig"))
            version, train = content["version"], content["train"]
            if content["kind"] != KIND or type(version) is not int or not 1 <= version <= VERSION:
                raise ValueError(f"it is a {content['kind']!r:.40} of version {version!r:.40}")
            if not isinstance(train["checksum"], str) or type(train["examples"]) is not int:
                raise TypeError("it does not say for which training set it is")
            decisions = tuple(_decision(entry) for entry in content["decisions"])
            if len({d.id for d in decisions}) < len(decisions):
                raise ValueError("an id occurs twice")
            patch = cls(decisions, train["checksum"], train["examples"])
            if ("crc32" in content or version >= 3) and content["crc32"] != patch._crc32(version):
                raise ValueError("it does not fit its checksum, so it was changed since it was saved")
        except MALFORMED as error:
            raise ValueError(
                f"{path} is not a complete patch that this version of upweight can read ({error})"
            ) from error
        return patch

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the contents of the file."""
        return {**self._content(VERSION), "crc32": self._crc32(VERSION)}

    def _crc32(self, version: int) -> int:
        """The checksum of the patch in a file of this version."""
        return zlib.crc32(json.dumps(self._content(version), separators=(",", ":")).encode())

    def _content(self, version: int) -> dict[str, Any]:
        entries = [
            {"id": d.id, "old": d.old, **({DROP: True} if d.new is None else {"new": d.new})} for d in self.decisions
        ]
        train = {"checksum": self.checksum, "examples": self.examples}
        return {"kind": KIND, "version": version, "train": train, "decisions": entries}

    def change(self, train: Examples) -> Change:
        """The decisions as a `Change` of this training set.

        Raises:
            ValueError: ids that the set does not have, labels that differ from the old ones of the patch, or a training
                set other than the one that the patch was made for. Nothing is changed then.
        """
        self._require_same(train)
        return Change(
            remove=[d.id for d in self.decisions if d.new is None],
            relabel={d.id: d.new for d in self.decisions if d.new is not None and d.new != d.old},
        )

    def applied(self, train: Examples) -> Examples:
        """The training set with all decisions carried out. Raises ValueError as `change` does."""
        changed, factors = self.change(train).applied(train)
        return changed.take(np.flatnonzero(factors))

    def rebased(self, train: Examples) -> Patch:
        """The same decisions for a training set that has changed elsewhere; ids and old labels must still fit."""
        self._require_ids_and_labels(train)
        return Patch(self.decisions, checksum(train), len(train))

    def _require_same(self, train: Examples) -> None:
        self._require_ids_and_labels(train)
        if self.checksum != checksum(train):
            raise ValueError(
                f"this patch was made for another training set ({self.examples} examples, this one has {len(train)}). "
                "The examples in the patch fit; other examples were added, removed or relabelled, or an older version "
                "of upweight wrote the patch with another checksum. If that is intended, apply patch.rebased(train)"
            )

    def _require_ids_and_labels(self, train: Examples) -> None:
        known = set(train.ids.tolist())
        unknown = [d.id for d in self.decisions if d.id not in known]
        if unknown:
            raise ValueError(
                f"{len(unknown)} of the {len(self.decisions)} ids in the patch are not in the training set, "
                f"e.g. {unknown[0]!r}; ids look like {train.ids[:3].tolist()}. Nothing was changed"
            )
        stale = [d for d in self.decisions if _label(train, d.id) != d.old]
        if stale:
            raise ValueError(
                f"{len(stale)} of {len(self.decisions)} labels have changed since the patch was made, "
                f"e.g. {stale[0].id!r} is {_label(train, stale[0].id)!r}, not {stale[0].old!r}. Nothing was changed"
            )


class Quality(NamedTuple):
    """Performance on an evaluation set: accuracy (None for regression targets) and mean measurement."""

    accuracy: float | None
    measured: float


@dataclass(frozen=True, eq=False)
class Repaired:
    """The patched training set, the model retrained on it, and the quality of both models on the evaluation set."""

    train: Examples
    model: Retrainable
    before: Quality
    after: Quality
    patch: Patch

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        dropped = sum(d.new is None for d in self.patch.decisions)
        return {
            "relabelled": len(self.patch.decisions) - dropped,
            "dropped": dropped,
            "examples": len(self.train),
            "before": self.before._asdict(),
            "after": self.after._asdict(),
        }


def repair(model: Retrainable, train: Examples, patch: Patch, evaluation: Examples, seed: int = 0) -> Repaired:
    """Apply a patch, retrain, and compare both models on an evaluation set.

    Both models are trained here, on the original and on the patched set, so that they differ by nothing but the patch.

    Raises:
        TypeError: a model that cannot be retrained, or whose training would not see the new labels.
        ValueError: a patch that does not fit, or an evaluation set without labels. Nothing is changed then.
    """
    require(model, [Retrainable], "repair", train, evaluation)
    if evaluation.y is None:
        raise ValueError("expected an evaluation set with labels; pass Examples(x, y)")
    change = patch.change(train)
    if change.relabel:
        require_reads_examples(model, "a patch with new labels")
    changed, factors = change.applied(train)
    ready = model.hypothetical() if hasattr(model, "hypothetical") else model
    before = model.retrain(train, np.ones(len(train)), seed)
    after = ready.retrain(changed, factors, seed)
    patched = changed.take(np.flatnonzero(factors))
    return Repaired(patched, after, quality(before, evaluation), quality(after, evaluation), patch)


def quality(model: Measurable, evaluation: Examples) -> Quality:
    """The quality of one model on labelled examples."""
    predictions = model.predict(evaluation)
    accuracy = None
    if predictions.classes:
        labels = [evaluation.label(i) for i in evaluation.ids.tolist()]
        accuracy = float(np.mean([p == label for p, label in zip(predictions.predicted, labels, strict=True)]))
    return Quality(accuracy, float(np.mean(model.measure(evaluation))))


def checksum(train: Examples) -> str:
    """The digest of all ids and labels; it does not depend on their order."""
    if train.y is None:
        raise ValueError("the training set has no labels")
    return digest(dict(zip(train.ids.tolist(), train.y.tolist(), strict=True)))


def _label(train: Examples, identifier: Id) -> Any:
    """The stored label, not its readable name."""
    assert train.y is not None
    return train.y[train.positions([identifier])[0]].item()


def _decision(entry: Mapping[str, Any]) -> Decision:
    identifier, old, new, dropped = entry["id"], entry["old"], entry.get("new"), entry.get(DROP, False)
    if type(dropped) is not bool or dropped == (new is not None):
        raise ValueError(f"expected {identifier!r} to have a new label or to be dropped")
    if type(identifier) not in (int, str, float, bool) or not all(isinstance(v, SCALARS) for v in (old, new)):
        raise TypeError(f"expected an id and labels that are numbers or texts, got {entry!r:.80}")
    return Decision(identifier, old, new)
