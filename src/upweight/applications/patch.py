"""patch: decisions about labels as a file, applied to the training set they were made for: all of them or none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from upweight.applications.changes import Change, as_label
from upweight.core.examples import Examples, Id
from upweight.core.files import open_atomically
from upweight.core.identity import digest
from upweight.core.model import Measurable, Retrainable, require, require_reads_examples

KIND = "upweight patch"
VERSION = 2  # since then checksums are digests
DROP = "drop"


class Decision(NamedTuple):
    """One training example: the label it had, and the one it gets; None drops the example."""

    id: Id
    old: Any
    new: Any


@dataclass(frozen=True)
class Patch:
    """Decisions about the labels of one very training set.

    `checksum` is that of all its ids and labels, `examples` their number.
    """

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
        """Write as JSON, atomically."""
        with open_atomically(path) as file:
            file.write(json.dumps(self.as_dict(), indent=1, ensure_ascii=False).encode())

    @classmethod
    def load(cls, path: str | Path) -> Patch:
        """Read what `save` or a review page wrote. Raises ValueError for anything else."""
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            if found["kind"] != KIND or found["version"] > VERSION:
                raise ValueError(f"it is a {found['kind']} of version {found['version']}")
            decisions = tuple(_decision(entry) for entry in found["decisions"])
            if len({d.id for d in decisions}) < len(decisions):
                raise ValueError("an id comes twice")
            return cls(decisions, str(found["train"]["checksum"]), int(found["train"]["examples"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no whole patch of this version of upweight ({error})") from error

    def as_dict(self) -> dict[str, Any]:
        """What is written."""
        entries = [
            {"id": d.id, "old": d.old, **({DROP: True} if d.new is None else {"new": d.new})} for d in self.decisions
        ]
        train = {"checksum": self.checksum, "examples": self.examples}
        return {"kind": KIND, "version": VERSION, "train": train, "decisions": entries}

    def change(self, train: Examples) -> Change:
        """What it does to this training set.

        Raises:
            ValueError: ids that the set does not have, labels that are no longer the old ones, or another set than the
                one it was made for. Nothing is changed then.
        """
        self._require(train)
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
        self._fits(train)
        return Patch(self.decisions, checksum(train), len(train))

    def _require(self, train: Examples) -> None:
        self._fits(train)
        if self.checksum != checksum(train):
            raise ValueError(
                f"this patch was made for another training set ({self.examples} examples, here {len(train)}): the "
                "examples it names fit, others have come, gone or changed their labels (or it was written by an older "
                "version of upweight, with another checksum). If that is as it should be, apply patch.rebased(train)"
            )

    def _fits(self, train: Examples) -> None:
        known = set(train.ids.tolist())
        unknown = [d.id for d in self.decisions if d.id not in known]
        if unknown:
            raise ValueError(
                f"the patch names {len(unknown)} of {len(self.decisions)} ids that the training set does not have, "
                f"e.g. {unknown[0]!r}; ids look like {train.ids[:3].tolist()}. Nothing was changed"
            )
        stale = [d for d in self.decisions if _label(train, d.id) != d.old]
        if stale:
            raise ValueError(
                f"{len(stale)} of {len(self.decisions)} labels are no longer what they were when the patch was made, "
                f"e.g. {stale[0].id!r} is {_label(train, stale[0].id)!r}, not {stale[0].old!r}. Nothing was changed"
            )


class Quality(NamedTuple):
    """How a model does on an evaluation set: share of right predictions (None for amounts), mean measurement."""

    accuracy: float | None
    measured: float


@dataclass(frozen=True, eq=False)
class Repaired:
    """What a patch did: the new training set, the model trained on it, and both models on the evaluation set."""

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
    """Apply a patch, train again, and say what it did to an evaluation set.

    Both models are trained here, on the set as it was and as it is, so that nothing but the patch lies between them.

    Raises:
        TypeError: a model that cannot be trained again, or whose training would not see the new labels.
        ValueError: a patch that does not fit, an evaluation set without labels; nothing has been changed then.
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
    kept = changed.take(np.flatnonzero(factors))
    return Repaired(kept, after, quality(before, evaluation), quality(after, evaluation), patch)


def quality(model: Measurable, evaluation: Examples) -> Quality:
    """Of one model on labelled examples."""
    said = model.predict(evaluation)
    right = None
    if said.classes:
        labels = [evaluation.label(i) for i in evaluation.ids.tolist()]
        right = float(np.mean([p == label for p, label in zip(said.predicted, labels, strict=True)]))
    return Quality(right, float(np.mean(model.measure(evaluation))))


def checksum(train: Examples) -> str:
    """The digest of all ids and labels, whatever their order."""
    if train.y is None:
        raise ValueError("the training set has no labels to decide on")
    return digest(dict(zip(train.ids.tolist(), train.y.tolist(), strict=True)))


def _label(train: Examples, identifier: Id) -> Any:
    """The label as it is stored, not as it is read."""
    assert train.y is not None
    return train.y[train.positions([identifier])[0]].item()


def _decision(entry: Mapping[str, Any]) -> Decision:
    dropped = entry.get(DROP, False)
    if dropped is not True and entry.get("new") is None:
        raise ValueError(f"{entry.get('id')!r} gets no new label and is not dropped")
    return Decision(entry["id"], entry["old"], None if dropped else entry["new"])
