"""Seconds of single steps of a network, measured once for the network and its training set."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch

from upweight.core.examples import Examples
from upweight.gradients.network import Network
from upweight.gradients.network_memo import NetworkMemo

TIMED_SECONDS, MAX_CALLS = 0.008, 20  # of the repetitions of one step
SMALL_BATCHES = 8  # in a large one: an overhead shows beside it
SLOW_BATCHES, SLOW_SECONDS = 3, 0.05  # in one that would take longer than this

Rates = dict[str, float]  # name → what was measured
_RATES: NetworkMemo[WeakKeyDictionary[Examples, Rates]] = NetworkMemo()


class Rated(Protocol):
    """What has rates."""

    rates: Rates


def rates_of(network: Network, train: Examples) -> Rates:
    """What was measured so far of this network on these examples."""
    return _RATES.get_or_make(network, WeakKeyDictionary).setdefault(train, {})


def measured(measure: Callable[[Any], float]) -> Any:
    """Decorate a property that is measured once: the forecast of answers takes what that of the fit measured."""

    @wraps(measure)
    def known(rated: Rated) -> float:
        name = measure.__name__
        if name not in rated.rates:
            rated.rates[name] = measure(rated)
        return rated.rates[name]

    return property(known)


def least_seconds(
    work: Callable[[], Any], clock: Callable[[], float], device: torch.device, is_warm: bool = False
) -> float:
    """Seconds of a call: the least of a few, which other processes disturb least.

    The first one, which may load and compile, counts if it `is_warm`.
    """
    seconds, first = list[float](), 0 if is_warm else 1
    while len(seconds) <= first or (len(seconds) < MAX_CALLS and sum(seconds[first:]) < TIMED_SECONDS):
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(clock() - start)
    return min(seconds[first:])


def seconds_per_example(
    work: Callable[[int], Any],
    timed: Callable[[Callable[[], Any], bool], float],
    counts: tuple[int, int, int],
    is_warm: bool,
) -> float:
    """Seconds of an example in large batches, from two small ones: an overhead, and a part that grows.

    Args:
        work: a batch of so many examples.
        timed: seconds of a call, which may be warm.
        counts: examples that the larger of both batches has at least, and at most; and those of the large batches.
        is_warm: whether a first call takes no longer than others.
    """
    least, count, batch = counts
    few = max(1, count // SMALL_BATCHES)
    small = timed(lambda: work(few), is_warm)
    if few == count:
        return small / count
    if small > SLOW_SECONDS * few / count:
        count = min(count, max(least, SLOW_BATCHES * few))
    large = timed(lambda: work(count), True)
    growth = max((large - small) / (count - few), 0.25 * large / count)
    return growth + max(large - growth * count, 0.0) / max(batch, count)
