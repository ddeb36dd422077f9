"""Discover groups of training examples that nobody named, without which a slice of queries does better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.conditions import conditions_of
from upweight.applications.discovery import Discovery, UnsupportedRegion
from upweight.applications.group_rounds import GroupDiscovery, GroupRounds
from upweight.applications.nearest_copies import equal_rows
from upweight.applications.query_support import support_of
from upweight.core.attributor import Attributor
from upweight.core.capability_checks import require
from upweight.core.examples import Examples
from upweight.core.model import Measurable
from upweight.core.progress import Progress, no_progress
from upweight.core.weights import weighted_positions
from upweight.methods.registry import first_choice

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
FEW_SUPPORTERS_SHARE = 0.01  # share of training examples that are as far away, up to which a query is unsupported
FEWEST_QUERIES = 20
FEW_COPIES = 0.05  # largest share of queries with the inputs of training examples that has no warning


def discover(
    model: Measurable,
    train: Examples,
    queries: Examples,
    recipe: Attributor | None = None,
    *,
    columns: Mapping[str, Any] | None = None,
    search: GroupDiscovery | None = None,
    progress: Progress | None = None,
) -> Discovery:
    """Find groups of training examples, described in words, without which the queries do better.

    Half of the queries are searched: over conjunctions of up to three conditions (values of columns, words, pixels,
    clusters by features), `discover` searches for the group without which the queries gain most and its own members
    lose most, by Newton steps, if the method has them, or by sums of scores of what the queries gain. The model is
    retrained without the group, and the queries that were not searched have to do better. The next group is searched
    for without it. Queries to which few training examples are near are listed too.

    Args:
        model: a model that measures higher for better, such as the default −loss.
        train: the training set.
        queries: the whole slice in question, not only its errors: the neighbours of errors alone look guilty.
        recipe: the attribution method; None for the one that suits the model.
        columns: name → one value per training example, for what the model does not see, such as the source of an
            example.
        search: how many groups, how large, and how sure; None for `GroupDiscovery()`.
        progress: called with the stage "search".

    Raises:
        ValueError: fewer than 20 queries, queries without labels for a measurement that needs them, columns of another
            length, or nothing to describe examples by.
    """
    require(model, [Measurable], "discover", train, queries)
    search = GroupDiscovery() if search is None else search
    if len(queries) < FEWEST_QUERIES:
        raise ValueError(
            f"expected at least {FEWEST_QUERIES} queries, half of which are searched and half confirm, got "
            f"{len(queries)}; explain single queries with uw.explain"
        )
    report = no_progress if progress is None else progress
    recipe = first_choice(model, train) if recipe is None else recipe
    state = GroupRounds.start(model, train, queries, recipe, columns or {}, search)
    report("search", 0, search.most)
    while len(state.groups) < search.most and state.next_group():
        report("search", len(state.groups), search.most)
    report("search", search.most, search.most)
    support = support_of(model, train, queries)
    warnings = [*_warnings_of_copies(train, queries), *state.warnings()]
    return Discovery(
        groups=tuple(state.groups),
        rejected=tuple(state.rejected),
        unsupported=None if support is None else _unsupported(model, queries, support.share, search.seed),
        outlier_factor=None if support is None else support.factor,
        before=float(model.measure(state.confirming).mean()),
        after=float(state.model.measure(state.confirming).mean()),
        searched=tuple(state.searched.ids.tolist()),
        confirming=tuple(state.confirming.ids.tolist()),
        unit=state.unit,
        trainings=state.trainings,
        measurement=model.measurement,
        model=state.model,
        train=train,
        queries=queries,
        diagnostics={"warnings": warnings, "notes": list(model.notes), "method": recipe.described()},
    )


def _warnings_of_copies(train: Examples, queries: Examples) -> list[str]:
    """A warning if the model was trained on more than a few of the queries."""
    is_copy = np.array([copy is not None for copy in equal_rows(train, queries, weighted_positions(train))[0]])
    if is_copy.mean() <= FEW_COPIES:
        return []
    return [
        f"{is_copy.sum():,} of {len(queries):,} queries have the inputs of training examples, such as "
        f"{queries.ids[is_copy][0]!r}: the model was trained on them, so that a group with their copies looks helpful, "
        "whatever it does to others. Ask about queries that the model has not seen."
    ]


def _unsupported(model: Measurable, queries: Examples, share: Array, seed: int) -> UnsupportedRegion | None:
    """The queries that are farther away than nearly all training examples, if there are more than chance gives."""
    from scipy.stats import binom

    far, expected = share <= FEW_SUPPORTERS_SHARE, FEW_SUPPORTERS_SHARE * len(queries)
    p = float(binom.sf(int(far.sum()) - 1, len(queries), FEW_SUPPORTERS_SHARE))
    if p > FEW_SUPPORTERS_SHARE:
        return None
    conditions = conditions_of(model, queries, {}, seed)
    common = (conditions.fulfilled & far).sum(axis=1) / np.maximum((conditions.fulfilled | far).sum(axis=1), 1)
    best = int(common.argmax())
    return UnsupportedRegion(
        tuple(queries.ids[far].tolist()), conditions.names[best] if common[best] >= 0.5 else "", expected, p
    )
