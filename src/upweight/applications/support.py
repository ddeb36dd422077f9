"""The support of predictions: which training examples speak for each, from which groups, and how near they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.audit_results import UNKNOWN, GroupColumn
from upweight.applications.example_kernels import finite_features
from upweight.applications.explain import Explanation
from upweight.applications.nearest_copies import MAX_DISTANCES, FeatureSpace
from upweight.applications.supported_labels import train_labels
from upweight.core.blocks import blocks
from upweight.core.capability_checks import can
from upweight.core.examples import Examples
from upweight.core.input_kinds import as_array, is_sparse
from upweight.core.model import Embeddable, Retrainable
from upweight.core.replayable import Replayable
from upweight.core.tree_based import TreeBased
from upweight.core.weights import weighted_positions

Array = NDArray[np.float64]
Positions = NDArray[np.intp]
# Of the median root of self-influence; smaller roots, of examples that hardly count, are taken as this.
SMALLEST_SCALE = 1e-3


@dataclass(frozen=True, eq=False)
class Ground:
    """What supports are computed from.

    Attributes:
        present: positions of the training examples with a weight above 0.
        codes: label → its number; empty if labels are not classes.
        strata: the number of the label of every training example, all 0 if labels are not classes; −1 for weight 0.
        score_scales: what scores are divided by to order the proponents, (n,).
        space: distances between features; None without features.
        columns: groups.
        k: how many of the strongest proponents to list.
    """

    present: Positions
    codes: Mapping[Any, int]
    strata: Positions
    score_scales: Array
    space: FeatureSpace | None
    columns: Sequence[GroupColumn]
    k: int

    def stratum_of(self, label: Any) -> int | None:
        """The number of a label, one that no training example has if it is a new one; None without labels."""
        return self.codes.get(label, len(self.codes)) if self.codes and label is not None else None


@dataclass(frozen=True, eq=False)
class Support:
    """The training examples that speak for one prediction.

    Attributes:
        label: the label that is supported; None if the scores are of no label.
        own_groups: the prediction's own group in each column; −1 if it is not known.
        strongest: positions of its strongest proponents, in order, (at most k,).
        strengths: their scores for it, above 0.
        shares: the share of the positive support from the supported label and from the prediction's own groups.
        effective, inverse_simpson: effective numbers of proponents.
        ranks: of the strongest proponents by distance, as shares of the training examples of their labels; None
            without features.
    """

    label: Any
    own_groups: tuple[int, ...]
    strongest: Positions
    strengths: Array
    shares: Mapping[str, float | None]
    effective: float
    inverse_simpson: float
    ranks: Array | None

    @property
    def mean_rank(self) -> float | None:
        """The mean of `ranks`; None without features or proponents."""
        return None if self.ranks is None or not len(self.ranks) else float(self.ranks.mean())


def ground_of(
    explained: Explanation, columns: Sequence[GroupColumn], k: int, relative: bool | None
) -> tuple[Ground, list[str]]:
    """(what supports are computed from, warnings)."""
    present, names = weighted_positions(explained.train), train_labels(explained)
    codes = {label: code for code, label in enumerate(dict.fromkeys([] if names is None else names.tolist()))}
    strata = np.full(len(explained.train), UNKNOWN, dtype=np.intp)
    strata[present] = 0 if names is None else [codes[label] for label in names[present].tolist()]
    score_scales, warnings = score_scales_of(explained, relative)
    space, space_warnings = _space(explained, present)
    return Ground(present, codes, strata, score_scales, space, columns, k), [*warnings, *space_warnings]


def supports_of(
    ground: Ground, values: Array, labels: Sequence[Any] | None, own_groups: Positions, rows: Any
) -> list[Support]:
    """The support of every prediction.

    Args:
        ground: of the training set.
        values: how much each training example supports each prediction, (m, n).
        labels: the label that is supported, of each prediction; None if the scores are of no label.
        own_groups: the group of each prediction in each column, (columns, m).
        rows: the features of each prediction, as in `ground.space`; None without features.
    """
    size = len(values) if ground.space is None else max(1, MAX_DISTANCES // len(ground.present))
    supports: list[Support] = []
    for block in blocks(len(values), size):
        squares = None if ground.space is None else ground.space.distances(rows[block])
        for place, query in enumerate(range(block.start, block.stop)):
            label = None if labels is None else labels[query]
            near = None if squares is None else squares[place]
            supports.append(_support(ground, values[query], label, tuple(own_groups[:, query].tolist()), near))
    return supports


def _support(ground: Ground, values: Array, label: Any, own_groups: tuple[int, ...], squares: Array | None) -> Support:
    weights = np.maximum(values, 0.0)
    strongest = _first(weights / ground.score_scales, ground.present, ground.k)
    strongest = strongest[weights[strongest] > 0]
    shares = weights / (weights.sum() or 1.0)
    positive = shares[shares > 0]
    stratum = ground.stratum_of(label)
    of_label = None if stratum is None else float(shares[ground.strata == stratum].sum())
    by_column = {
        column.column: None if group == UNKNOWN else float(shares[column.train == group].sum())
        for column, group in zip(ground.columns, own_groups, strict=True)
    }
    return Support(
        label=label,
        own_groups=own_groups,
        strongest=strongest,
        strengths=weights[strongest],
        shares={"label": of_label, **by_column},
        effective=float(np.exp(-(positive * np.log(positive)).sum())) if len(positive) else 0.0,
        inverse_simpson=float(1.0 / (positive**2).sum()) if len(positive) else 0.0,
        ranks=None if squares is None else _ranks(squares, strongest, ground),
    )


def _first(values: Array, present: Positions, k: int) -> Positions:
    """The positions of the k largest values among those present, largest first; of equal values the first."""
    ordered = -values[present]
    if k < len(ordered):
        candidates = np.flatnonzero(ordered <= np.partition(ordered, k - 1)[k - 1])
        present, ordered = present[candidates], ordered[candidates]
    return present[np.argsort(ordered, kind="stable")[:k]]


def score_scales_of(explained: Explanation, relative: bool | None) -> tuple[Array, list[str]]:
    """(what scores are divided by to order the proponents, (n,); warnings): the roots of the self-influences.

    Without it, the same few examples of large gradients are the strongest proponents of all predictions (Barshan,
    Brunet & Dziugaite 2020). Ones if not `relative`, which is decided by the cost if it is None.
    """
    fitted, ones = explained.fitted, np.ones(len(explained.train))
    if relative is False:
        return ones, []
    if fitted is None:
        return ones, ["Proponents are ordered by their scores alone: the fitted method is not known."]
    if relative is None and {Retrainable, Replayable} & set(type(fitted.recipe).needs):
        method = type(fitted.recipe).__name__
        return ones, [
            f"Proponents are ordered by their scores alone, because self-influences by {method} take many trainings; "
            "pass relative=True to compute them."
        ]
    roots = np.sqrt(np.abs(np.nan_to_num(fitted.self_influence().values[0])))
    positive = roots[roots > 0]
    return (np.maximum(roots, SMALLEST_SCALE * np.median(positive)), []) if len(positive) else (ones, [])


def _space(explained: Explanation, present: Positions) -> tuple[FeatureSpace | None, list[str]]:
    """The features of the model's last step; for trees and without features the inputs, if they are numbers."""
    train, queries = explained.train, explained.queries
    model = None if explained.fitted is None else explained.fitted.original_model
    has_features = model is not None and can(model, Embeddable)
    inputs = None if has_features and not isinstance(model, TreeBased) else _numbers(train, queries, present)
    if inputs is not None:
        return FeatureSpace(*inputs, present), []
    if has_features:
        assert isinstance(model, Embeddable)
        return FeatureSpace(finite_features(model, train), finite_features(model, queries), present), []
    return None, ["Distances are not compared: neither the model nor its inputs give finite numbers for them."]


