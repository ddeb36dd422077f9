"""The attention weights of a transformer, recorded while its net is called."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from upweight.gradients.net_call import NetCall


def attention_weights(call: NetCall, layer: int) -> Tensor:
    """The attention that each position receives, averaged over heads and over the positions that attend, (n, T).

    Layers are `nn.MultiheadAttention` modules in the order in which they are called, or what a model of the
    transformers library returns for `output_attentions=True`.

    Raises:
        TypeError: the net has no such attention.
        ValueError: a layer that does not exist, or attention whose positions are not those of the input.
    """
    weights = _of_modules(call) or _of_outputs(call)
    if not weights:
        raise TypeError(
            "expected a net with nn.MultiheadAttention modules, or a model of the transformers library with "
            "attn_implementation='eager', got one that returns no attention weights"
        )
    if not -len(weights) <= layer < len(weights):
        raise ValueError(f"expected a layer from 0 to {len(weights) - 1} (or −1 for the last), got {layer}")
    chosen = weights[layer]
    length = call.x.shape[1] if call.x.ndim > 1 else 0
    if chosen.shape[-1] != length:
        raise ValueError(
            f"attention layer {layer} attends to {chosen.shape[-1]} positions, and the input has {length}; its "
            "weights cannot be shown on the input"
        )
    return chosen.mean(dim=(1, 2))


def _of_modules(call: NetCall) -> list[Tensor]:
    """(n, heads, T, S) of every nn.MultiheadAttention, in the order of the calls."""
    recorded: list[Tensor] = []

    def ask(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        names = list(inspect.signature(nn.MultiheadAttention.forward).parameters)[1:]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return (), {**given, "need_weights": True, "average_attn_weights": False}

    def record(module: nn.Module, args: Any, output: Any) -> None:
        recorded.append(output[1])

    modules = [module for module in call.net.modules() if isinstance(module, nn.MultiheadAttention)]
    handles = [module.register_forward_pre_hook(ask, with_kwargs=True) for module in modules]
    handles += [module.register_forward_hook(record) for module in modules]
    try:
        if modules:
            call.net(*call.arguments[0], **call.arguments[1])  # with gradients, so that no fused layer skips a module
    finally:
        for handle in handles:
            handle.remove()
    return recorded


def _of_outputs(call: NetCall) -> list[Tensor]:
    """The attentions that a model of the transformers library returns."""
    if not hasattr(call.net, "config"):
        return []
    with torch.no_grad():
        output = call.net(*call.arguments[0], **{**call.arguments[1], "output_attentions": True})
    return [weights for weights in getattr(output, "attentions", None) or [] if isinstance(weights, Tensor)]
