"""First states of recurrent layers that vmap can follow.

A GRU or RNN without a state starts from zeros that vmap does not batch, and adds to them in place, which fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def batched_states(net: nn.Module) -> Iterator[None]:
    """Inside, every GRU and RNN that is called without a state gets zeros that depend on its input."""
    layers = [module for module in net.modules() if isinstance(module, nn.GRU | nn.RNN)]
    handles = [layer.register_forward_pre_hook(_with_state, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _with_state(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The call with a first state of zeros; None for a call that has a state, or packed sequences."""
    assert isinstance(module, nn.RNNBase)
    if len(args) != 1 or kwargs.get("hx") is not None or not isinstance(args[0], Tensor):
        return None
    inputs = args[0]
    zero = inputs.detach().sum() * 0
    directions = 2 if module.bidirectional else 1
    sizes = [module.num_layers * directions, module.hidden_size]
    if inputs.ndim == 3:
        sizes.insert(1, inputs.shape[0 if module.batch_first else 1])
    return args, {**kwargs, "hx": zero.expand(sizes).contiguous()}
