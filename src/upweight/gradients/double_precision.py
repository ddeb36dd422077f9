"""Networks in double precision, where single precision would leave only the rounding of a gradient.

The gradient of a cross-entropy at the outputs is softmax − label. In float32, 1 − p of an example that the net fits
with p > 1 − 1e−5 has lost its digits: its norm is small and does no harm, but its direction is wrong.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import torch

from upweight.core.examples import Examples
from upweight.gradients.copied_net import copy_net
from upweight.gradients.network import Network, Quantity

MAX_DOUBLED_NUMBERS = 1 << 24  # of parameters, frozen ones included: 128 MB in float64
_doubled: WeakKeyDictionary[Network, tuple[int, Network]] = WeakKeyDictionary()


def in_double_precision(network: Network) -> Network:
    """The same network on a copy of the net in float64. Raises TypeError if the net cannot be copied."""
    net = copy_net(network.net).double()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in network.names)
    return Network(net, network.loss, network.measure, network.collate)


def doubled_if_possible(network: Network, quantity: Quantity, examples: Examples) -> Network:
    """The network in float64 if it can be, for gradients that are divided by their norms, and for small differences.

    It stays as it is if it has more than `MAX_DOUBLED_NUMBERS`, cannot be copied, or does not compute in float64.
    """
    numbers = sum(parameter.numel() for parameter in network.net.parameters())
    if network.dtype == torch.float64 or numbers > MAX_DOUBLED_NUMBERS or len(examples) == 0:
        return network
    version, doubled = _doubled.get(network, (None, network))
    if version == network.version:
        return doubled
    try:
        doubled = in_double_precision(network)
        first = examples.take(np.arange(1))
        with doubled.preserved():
            doubled.values(quantity, doubled.batch(first), first.ids)
    except (TypeError, RuntimeError):
        doubled = network
    if doubled is not network:
        _doubled[network] = network.version, doubled
    return doubled
