"""The examples from which EK-FAC's eigenvalues are estimated: a part of the training set, chosen by contents."""

from __future__ import annotations

from math import ceil

import numpy as np

from upweight.curvature.content_keys import content_keys, random_numbers
from upweight.curvature.label_expectation import Weighted, expectation_of
from upweight.curvature.summed_objective import SummedObjective

SEED = 2  # 0 and 1 are those of the label directions, which have to be independent of the choice


def eigenvalue_count(summed: SummedObjective) -> int | None:
    """From about how many examples eigenvalues are estimated if nobody says it; None for all.

    Where label directions are added in groups, so that all is an estimate already, a part of the examples suffices.
    """
    if not expectation_of(summed).grouped:
        return None
    return max(summed.limits.eigenvalue_examples, ceil(summed.limits.eigenvalue_share * float(summed.copies.sum())))


def eigenvalue_sample(summed: SummedObjective, most: int | None) -> Weighted:
    """Some examples, with weights whose sum is that of all; all of them if they are not more than `most`.

    An example is chosen by a random number that its contents determine. Copies are chosen together, and counted as
    often as they occur: an example of weight k gives the same sample as k copies, and one of weight 0 as none, in any
    order. There are `most` examples, or somewhat more if the last one has copies.
    """
    examples, weights = summed.weighted
    copies = summed.copies
    if most is None or float(copies.sum()) <= most:
        return examples, weights
    numbers = random_numbers(content_keys(examples), 1, SEED)[:, 0]
    order = np.argsort(numbers, kind="stable")
    last = order[np.searchsorted(np.cumsum(copies[order]), most)]
    chosen = np.flatnonzero(numbers <= numbers[last])
    return examples.take(chosen), weights[chosen] * (weights.sum() / weights[chosen].sum())