def _numbers(train: Examples, queries: Examples, present: Positions) -> tuple[Any, Any] | None:
    """The inputs as numbers, in units of the standard deviations of columns; None if they are not finite numbers."""
    if is_sparse(train.x) and is_sparse(queries.x):
        return train.x.tocsr(), queries.x.tocsr()
    if any(isinstance(examples.x, list | tuple) or is_sparse(examples.x) for examples in (train, queries)):
        return None
    arrays = [as_array(examples.x) for examples in (train, queries)]
    if any(array.dtype.kind not in "iufb" or not np.isfinite(array).all() for array in arrays):
        return None
    of_train, of_queries = (array.reshape(len(array), -1).astype(np.float64) for array in arrays)
    scale = of_train[present].std(axis=0)
    scale[scale == 0] = 1.0
    return of_train / scale, of_queries / scale


def _ranks(squares: Array, strongest: Positions, ground: Ground) -> Array:
    """The mid-rank by distance of every proponent among the training examples of its label, as a share."""
    strata, place = ground.strata[ground.present], np.searchsorted(ground.present, strongest)
    ranks = np.empty(len(strongest))
    for stratum in np.unique(strata[place]):
        inside, chosen = squares[strata == stratum], strata[place] == stratum
        values = squares[place[chosen]].tolist()
        nearer = [np.count_nonzero(inside < value) + np.count_nonzero(inside <= value) for value in values]
        ranks[chosen] = np.array(nearer) / 2 / len(inside)
    return ranks
