"""The examples from which EK-FAC's eigenvalues are estimated: a part of the training set, chosen by contents.

A trained net is sure of most examples, so that a few hold most of the curvature. They are chosen by priority sampling
(Duffield, Lund & Thorup 2007): the priority of an example is its amount of curvature over a random number, the highest
ones are taken, and the others are counted by the weights of those of less curvature than the highest priority that is
left out. On an MLP with a training accuracy of 1, scores from a quarter of the examples have a rank correlation of .99
with those from all, where one from equal chances has .92.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from upweight.curvature.content_keys import Keys, random_numbers
from upweight.curvature.label_expectation import Weighted, expectation_of, hessian_norms
from upweight.curvature.summed_objective import SummedObjective

Array = NDArray[np.float64]
SEED = 2  # 0 and 1 are those of the label directions, which have to be independent of the choice
STEPS_PER_OCTAVE = 64  # curvatures are rounded to 64 steps for each factor of two, as copies differ in the last bits


def eigenvalue_count(summed: SummedObjective) -> int | None:
    """From about how many examples eigenvalues are estimated if nobody says it; None for all.

    Where label directions are added in groups, so that all is an estimate already, a part of the examples suffices.
    """
    if not expectation_of(summed).grouped:
        return None
    return max(summed.limits.eigenvalue_examples, ceil(summed.limits.eigenvalue_share * float(summed.copies.sum())))


def eigenvalue_sample(summed: SummedObjective, most: int | None, norms: Array | None = None) -> Weighted:
    """Some examples, with weights for which their curvature stands for that of all; all if they are at most `most`.

    An example is chosen by its curvature and a random number, which its contents determine. Copies are chosen together,
    and counted as often as they occur: an example of weight k gives the same sample as k copies, and one of weight 0 as
    none, in any order. There are `most` examples, or somewhat more if the last one has copies, or fewer if no others
    have any curvature. `norms`: those of the output Hessians, (n,), if they are known; else a forward pass finds them.
    """
    examples, weights = summed.weighted
    copies = summed.copies
    if most is None or float(copies.sum()) <= most:
        return examples, weights
    curvatures = _curvatures(summed, norms)
    sizes = curvatures * weights / np.where(copies > 0, copies, 1.0)  # of one copy
    if not sizes.any():
        return examples, weights
    priorities = sizes / _uniform(summed.keys)
    order = np.argsort(-priorities, kind="stable")
    last = priorities[order[np.searchsorted(np.cumsum(copies[order]), most)]]
    left_out = priorities[priorities < last].max(initial=0.0)
    chosen = np.flatnonzero((priorities >= last) & (sizes > 0))
    chances = np.minimum(1.0, sizes[chosen] / left_out) if left_out else 1.0
    counted = weights[chosen] / chances
    return examples.take(chosen), counted * ((weights @ curvatures) / (counted @ curvatures[chosen]))


def _curvatures(summed: SummedObjective, norms: Array | None) -> Array:
    """The amount of curvature of every example, (n,); ones if it is not known."""
    norms = hessian_norms(summed) if norms is None else norms
    if norms is None:
        return np.ones(len(summed.train))
    steps = np.round(STEPS_PER_OCTAVE * np.log2(norms, out=np.full(len(norms), -np.inf), where=norms > 0))
    return np.exp2(steps / STEPS_PER_OCTAVE)


def _uniform(keys: Keys) -> Array:
    """A random number in (0, 1] for every key, (n,)."""
    return ((random_numbers(keys, 1, SEED)[:, 0] >> np.uint64(11)).astype(np.float64) + 1.0) / 2.0**53
