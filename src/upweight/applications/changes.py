"""Changes to a training set. A change is checked as a whole before any of it is applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples, Id
from upweight.core.weights import sample_weights, weighted_positions

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Change:
    """Removals, new labels, new weights and new examples, applied together.

    Args:
        remove: ids of training examples.
        relabel: id → new label, as a value of the training labels or as its readable name.
        reweight: id → factor ≥ 0 on the example's weight; 0 removes, 2 is a second copy.
        add: examples that the training set does not have, with labels and ids of their own.

    Raises:
        ValueError: nothing to change, a factor that is not a finite number ≥ 0, or an id that is changed in two ways.
        TypeError: a text instead of a list of ids.
    """

    remove: Sequence[Id] = ()
    relabel: Mapping[Id, Any] = field(default_factory=dict)
    reweight: Mapping[Id, float] = field(default_factory=dict)
    add: Examples | None = None

    def __post_init__(self) -> None:
        if isinstance(self.remove, str):
            raise TypeError(f"expected ids to remove as a list, got the text {self.remove!r}; pass [{self.remove!r}]")
        removed = tuple(dict.fromkeys(np.asarray(self.remove).tolist()))
        object.__setattr__(self, "remove", removed)
        if not (removed or self.relabel or self.reweight or self.add is not None):
            raise ValueError("expected something to change, e.g. Change(remove=[17]) or Change(relabel={17: 'spam'})")
        ids = [*removed, *self.relabel, *self.reweight]
        repeated = next((i for i in ids if ids.count(i) > 1), None) if len(set(ids)) < len(ids) else None
        if repeated is not None:
            raise ValueError(f"expected one change per example, got several for {repeated!r}")
        bad = {i: f for i, f in self.reweight.items() if not (np.isfinite(f) and f >= 0)}
        if bad:
            raise ValueError(f"expected finite factors ≥ 0 in reweight, got {bad}; 0 leaves an example out")

    @property
    def size(self) -> int:
        """How many examples it changes or adds."""
        return len(self.remove) + len(self.relabel) + len(self.reweight) + (0 if self.add is None else len(self.add))

    def factors(self, train: Examples) -> Array:
        """The factor on each training example's weight, (n,); 0 if removed. Raises KeyError for an unknown id."""
        factors = np.ones(len(train))
        factors[train.positions(list(self.remove))] = 0.0
        factors[train.positions(list(self.reweight))] = list(self.reweight.values())
        if not (factors * sample_weights(train)).any():
            raise ValueError(
                f"removing all {len(weighted_positions(train))} training examples leaves nothing to train on"
            )
        return factors

    def relabelled(self, train: Examples) -> Examples:
        """The examples that get a new label, with that label.

        Raises:
            KeyError: an unknown id.
            ValueError: a label that the training set does not have, or that the example has already.
        """
        positions = train.positions(list(self.relabel))
        examples = train.take(positions)
        labels = [as_label(train, value) for value in self.relabel.values()]
        unchanged = [
            i for i, old, new in zip(examples.ids.tolist(), _labels(examples), labels, strict=True) if old == new
        ]
        if unchanged:
            raise ValueError(
                f"expected a new label for {unchanged[0]!r}, got the label that it already has: "
                f"{train.label(unchanged[0])!r}"
            )
        assert train.y is not None
        y = train.y.copy()
        y[positions] = np.array(labels, dtype=train.y.dtype)
        return with_labels(train, y).take(positions)

    def applied(self, train: Examples) -> tuple[Examples, Array]:
        """The changed set, and the factor on each of its weights (0 if removed). Applies all of it or raises."""
        factors, changed = self.factors(train), train
        if self.relabel:
            relabelled = self.relabelled(train)
            assert train.y is not None and relabelled.y is not None
            y = train.y.copy()
            y[train.positions(relabelled.ids)] = relabelled.y
            changed = with_labels(train, y)
        if self.add is None:
            return changed, factors
        if train.y is not None:
            _require_known_labels(train, self.add)
        return changed.joined(self.add), np.concatenate([factors, np.ones(len(self.add))])


def with_labels(examples: Examples, y: NDArray[Any]) -> Examples:
    """The same examples with other labels."""
    return examples.replaced(y=y)


def as_label(train: Examples, value: Any) -> Any:
    """A label of the training set from its value, its readable name, or either as text.

    If labels are regression targets, any finite number is accepted. Raises ValueError for anything else.
    """
    if train.y is None or train.y.ndim != 1:
        raise ValueError("expected a training set with one label per example to relabel")
    if train.y.dtype.kind == "f" and isinstance(value, int | float | np.number) and np.isfinite(value):
        return float(value)
    classes = np.unique(train.y).tolist()
    for label in classes:
        if value == label and isinstance(value, bool) == isinstance(label, bool):
            return label
    for label in classes:
        if str(value) in (str(label), str(train.labels.get(label, label))):
            return label
    raise ValueError(
        f"expected one of the training labels {[train.labels.get(c, c) for c in classes][:12]}, got {value!r}"
    )


def random_like(change: Change, train: Examples, rng: np.random.Generator) -> Change:
    """A random change of the same kind and size. What it adds are copies of training examples."""
    counts, weighted = (len(change.remove), len(change.relabel), len(change.reweight)), weighted_positions(train)
    drawn = rng.choice(len(weighted), min(sum(counts), len(weighted) - 1), replace=False)
    ids = train.ids[weighted[drawn]].tolist()
    ends = np.cumsum((0, *counts))
    remove, relabel, reweight = (ids[first:last] for first, last in pairwise(ends))
    return Change(
        remove=remove,
        relabel={i: _another_label(train, i, rng) for i in relabel},
        reweight=dict(zip(reweight, change.reweight.values(), strict=False)),
        add=None if change.add is None else _copies(train, weighted[rng.choice(len(weighted), len(change.add))]),
    )


def _another_label(train: Examples, identifier: Id, rng: np.random.Generator) -> Any:
    assert train.y is not None
    others = np.unique(train.y[train.y != train.y[train.positions([identifier])[0]]])
    if len(others) == 0:
        raise ValueError("expected at least two different labels in the training set, got one class")
    return others[rng.integers(len(others))].item()


def _copies(train: Examples, positions: NDArray[np.intp]) -> Examples:
    """The training examples at these positions, which may repeat, under new ids."""
    start = int(train.ids.max()) + 1 if train.ids.dtype.kind in "iu" else 0
    ids: Any = start + np.arange(len(positions))
    if train.ids.dtype.kind not in "iu":
        ids = [f"copy {i} of the training set" for i in ids.tolist()]
    copies = [train.take([position]) for position in positions.tolist()]
    renamed = [copy.replaced(ids=ids[j : j + 1]) for j, copy in enumerate(copies)]
    return reduce(Examples.joined, renamed)


def _labels(examples: Examples) -> list[Any]:
    if examples.y is None:
        raise ValueError("the training set has no labels to change")
    labels: list[Any] = examples.y.tolist()
    return labels


def _require_known_labels(train: Examples, added: Examples) -> None:
    """Raise ValueError if added examples have no labels, or labels that the training set does not have."""
    if added.y is None:
        raise ValueError("expected added examples to have labels; pass Examples(x, y, ids=…)")
    if train.y is not None and train.y.dtype.kind != "f" and not np.isin(added.y, train.y).all():
        unknown = added.y[~np.isin(added.y, train.y)].tolist()[0]
        raise ValueError(f"expected labels of the training set on added examples, got {unknown!r}")
