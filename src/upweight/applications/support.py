"""The support of predictions: which training examples speak for each, from which groups, and how near they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.example_kernels import finite_features
from upweight.applications.explain import Explanation
from upweight.applications.group_columns import UNKNOWN, GroupColumn
from upweight.applications.nearest_copies import FeatureSpace, NearestExample, equal_rows, lower_tail
from upweight.applications.supported_labels import train_labels
from upweight.core.capability_checks import can
from upweight.core.examples import Examples
from upweight.core.input_kinds import as_array, is_sparse
from upweight.core.model import Embeddable, Replayable, Retrainable
from upweight.core.tree_based import TreeBased
from upweight.core.weights import weighted_positions

Array = NDArray[np.float64]
Positions = NDArray[np.intp]
QUIETEST = 1e-3  # of the median root of self-influence; smaller ones, of examples that hardly count, are taken as this


@dataclass(frozen=True, eq=False)
class Support:
    """The training examples that speak for one prediction.

    Attributes:
        query: its position.
        label: the label that is supported; None if the scores are of no label.
        strongest: positions of its strongest proponents, in order, (at most k,).
        strengths: their scores for it, above 0.
        shares: the share of the positive support from the supported label and from the query's own groups.
        effective, inverse_simpson: effective numbers of proponents.
        ranks: of the strongest proponents by distance, as shares of the training examples of their labels; None
            without features.
        nearest: the nearest training example.
    """

    query: int
    label: Any
    strongest: Positions
    strengths: Array
    shares: Mapping[str, float | None]
    effective: float
    inverse_simpson: float
    ranks: Array | None
    nearest: NearestExample | None

    @property
    def mean_rank(self) -> float | None:
        """The mean of `ranks`; None without features or proponents."""
        return None if self.ranks is None or not len(self.ranks) else float(self.ranks.mean())


def strata_of(explained: Explanation) -> Positions:
    """The label of every training example as a position, all 0 if labels are no classes; −1 for weight 0."""
    labels = train_labels(explained)
    codes = {label: code for code, label in enumerate(dict.fromkeys([] if labels is None else labels.tolist()))}
    strata = np.zeros(len(explained.train), dtype=np.intp)
    if labels is not None:
        strata[:] = [codes[label] for label in labels.tolist()]
    absent = np.ones(len(strata), dtype=bool)
    absent[weighted_positions(explained.train)] = False
    strata[absent] = UNKNOWN
    return strata


def supports_of(
    explained: Explanation,
    labels: Sequence[Any] | None,
    values: Array,
    loudness: Array,
    columns: Sequence[GroupColumn],
    k: int,
) -> tuple[list[Support], list[str]]:
    """(the support of every query, warnings).

    Args:
        labels, values: as from `supported`.
        loudness: what scores are divided by to order the proponents, (n,).
        columns: groups.
        k: how many of the strongest to list.
    """
    present = weighted_positions(explained.train)
    names, strata = train_labels(explained), strata_of(explained)
    space, warnings = _space(explained, present)
    equal, repeated = equal_rows(explained.train, explained.queries, present)
    usual = None if space is None else space.neighbour_distances()
    supports: list[Support] = []
    for block, squares in _blocks(space, len(explained.queries)):
        nearest = _nearest(space, block, squares, usual, equal, repeated)
        for place, query in enumerate(range(block.start, block.stop)):
            weights = np.maximum(values[query], 0.0)
            order = present[np.argsort(-(weights / loudness)[present], kind="stable")[:k]]
            strongest = order[weights[order] > 0]
            label = None if labels is None else labels[query]
            shares = weights / (weights.sum() or 1.0)
            positive = shares[shares > 0]
            supports.append(
                Support(
                    query=query,
                    label=label,
                    strongest=strongest,
                    strengths=weights[strongest],
                    shares=_shares(shares, query, names, label, columns),
                    effective=float(np.exp(-(positive * np.log(positive)).sum())) if len(positive) else 0.0,
                    inverse_simpson=float(1.0 / (positive**2).sum()) if len(positive) else 0.0,
                    ranks=None if squares is None else _ranks(squares[place], strongest, strata, present),
                    nearest=nearest[place],
                )
            )
    return supports, warnings


def loudness_of(explained: Explanation, relative: bool | None) -> tuple[Array, list[str]]:
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
    return (np.maximum(roots, QUIETEST * np.median(positive)), []) if len(positive) else (ones, [])


def _shares(
    shares: Array, query: int, names: NDArray[Any] | None, label: Any, columns: Sequence[GroupColumn]
) -> dict[str, float | None]:
    has_label = label is not None and names is not None
    result: dict[str, float | None] = {"label": float(shares[names == label].sum()) if has_label else None}
    for column in columns:
        group = column.queries[query]
        result[column.column] = None if group == UNKNOWN else float(shares[column.train == group].sum())
    return result


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


def _blocks(space: FeatureSpace | None, count: int) -> Any:
    return [(slice(0, count), None)] if space is None else space.blocks()


def _nearest(
    space: FeatureSpace | None,
    block: slice,
    squares: Array | None,
    usual: Array | None,
    equal: Sequence[int | None],
    repeated: float,
) -> list[NearestExample | None]:
    """The nearest training example of every query of a block; one of equal inputs if there is one."""
    queries = range(block.start, block.stop)
    if space is None or squares is None or usual is None:
        return [None if equal[q] is None else NearestExample(int(equal[q] or 0), True, 0.0, repeated) for q in queries]
    places = squares.argmin(axis=1)
    distances = space.exact(space.queries[block], places)
    tails = lower_tail(distances, usual)
    unit = float(np.median(usual)) or 1.0
    result: list[NearestExample | None] = []
    for place, query in enumerate(queries):
        position = equal[query]
        if position is not None:
            result.append(NearestExample(position, True, 0.0, repeated))
        else:
            nearest, distance = int(space.present[places[place]]), float(distances[place]) / unit
            result.append(NearestExample(nearest, False, distance, float(tails[place])))
    return result


def _ranks(squares: Array, strongest: Positions, strata: Positions, present: Positions) -> Array:
    """The mid-rank by distance of every proponent among the training examples of its label, as a share."""
    strata_present = strata[present]
    place = np.searchsorted(present, strongest)
    ranks = np.empty(len(strongest))
    for stratum in np.unique(strata[strongest]):
        inside = np.sort(squares[strata_present == stratum])
        chosen = strata[strongest] == stratum
        values = squares[place[chosen]]
        low, high = (np.searchsorted(inside, values, side=side) for side in ("left", "right"))
        ranks[chosen] = (low + high) / 2 / len(inside)
    return ranks
