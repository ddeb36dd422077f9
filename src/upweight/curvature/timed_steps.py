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

TIMED_SECONDS, MAX_CALLS = 0.02, 20  # of the repetitions of one step

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
