"""Copies of the user's net."""

from __future__ import annotations

import copy

from torch import nn

from upweight.core.library_calls import with_gradients


@with_gradients()
def copy_net(net: nn.Module, with_hooks: bool = True) -> nn.Module:
    """A copy of a net with the hooks of its modules and, if `with_hooks`, those on gradients of its parameters.

    Raises TypeError if the net holds tensors with a graph.
    """
    try:
        copied = copy.deepcopy(net)
    except RuntimeError as error:
        raise TypeError(
            f"the net cannot be copied ({error}); detach the tensors with a graph among its attributes"
        ) from error
    if with_hooks:
        for parameter, own in zip(net.parameters(), copied.parameters(), strict=True):
            hooks = (parameter._backward_hooks or {}) if own.requires_grad else {}  # which a copy of a tensor lacks
            for hook in hooks.values():
                own.register_hook(hook)  # type: ignore[no-untyped-call]
    return copied
