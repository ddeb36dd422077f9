"""Removals: which training examples are removed together in a retraining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import blocks
from upweight.core.examples import Examples, Id
from upweight.core.scores import Scores
from upweight.core.weights import weighted_positions

REMOVAL_BLOCK = 64  # removals whose membership matrix is held in memory at once
GROUP_SHARES = (0.01, 0.05, 0.1)  # shares of the training set that random groups remove


@dataclass(frozen=True)
class Removal:
    """Training examples that are removed together, under a name."""

    name: str
    kind: Literal["one", "group"]
    ids: tuple[Id, ...]


def named_removals(removals: Mapping[str, Sequence[Id]]) -> list[Removal]:
    """Removals from name → train ids. Raises ValueError if there is none, or one without examples."""
    if not removals:
        raise ValueError("expected at least one removal, e.g. removals=16 or {'children': [17, 42]}")
    return [_removal(str(name), np.asarray(ids).tolist()) for name, ids in removals.items()]


def as_removals(removals: Sequence[Removal] | Mapping[str, Sequence[Id]]) -> list[Removal]:
    """Removals as they are, or from name → train ids. Raises TypeError for anything else, such as a mask."""
    if isinstance(removals, Mapping):
        return named_removals(removals)
    given = list(removals)
    other = next((each for each in given if not isinstance(each, Removal)), None)
    if other is not None:
        raise TypeError(
            f"expected removals of `subsets` or `singles`, or {{name: ids}}, got {type(other).__name__} among them; "
            "for ids pass {'group': ids}"
        )
    return given


def singles(train: Examples, ids: Sequence[Id] | None = None) -> list[Removal]:
    """One removal per training example of weight above 0, or per example of `ids`: the truth of leave-one-out."""
    chosen = train.ids[weighted_positions(train)].tolist() if ids is None else list(ids)
    return [Removal(str(i), "one", (i,)) for i in dict.fromkeys(chosen)]


def subsets(train: Examples, count: int = 100, share: float = 0.5, seed: int = 0) -> list[Removal]:
    """Removals that leave `count` uniform subsets with this share of the examples of weight above 0.

    TRAK and SOURCE use .5, MAGIC .99. The smaller the share, the further the truth is from any first-order estimate.
    """
    if count < 1 or not 0 < share < 1:
        raise ValueError(f"expected at least one subset that keeps a share between 0 and 1, got {count} of {share}")
    ids = train.ids[weighted_positions(train)]
    n = len(ids)
    size = n - min(max(round(share * n), 1), n - 1)
    rng = np.random.default_rng(seed)
    removed = [np.sort(rng.choice(n, size, replace=False)) for _ in range(count)]
    return [_removal(f"subset {i + 1}", ids[positions].tolist()) for i, positions in enumerate(removed)]


def default_removals(scores: Scores, train: Examples, count: int, seed: int) -> list[Removal]:
    """Half removals of single examples, half random groups of several sizes.

    The single examples are those with the strongest scores: the strongest of every query, then the second strongest of
    every query, and so on.
    """
    if count < 1:
        raise ValueError(f"expected at least one removal, got {count}")
    if not set(scores.train_ids.tolist()) <= set(train.ids.tolist()):
        raise ValueError("the columns of the scores are not train ids; pass removals={name: ids} for scores of groups")
    weighted_ids = set(train.ids[weighted_positions(train)].tolist())
    has_weight = np.array([i in weighted_ids for i in scores.train_ids.tolist()])
    single_count = min((count + 1) // 2, len(weighted_ids) - 1)
    by_strength = np.argsort(-np.abs(scores.values[:, has_weight]), axis=1, kind="stable")
    columns = by_strength.T.ravel()[: 50 * single_count * len(by_strength)]
    candidates = list(dict.fromkeys(scores.train_ids[has_weight][columns].tolist()))
    chosen = singles(train, candidates[:single_count])
    return chosen + random_groups(train, count - len(chosen), seed)


def random_groups(train: Examples, count: int, seed: int) -> list[Removal]:
    """Random groups of examples of weight above 0; sizes alternate between 1, 5 and 10 % of the training set."""
    rng, ids = np.random.default_rng(seed), train.ids[weighted_positions(train)]
    groups = []
    for number in range(count):
        share = GROUP_SHARES[number % len(GROUP_SHARES)]
        size = min(max(2, round(share * len(ids))), len(ids) - 1)
        positions = np.sort(rng.choice(len(ids), size, replace=False))
        groups.append(Removal(f"random {size} ({number + 1})", "group", tuple(ids[positions].tolist())))
    return groups


def columns_of(scores: Scores, groups: Sequence[tuple[Id, ...]]) -> list[NDArray[np.intp]]:
    """For every removal of these examples, the columns whose sum predicts it. ValueError for one without a score."""
    column_of = _column_of(scores)
    return [_columns(column_of, ids, None) for ids in groups]


def predicted_effects(scores: Scores, removals: Sequence[Removal]) -> NDArray[np.float64]:
    """Σ of scores over every removal's examples, shape (queries, removals); NaN if one of these scores is NaN."""
    column_of = _column_of(scores)
    is_nan = np.isnan(scores.values)
    values = np.where(is_nan, 0.0, scores.values) if is_nan.any() else scores.values
    sums = np.empty((len(scores.values), len(removals)))
    for block in blocks(len(removals), REMOVAL_BLOCK):
        membership = np.zeros((len(column_of), block.stop - block.start))
        for row, removal in zip(membership.T, removals[block], strict=True):
            row[_columns(column_of, removal.ids, removal.name)] = 1.0
        sums[:, block] = values @ membership
        if is_nan.any():
            sums[:, block][is_nan.astype(np.float64) @ membership > 0] = np.nan
    return sums


def _column_of(scores: Scores) -> dict[Any, int]:
    """Train id → column of the scores."""
    return {identifier: column for column, identifier in enumerate(scores.train_ids.tolist())}


def _columns(column_of: Mapping[Any, int], ids: tuple[Id, ...], name: str | None) -> NDArray[np.intp]:
    missing = next((i for i in ids if i not in column_of), None)
    if missing is None:
        return np.array([column_of[i] for i in dict.fromkeys(ids)], dtype=np.intp)
    if name not in column_of:
        raise ValueError(f"expected a score for every removed example, got none for {missing!r}")
    return np.array([column_of[name]], dtype=np.intp)


def _removal(name: str, ids: Sequence[Id]) -> Removal:
    unique = tuple(dict.fromkeys(ids))
    if not unique:
        raise ValueError(f"expected at least one example in removal {name!r}, got none; leave it out or name some")
    return Removal(name, "one" if len(unique) == 1 else "group", unique)
