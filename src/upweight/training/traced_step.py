"""Trace the tensor operations of a call, to repeat them without its Python code, vmap and autograd.

In a training step of a small net, these cost more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

Work = Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]
DATA_DEPENDENT = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class UntraceableError(RuntimeError):
    """A call whose operations cannot be repeated without its Python code."""


def trace(work: Work, fixed: Sequence[Tensor], inputs: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """`work(fixed, inputs)` as a function of the inputs, for other numbers in tensors of the same shapes.

    Every call draws new random numbers. Values that are not tensors, and tensors from elsewhere (buffers), are treated
    as constants. The caller has to make sure that the Python code would do the same operations again.

    Args:
        work: (fixed, inputs) → tensors.
        fixed: tensors that stay at the same place in memory, while their numbers change.
        inputs: tensors that are different in every call.

    Raises:
        UntraceableError: shapes or branches depend on numbers.
    """
    try:
        graph = make_fx(lambda fixed_tensors, *given: work(fixed_tensors, given))(list(fixed), *inputs)
    except RuntimeError as error:
        raise UntraceableError(f"the call cannot be traced: {error}") from error
    for node in graph.graph.nodes:
        if _depends_on_numbers(node.target, node.args):
            raise UntraceableError(f"the output of {node.target} depends on numbers")
    return lambda *given: graph(list(fixed), *given)


def _depends_on_numbers(operation: Any, args: Any) -> bool:
    """Whether the output is not a tensor, or has a shape that the shapes of the arguments do not determine."""
    if operation is torch.ops.aten.index.Tensor:
        return any(index is not None and index.meta["val"].dtype in (torch.bool, torch.uint8) for index in args[1])
    return any(tag in getattr(operation, "tags", ()) for tag in DATA_DEPENDENT)
