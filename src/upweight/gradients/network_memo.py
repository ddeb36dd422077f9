"""Values computed once per network and kept beside it, because a `Network` itself never changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from upweight.gradients.network import Network

T = TypeVar("T")


class NetworkMemo(Generic[T]):
    """One value per network, kept for as long as the network lives.

    A value must not refer to its network, which would then never be freed.
    """

    def __init__(self) -> None:
        self._values: WeakKeyDictionary[Network, T] = WeakKeyDictionary()

    def get(self, network: Network) -> T | None:
        """The value of this network, if it has one."""
        return self._values.get(network)

    def get_or_make(self, network: Network, make: Callable[[], T]) -> T:
        """The value of this network, which `make` computes the first time."""
        if network not in self._values:
            self._values[network] = make()
        return self._values[network]

    def share(self, source: Network, target: Network) -> None:
        """Give `target` the value of `source` (the same object), if `source` has one."""
        if source in self._values:
            self._values[target] = self._values[source]
