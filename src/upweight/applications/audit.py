"""The support audit: whether predictions are supported by training examples that have to do with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.audit_results import Audit, AuditedPrediction, GroupColumn, SupportCheck
from upweight.applications.explain import Explanation
from upweight.applications.group_columns import group_columns
from upweight.applications.nearest_copies import NearestExample, nearest_examples
from upweight.applications.support import Support, ground_of, supports_of
from upweight.applications.support_checks import checks_of, typical_support
from upweight.applications.support_reference import reference_of
from upweight.applications.supported_labels import supported
from upweight.core.blocks import require_count
from upweight.core.capability_checks import can
from upweight.core.model import Retrainable
from upweight.core.replayable import Replayable
from upweight.core.scores import Attribution
from upweight.core.tree_based import TreeBased

Array = NDArray[np.float64]


def audit(
    explained: Explanation,
    by: Mapping[str, Any] | Sequence[str] | str = (),
    *,
    query_groups: Mapping[str, Any] | None = None,
    k: int = 20,
    level: float = 0.01,
    relative: bool | None = None,
    reference: int = 1000,
) -> Audit:
    """Test for every prediction whether the training examples that support it have to do with it.

    The k strongest proponents of each prediction are compared with as many random training examples of the same labels:
    are they of another group than the query, of other labels, farther from the query? Is a training example a copy of
    the query? Each check is a test; a prediction is flagged if one of them is significant at `level` divided by their
    number. Tests are also compared with the other predictions of the same class, so that what is usual for all of
    them is not flagged.

    Args:
        explained: what `explain` returned: any method, any number of queries. The more queries, the better is known
            what is usual.
        by: names of columns of the examples, or name → groups of the training examples (one value per example, or
            id → group). Without it, no groups are compared.
        query_groups: name → the groups of the queries, in the same forms, for groups that are not columns of them.
        k: how many of the strongest proponents to compare with chance.
        level: the share of honest predictions that may be flagged.
        relative: order proponents by score / √self-influence, so that examples that are strong in every prediction do
            not hide those that matter for this one. The cost is that of the method's self-influences. None for yes,
            unless the method retrains or replays the training; False orders by scores.
        reference: how many training examples, drawn at random, have their own support computed, which shows what is
            usual for a single query too; 0 for none. Methods that retrain have none.

    Raises:
        ValueError: k below 1, a negative reference, a level outside of (0, 1), a column of another length.
        KeyError: an unknown column, or an id without a group.
        TypeError: anything but an explanation.
    """
    if not isinstance(explained, Explanation):
        raise TypeError(f"expected what uw.explain(model, train, queries) returned, got {type(explained).__name__}")
    require_count("k", k)
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, got {level}")
    require_count("reference", reference, least=0)
    columns = group_columns(explained.train, explained.queries, by, query_groups or {})
    labels, values, warnings = supported(explained)
    ground, ground_warnings = ground_of(explained, columns, k, relative)
    own_groups = np.array([column.queries for column in columns], dtype=np.intp).reshape(-1, len(explained.queries))
    supports = supports_of(ground, values, labels, own_groups, None if ground.space is None else ground.space.queries)
    usual, reference_warnings = reference_of(explained, ground, reference)
    nearest = nearest_examples(ground.space, explained.train, explained.queries)
    checks = checks_of(ground, supports, nearest, usual, explained.train, level)
    audited = [_audited(explained, i, supports[i], nearest[i], checks[i], level) for i in range(len(supports))]
    order = sorted(range(len(audited)), key=lambda i: (not audited[i].flagged, audited[i].p, i))
    return Audit(
        predictions=tuple(audited[i] for i in order),
        train=explained.train,
        queries=explained.queries,
        columns=tuple(columns),
        measurement=explained.scores.measurement,
        k=k,
        level=level,
        diagnostics={
            "warnings": [*warnings, *ground_warnings, *reference_warnings, *_unknown_groups(columns)],
            "notes": typical_support(checks),
        },
    )


def is_quick(explained: Explanation) -> bool:
    """Whether an audit takes about as long as the explanation: not of networks, nor by methods that retrain."""
    fitted = explained.fitted
    if fitted is None or {Retrainable, Replayable} & set(type(fitted.recipe).needs):
        return False
    model = fitted.original_model
    return isinstance(model, TreeBased) or (can(model, Retrainable) and model.converges)


def _audited(
    explained: Explanation,
    query: int,
    support: Support,
    nearest: NearestExample | None,
    checks: Sequence[SupportCheck],
    level: float,
) -> AuditedPrediction:
    identifier, ids = explained.queries.ids[query].item(), explained.train.ids
    predictions = explained.scores.predictions
    ordered = tuple(sorted(checks, key=lambda check: check.tail))
    p = min(1.0, len(ordered) * ordered[0].tail) if ordered else 1.0
    return AuditedPrediction(
        id=identifier,
        label=explained.queries.label(identifier),
        predicted=None if predictions is None else predictions.predicted[query],
        supported=support.label,
        proponents=tuple(
            Attribution(ids[i].item(), value)
            for i, value in zip(support.strongest.tolist(), support.strengths.tolist(), strict=True)
        ),
        shares=support.shares,
        effective=support.effective,
        inverse_simpson=support.inverse_simpson,
        distance=support.mean_rank,
        nearest=nearest,
        nearest_id=None if nearest is None else ids[nearest.position].item(),
        checks=ordered,
        p=p,
        flagged=p <= level,
    )


def _unknown_groups(columns: Sequence[GroupColumn]) -> list[str]:
    return [
        f"The groups of the queries by {column.column} are not known, so support by their own group is not "
        "distinguished from support by another; pass query_groups=."
        for column in columns
        if not column.knows_queries
    ]
