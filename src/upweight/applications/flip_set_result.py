"""`FlipSet`: the smallest set of training examples without which a reader would see something else, in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from upweight.applications.contests import Classes, Contest
from upweight.core.examples import Examples, Id
from upweight.core.tabular import Tabular

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FlipSet(Tabular):
    """The smallest set found whose removal flips what a reader sees.

    Attributes:
        before: what comes first with all examples: a class, the id of a query, or on which side of a number a
            measurement is.
        after: what comes first without `removed`; None if no removal up to `tried` examples flips it.
        removed: ids of the training examples, those that hold most of the lead first.
        shares: of each of them, by the scores: how much of the lead of `before` over `after` it holds.
        names: of the values that were compared, of which the highest comes first.
        values: (V,) with all examples: measurements of the queries or of the classes; a measurement and its threshold;
            |t| and its critical value.
        predicted: (V,) without `removed`, by the sum of influences.
        retrained: (V,) without `removed`, by retraining; None without proof.
        nearest: if nothing flips it, (how many examples were removed, how far the leader was ahead then) of the removal
            that came nearest.
        tried: the number of examples in the largest removal that was tried.
        trainings: how many models were trained.
        is_smallest: whether every smaller set of candidates was retrained too, and none flips it.
        train, candidates, queries: the training set, ids that could be removed, what was measured.
        measurement: in words.
        noun: what a training example is called.
        diagnostics: `warnings`, and the method.
        sentence: the result for a reader.
    """

    _examples: ClassVar = {"id": "train"}
    before: Any
    after: Any
    removed: tuple[Id, ...]
    shares: Array
    names: tuple[Any, ...]
    values: Array
    predicted: Array
    retrained: Array | None
    nearest: tuple[int, float] | None
    tried: int
    trainings: int
    is_smallest: bool
    train: Examples
    candidates: NDArray[Any]
    queries: Examples
    measurement: str
    noun: str
    diagnostics: Mapping[str, Any]
    sentence: str

    @property
    def size(self) -> int | None:
        """How many examples; None if no flip was found."""
        return len(self.removed) or None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `after` and `size` are None if nothing flips it."""
        plain = {
            "before": _plain(self.before),
            "after": _plain(self.after),
            "size": self.size,
            "removed": list(self.removed),
            "shares": self.shares.tolist(),
            "names": [_plain(name) for name in self.names],
            "values": self.values.tolist(),
            "predicted": self.predicted.tolist(),
            "retrained": None if self.retrained is None else self.retrained.tolist(),
        }
        nearest = None if self.nearest is None else {"removed": self.nearest[0], "ahead": self.nearest[1]}
        return {
            **plain,
            "nearest": nearest,
            "tried": self.tried,
            "trainings": self.trainings,
            "is_smallest": self.is_smallest,
            "candidates": len(self.candidates),
            "measurement": self.measurement,
            "sentence": self.sentence,
            "warnings": list(self.diagnostics["warnings"]),
        }

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        shares = zip(self.removed, self.shares.tolist(), strict=True)
        return [{"id": identifier, "share": share} for identifier, share in shares]

    def __repr__(self) -> str:
        size = "none found" if self.size is None else f"{self.size} of {len(self.candidates):,}"
        return f"FlipSet({size}: {self.before} → {self.after}, {self.trainings} trainings)"


def sentence_of(contest: Contest, result: FlipSet, proof: bool) -> str:
    """The result in one sentence, which begins with "By the sum of scores" if nothing was retrained."""
    text = _sentence(contest, result)
    return text if proof else f"By the sum of scores, {text[0].lower()}{text[1:]}"


def _sentence(contest: Contest, result: FlipSet) -> str:
    values = result.predicted if result.retrained is None else result.retrained
    words = {
        "before": _name(contest, result.before),
        "after": None if result.after is None else _name(contest, result.after),
        "was": contest.shown(result.values),
        "now": contest.shown(values),
        "number": contest.number_text,
        "measurement": result.measurement,
        "query": contest.query if isinstance(contest, Classes) else contest.queries.ids[0],
    }
    size, noun = len(result.removed), result.noun
    if size:
        removed = f"this {noun.removesuffix('s')}" if size == 1 else f"these {size:,} {noun}"
        return f"Without {removed} {contest.flipped_text.format(**words)}."
    unchanged = contest.unchanged_text.format(**words)
    if result.nearest is None:
        return (
            f"Whichever of the {len(result.candidates):,} {noun} are removed, {unchanged}: none of them holds the lead."
        )
    count, ahead = result.nearest
    lead = np.sort(result.values)[-1] - np.sort(result.values)[-2]
    now, was = _told_apart(ahead, float(lead))
    return (
        f"With up to {result.tried:,} of {len(result.candidates):,} {noun} removed, {unchanged}. "
        f"Without {count:,} of them, which came nearest, the lead is {now} in place of {was}."
    )


def _told_apart(first: float, second: float) -> tuple[str, str]:
    """Both numbers with four digits, or with as many as tell them apart."""
    texts = [(f"{first:.{digits}g}", f"{second:.{digits}g}") for digits in range(4, 17)]
    return next((pair for pair in texts if pair[0] != pair[1]), texts[0])


def _name(contest: Contest, name: Any) -> str:
    """The name of a value for a reader: the text that is shown of a query, else the name itself."""
    shown, place = contest.queries.shown, contest.names.index(name)
    is_text = shown is not None and len(contest.names) == len(contest.queries) and isinstance(shown[place], str)
    return str(shown[place]) if is_text and shown is not None else str(name)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
