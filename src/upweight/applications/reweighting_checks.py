"""What `reweight` refuses before it trains anything, and which weights it learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from upweight.applications.nearest_copies import equal_rows
from upweight.applications.weight_slopes import FreeWeights
from upweight.core.examples import Examples, Id, require_examples
from upweight.core.weights import require_part, weighted_positions

MAX_NAMED = 5  # ids that a message names
FEW_HELD_OUT = 20  # held-out examples, below which a bootstrap gives intervals that are too narrow
FEW_COPIES = 0.05  # largest share of copies that are left out of a set with a warning


def _require_labels(sets: Mapping[str, Examples | None]) -> None:
    """Raise an error for sets that are not Examples, or validation and held-out examples without labels."""
    for name, examples in sets.items():
        if examples is None:
            continue
        require_examples(examples, f"the {name} examples")
        if examples.y is None and name != "unlabelled":
            raise ValueError(f"expected {name} examples with labels, got none")


def kept_apart(sets: Mapping[str, Examples | None]) -> tuple[dict[str, Examples | None], list[str]]:
    """The sets without examples whose inputs are in an earlier set, and warnings that say so.

    Training and unlabelled examples may be the same. Raises ValueError if more than `FEW_COPIES` of a set are copies.
    """
    _require_labels(sets)
    remaining, warnings = dict(sets), []
    for first, second in combinations(sets, 2):
        examples, others = remaining[first], remaining[second]
        if examples is None or others is None or {first, second} == {"training", "unlabelled"}:
            continue
        is_copy = np.array([copy is not None for copy in equal_rows(examples, others, weighted_positions(examples))[0]])
        if not is_copy.any():
            continue
        ids = others.ids[is_copy].tolist()
        named = ", ".join(repr(i) for i in ids[:MAX_NAMED]) + ", …" * (len(ids) > MAX_NAMED)
        if is_copy.mean() > FEW_COPIES:
            raise ValueError(
                f"expected {second} examples that are not among the {first} ones, got {len(ids):,} of {len(others):,} "
                f"that are ({named}): weights would be learned from the answer. Leave them out, "
                f"{second.replace('-', '_')}.without([…])"
            )
        warnings.append(f"{len(ids):,} {second} examples are copies of {first} ones and were left out ({named}).")
        remaining[second] = others.take(~is_copy)
    return remaining, warnings


def few_held_out(held_out: Examples | None) -> list[str]:
    """The warning that there are few held-out examples. Raises ValueError for one, from which no interval follows."""
    if held_out is None or len(held_out) >= FEW_HELD_OUT:
        return []
    if len(held_out) < 2:
        raise ValueError(
            f"expected at least 2 held-out examples, got {len(held_out)}: no interval of the gain follows from it; "
            "pass more, or held_out=None"
        )
    return [f"There are only {len(held_out)} held-out examples: the interval of the gain is too narrow."]


def free_weights(both: Examples, train: Examples, groups: Mapping[str, Sequence[Id]] | None) -> FreeWeights:
    """One weight per group; without groups one per unlabelled example, or one per training example if there is none.

    Examples of weight 0 are absent, and have none. Raises ValueError for groups that are empty, overlap, or hold all.
    """
    part = np.full(len(both), -1, dtype=np.intp)
    if groups is None:
        positions = weighted_positions(both)
        positions = positions if len(both) == len(train) else positions[positions >= len(train)]
        part[positions] = np.arange(len(positions))
        return FreeWeights(part, tuple(both.ids[positions].tolist()))
    if not isinstance(groups, Mapping) or not groups:
        raise TypeError(f"expected groups as {{name: ids}} with at least one group, got {groups!r}")
    for number, (name, ids) in enumerate(groups.items()):
        if isinstance(ids, str):
            raise TypeError(f"expected ids of group {name!r} as a list, got the text {ids!r}")
        positions = np.unique(both.positions(list(ids)))
        require_part(both, name, positions)
        taken = positions[part[positions] >= 0]
        if len(taken):
            raise ValueError(
                f"expected groups without common examples, got {both.ids[taken[0]].item()!r} in "
                f"{list(groups)[part[taken[0]]]!r} and in {name!r}"
            )
        part[positions] = number
    return FreeWeights(part, tuple(groups))
