"""One example's loss and its gradient, before the first pass: nets without logits, and layers without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from upweight.core.examples import Examples
from upweight.gradients.batches import to_device
from upweight.gradients.preserve_model import preserve_model
from upweight.models.huggingface.collation import Collate, base_of

QUANTISED = ("quant", "4bit", "8bit")  # in the name of a module's class


def require_gradient(net: nn.Module, train: Examples, collate: Collate, loss: Any) -> None:
    """Compute the gradient of one example's loss, of the largest label if labels are numbers.

    Raises:
        TypeError: a net without logits.
        ValueError: a label beyond the net's outputs; quantised layers that do not differentiate.
    """
    parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
    first = next(iter(parameters.values()))
    if first.is_meta or hasattr(first, "device_mesh"):
        return  # TorchModel says what is wrong with these
    numbers = train.y is not None and train.y.ndim == 1 and train.y.dtype.kind in "iuf"
    example = train.take([int(np.argmax(train.y)) if numbers and train.y is not None else 0])
    with preserve_model(net, frozenset(parameters)), _quantised_calls(net) as calls:
        try:
            value = loss(net, to_device(collate(example), first.device, first.dtype)).sum()
        except AttributeError as error:
            raise TypeError(
                f"expected a net that returns logits, and {type(base_of(net)).__name__} does not ({error}); pass a "
                "loss of your own to uw.TorchModel, with collate=model.network.collate"
            ) from error
        except IndexError as error:
            raise ValueError(
                f"expected labels below the number of the net's outputs, but with example {example.ids[0].item()!r} "
                f"of label {example.label(example.ids[0])!r} the loss fails ({error}); was the net trained on these?"
            ) from error
        _require_flow(value, list(parameters.values()), calls)


def _require_flow(value: Tensor, parameters: list[Tensor], calls: dict[str, tuple[Tensor, Tensor]]) -> None:
    broken = [
        name for name, (given, output) in calls.items() if given.requires_grad and not _differentiates(output, [given])
    ]
    if broken or not _differentiates(value, parameters):
        layers = f"the quantised {broken[0]!r}" if broken else f"the quantised {next(iter(calls))!r}" if calls else "it"
        raise ValueError(
            f"the loss of an example has no gradient with respect to all trainable parameters: {layers} does not "
            "differentiate; load the base in bfloat16, or quantise it by a method with a backward pass (bitsandbytes)"
        )


def _differentiates(output: Tensor, inputs: list[Tensor]) -> bool:
    """Whether the output has a gradient with respect to some of these."""
    if not output.requires_grad:
        return False
    try:
        gradients = torch.autograd.grad(output.sum(), inputs, retain_graph=True, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError):
        return False
    return any(gradient is not None for gradient in gradients)


@contextmanager
def _quantised_calls(net: nn.Module) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Input and output of every module of a quantised class in the forward passes inside this context."""
    calls: dict[str, tuple[Tensor, Tensor]] = {}
    handles = []
    for name, module in net.named_modules():
        kind = type(module)
        if any(word in f"{kind.__module__}.{kind.__name__}".lower() for word in QUANTISED):

            def record(module: nn.Module, given: Any, output: Any, name: str = name) -> None:
                if given and isinstance(given[0], Tensor) and isinstance(output, Tensor):
                    calls[name] = given[0], output

            handles.append(module.register_forward_hook(record))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
