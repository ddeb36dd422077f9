"""The call of a net inside its loss, and one output of the net as a function of one of its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from upweight.core.examples import Examples
from upweight.gradients.batches import map_tensors
from upweight.gradients.network import Network, Quantity
from upweight.gradients.preserve_model import without_graph


@dataclass(frozen=True, eq=False)
class NetCall:
    """The arguments with which the loss calls the net on some examples.

    Attributes:
        net: the net.
        arguments: (args, kwargs).
        count: the number of examples.
        x: the `x` of the batch, or the first tensor with one entry per example: real numbers or token ids.
        embedding: the module that receives the token ids; None for real numbers.
        others: how many more tensors of real numbers with one entry per example the net receives, which are held fixed.
    """

    net: nn.Module
    arguments: tuple[Any, Any]
    count: int
    x: Tensor
    embedding: nn.Embedding | None
    others: int = 0

    @property
    def start(self) -> Tensor:
        """The tensor that derivatives are taken with respect to: the inputs, or the embeddings of the token ids."""
        if self.embedding is None:
            return self.x
        embedded: Tensor = self.embedding(self.x)
        return embedded.detach()

    def baseline(self, value: Any) -> Tensor:
        """The baseline as a tensor (1, …) shaped as one entry of `start`; None is zeros.

        Raises ValueError for another shape, a number that is not finite, or a token id that is unknown.
        """
        start = self.start
        if value is None:
            return torch.zeros_like(start[:1])
        tensor = torch.as_tensor(value, device=start.device)
        shape = tuple(self.x.shape[1:])
        if tensor.ndim and tuple(tensor.shape) != shape:
            raise ValueError(
                f"expected a baseline of one number or of shape {shape}, as what the net receives, got "
                f"{tuple(tensor.shape)}"
            )
        if not bool(torch.isfinite(tensor.double()).all()):
            raise ValueError("expected a finite baseline, got NaN or an infinite number")
        if self.embedding is None:
            return tensor.to(start).expand(1, *shape).clone()
        size = self.embedding.num_embeddings
        if bool((tensor.double() != tensor.long()).any()) or not 0 <= int(tensor.min()) <= int(tensor.max()) < size:
            raise ValueError(f"expected token ids below {size} as the baseline, got {value!r}")
        embedded: Tensor = self.embedding(tensor.long().expand(1, *shape))
        return embedded.detach()


class OutputOfInput(nn.Module):
    """One output per example of a net, as a function of one of its inputs; everything else is held fixed.

    `forward(x, positions) -> (m,)`, where entry i of x stands in for the input of the example at `positions[i]`.
    """

    def __init__(self, call: NetCall, columns: Tensor) -> None:
        super().__init__()
        self.net, self.call, self.columns = call.net, call, columns

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """The chosen outputs."""
        call = self.call

        def place(tensor: Tensor) -> Tensor:
            if tensor is call.x and call.embedding is None:
                return x
            return tensor[positions] if tensor.ndim and len(tensor) == call.count else tensor

        args, kwargs = map_tensors(place, call.arguments)
        if call.embedding is None:
            return self._chosen(self.net(*args, **kwargs), positions)
        remaining = [x]
        handle = call.embedding.register_forward_hook(
            lambda module, inputs, output: remaining.pop() if remaining and output.shape == x.shape else None
        )
        try:
            return self._chosen(self.net(*args, **kwargs), positions)
        finally:
            handle.remove()

    def _chosen(self, output: Any, positions: Tensor) -> Tensor:
        values = output_tensor(output, len(positions))
        if values.ndim == 1:
            return values
        return values.gather(1, self.columns[positions][:, None])[:, 0]


def output_tensor(output: Any, count: int) -> Tensor:
    """The outputs (m,) or (m, columns) in what a net returned. Raises TypeError for outputs of another form."""
    values = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(values, Tensor) or values.ndim not in (1, 2) or len(values) != count:
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(output).__name__
        raise TypeError(
            f"expected the net to return one number or one row of outputs per example, got {shape} for {count} "
            "examples; outputs per position or several tensors cannot be attributed"
        )
    return values


def record_call(network: Network, examples: Examples) -> NetCall:
    """The call of the net on these examples. Call it inside `network.preserved()`.

    Raises:
        TypeError: the loss does not call the net exactly once, or the net receives no tensor with one entry per
            example that can be differentiated or embedded.
    """
    calls: list[tuple[Any, Any]] = []
    lookups: list[tuple[nn.Embedding, Tensor]] = []
    net = network.net
    if isinstance(net, torch.jit.ScriptModule):
        raise TypeError("the inputs of a scripted net cannot be recorded; pass the module that it was scripted from")
    handles = [net.register_forward_pre_hook(lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)]
    for module in net.modules():
        if isinstance(module, nn.Embedding):
            handles.append(module.register_forward_pre_hook(lambda m, inputs: lookups.append((m, inputs[0]))))
    quantity: Quantity = "loss" if examples.y is not None else "measure"
    batch = network.batch(examples)
    try:
        without_graph(lambda: network.values(quantity, batch, examples.ids))
    finally:
        for handle in handles:
            handle.remove()
    if len(calls) != 1:
        raise TypeError(
            f"expected the loss to call the net once as net(...), but it did so {len(calls)} times, so that there is "
            "no one input to attribute to; uw.Erasure() works for any model"
        )
    x, others = _input_tensor(calls[0], batch, len(examples))
    if x.is_floating_point():
        return NetCall(net, calls[0], len(examples), x, None, others)
    lookup = next((m for m, tokens in lookups if tokens.shape == x.shape and bool((tokens == x).all())), None)
    if lookup is None:
        raise TypeError(
            f"expected real numbers, or token ids that enter an nn.Embedding, got {x.dtype} of shape {tuple(x.shape)}; "
            "convert images to floats in the Examples, or use uw.Erasure()"
        )
    return NetCall(net, calls[0], len(examples), x, lookup, others)


def _input_tensor(arguments: tuple[Any, Any], batch: Any, count: int) -> tuple[Tensor, int]:
    """The tensor that is the input, and how many other tensors of real numbers there are."""
    tensors: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    map_tensors(note, arguments)
    fitting = [t for t in tensors if t.ndim and len(t) == count and not t.is_complex() and t.dtype != torch.bool]
    if not fitting:
        raise TypeError("expected the net to receive a tensor with one entry per example, but it receives none")
    given = batch.get("x") if isinstance(batch, dict) else getattr(batch, "x", None)
    chosen = next((t for t in fitting if t is given), fitting[0])
    return chosen, sum(t.is_floating_point() and t is not chosen for t in fitting)


def layer_of(net: nn.Module, name: str) -> nn.Module:
    """The module of this name. Raises ValueError if there is none; the message lists the names."""
    named: dict[str, nn.Module] = {key: module for key, module in net.named_modules() if key}
    if name not in named:
        raise ValueError(f"the net has no layer {name!r}; its layers are {', '.join(list(named)[:20]) or 'unnamed'}")
    return named[name]
