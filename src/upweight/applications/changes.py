"""Change: what is done to a training set, checked as a whole before any of it is done."""

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
    """Removals, new labels, new weights and new examples, all at once.

    Args:
        remove: ids of training examples.
        relabel: id → new label, as a value of the training labels or as its readable name.
        reweight: id → factor ≥ 0 on the example's weight; 0 removes, 2 is a second copy.
        add: examples that the training set does not have, with labels and ids of their own.

    Raises:
        ValueError: nothing to change, a factor that is no number ≥ 0, or an id that is to be changed in two ways.
    """

    remove: Sequence[Id] = ()
    relabel: Mapping[Id, Any] = field(default_factory=dict)
    reweight: Mapping[Id, float] = field(default_factory=dict)
    add: Examples | None = None

    def __post_init__(self) -> None:
        removed = tuple(dict.fromkeys(np.asarray(self.remove).tolist()))
        object.__setattr__(self, "remove", removed)
        if not (removed or self.relabel or self.reweight or self.add is not None):
            raise ValueError("expected something to change, e.g. Change(remove=[17]) or Change(relabel={17: 'spam'})")
        ids = [*removed, *self.relabel, *self.reweight]
        twice = next((i for i in ids if ids.count(i) > 1), None) if len(set(ids)) < len(ids) else None
        if twice is not None:
            raise ValueError(f"expected one thing to be done to each example, got several for {twice!r}")
        bad = {i: f for i, f in self.reweight.items() if not (np.isfinite(f) and f >= 0)}
        if bad:
            raise ValueError(f"expected factors ≥ 0 as new weights, got {bad}")

    @property
    def size(self) -> int:
        """How many examples it touches."""
        return len(self.remove) + len(self.relabel) + len(self.reweight) + (0 if self.add is None else len(self.add))

    def factors(self, train: Examples) -> Array:
        """What multiplies each training example's weight, (n,): 0 for the removed. Raises KeyError for unknown ids."""
        factors = np.ones(len(train))
        factors[train.positions(list(self.remove))] = 0.0
        factors[train.positions(list(self.reweight))] = list(self.reweight.values())
        if not (factors * sample_weights(train)).any():
            raise ValueError(
                f"removing all {len(weighted_positions(train))} training examples leaves nothing to train on"
            )
        return factors

    def relabelled(self, train: Examples) -> Examples:
        """The examples that get another label, with that label.

        Raises:
            KeyError: an unknown id.
            ValueError: a label the training set does not have, or the one the example has.
        """
        places = train.positions(list(self.relabel))
        some = train.take(places)
        labels = [as_label(train, value) for value in self.relabel.values()]
        same = [i for i, old, new in zip(some.ids.tolist(), _plain(some), labels, strict=True) if old == new]
        if same:
            raise ValueError(f"expected a new label for {same[0]!r}, got the one it has: {train.label(same[0])!r}")
        assert train.y is not None
        y = train.y.copy()
        y[places] = np.array(labels, dtype=train.y.dtype)
        return with_labels(train, y).take(places)

    def applied(self, train: Examples) -> tuple[Examples, Array]:
        """The changed set and the factor on each of its weights (0 for the removed); all of it or an error."""
        factors, changed = self.factors(train), train
        if self.relabel:
            some = self.relabelled(train)
            assert train.y is not None and some.y is not None
            y = train.y.copy()
            y[train.positions(some.ids)] = some.y
            changed = with_labels(train, y)
        if self.add is None:
            return changed, factors
        if train.y is not None:
            _known(train, self.add)
        return changed.joined(self.add), np.concatenate([factors, np.ones(len(self.add))])


def with_labels(examples: Examples, y: NDArray[Any]) -> Examples:
    """The same examples with other labels."""
    return examples.replaced(y=y)


def as_label(train: Examples, value: Any) -> Any:
    """A label of the training set from its value, its readable name, or either as text. Raises ValueError for others.

    Where labels are amounts, any finite number will do.
    """
    if train.y is None or train.y.ndim != 1:
        raise ValueError("expected a training set with one label per example to relabel")
    if train.y.dtype.kind == "f" and isinstance(value, int | float | np.number) and np.isfinite(value):
        return float(value)
    classes = np.unique(train.y).tolist()
    for one in classes:
        if value == one and isinstance(value, bool) == isinstance(one, bool):
            return one
    for one in classes:
        if str(value) in (str(one), str(train.labels.get(one, one))):
            return one
    raise ValueError(
        f"expected one of the training labels {[train.labels.get(c, c) for c in classes][:12]}, got {value!r}"
    )


def random_like(change: Change, train: Examples, rng: np.random.Generator) -> Change:
    """A random change that touches as many examples in the same ways; what it adds are copies of training examples."""
    changed, there = (len(change.remove), len(change.relabel), len(change.reweight)), weighted_positions(train)
    ids = train.ids[there[rng.choice(len(there), min(sum(changed), len(there) - 1), replace=False)]].tolist()
    ends = np.cumsum((0, *changed))
    remove, relabel, reweight = (ids[first:last] for first, last in pairwise(ends))
    return Change(
        remove=remove,
        relabel={i: _another_label(train, i, rng) for i in relabel},
        reweight=dict(zip(reweight, change.reweight.values(), strict=False)),
        add=None if change.add is None else _copies(train, there[rng.choice(len(there), len(change.add))]),
    )


def _another_label(train: Examples, identifier: Id, rng: np.random.Generator) -> Any:
    assert train.y is not None
    others = np.unique(train.y[train.y != train.y[train.positions([identifier])[0]]])
    if len(others) == 0:
        raise ValueError("expected at least two different labels in the training set, got one class")
    return others[rng.integers(len(others))].item()


def _copies(train: Examples, places: NDArray[np.intp]) -> Examples:
    """Training examples under new ids, some perhaps twice."""
    start = int(train.ids.max()) + 1 if train.ids.dtype.kind in "iu" else 0
    ids: Any = start + np.arange(len(places))
    if train.ids.dtype.kind not in "iu":
        ids = [f"copy {i} of the training set" for i in ids.tolist()]
    parts = [train.take([place]) for place in places.tolist()]
    renamed = [part.replaced(ids=ids[j : j + 1]) for j, part in enumerate(parts)]
    return reduce(Examples.joined, renamed)


def _plain(examples: Examples) -> list[Any]:
    if examples.y is None:
        raise ValueError("the training set has no labels to change")
    labels: list[Any] = examples.y.tolist()
    return labels


def _known(train: Examples, added: Examples) -> None:
    """Refuse added examples without labels or with labels that no model of this training set knows."""
    if added.y is None:
        raise ValueError("expected added examples to have labels; pass Examples(x, y, ids=…)")
    if train.y is not None and train.y.dtype.kind != "f" and not np.isin(added.y, train.y).all():
        strange = added.y[~np.isin(added.y, train.y)].tolist()[0]
        raise ValueError(f"expected labels of the training set on added examples, got {strange!r}")
