"""Tape: the tensor operations of one call, done again without its Python, its vmap and its autograd.

In a step of small nets these cost more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

Work = Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]
UNKNOWN = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class UntraceableError(RuntimeError):
    """A call that cannot be done again without its Python."""


def trace(work: Work, fixed: Sequence[Tensor], inputs: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """`work(fixed, inputs)` for other numbers in the same shapes, as a function of the inputs.

    Random numbers are drawn anew. What is no tensor, and tensors from elsewhere (buffers), are taken for constant:
    whoever calls it has to see to it that the Python would have done the same again.

    Args:
        work: (fixed, inputs) → tensors.
        fixed: tensors that stay where they are in memory, while their numbers change.
        inputs: tensors that are others in every call.

    Raises:
        UntraceableError: shapes or branches depend on numbers.
    """
    try:
        tape = make_fx(lambda here, *given: work(here, given))(list(fixed), *inputs)
    except RuntimeError as error:
        raise UntraceableError(f"the call cannot be traced: {error}") from error
    for node in tape.graph.nodes:
        if _depends_on_numbers(node.target, node.args):
            raise UntraceableError(f"what {node.target} gives depends on numbers")
    return lambda *given: tape(list(fixed), *given)


def _depends_on_numbers(operation: Any, args: Any) -> bool:
    """Whether the result is none of a tensor, or of a shape that the shapes of its arguments do not say."""
    if operation is torch.ops.aten.index.Tensor:
        return any(place is not None and place.meta["val"].dtype in (torch.bool, torch.uint8) for place in args[1])
    return any(tag in getattr(operation, "tags", ()) for tag in UNKNOWN)
