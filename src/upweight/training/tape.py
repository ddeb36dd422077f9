"""Tape: the tensor operations of one call, done again without its Python, its vmap and its autograd.

In a step of small nets these cost more than the arithmetic.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode

Work = Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]
UNKNOWN = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class UntapableError(RuntimeError):
    """A call that cannot be done again without its Python."""


def taped(work: Work, fixed: Sequence[Tensor], inputs: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """`work(fixed, inputs)` for other numbers in the same shapes, as a function of the inputs.

    Random numbers are drawn anew. What is no tensor, and tensors from elsewhere (buffers), are taken for constant:
    whoever calls it has to see to it that the Python would have done the same again.

    Args:
        work: (fixed, inputs) → tensors.
        fixed: tensors that stay where they are in memory, while their numbers change.
        inputs: tensors that are others in every call.

    Raises:
        UntapableError: shapes or branches depend on numbers.
    """
    recorder = _Recorder()
    recorder.inputs(inputs)
    for tensor in fixed:
        recorder.constant(tensor)
    with recorder:
        found = work(fixed, inputs)
    played: Callable[..., Sequence[Tensor]] = recorder.end(found).forward
    return played


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down every operation, with its tensors by who made them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = fx.Graph()
        self.constants: dict[str, Tensor] = {}
        self._node: dict[int, fx.Node] = {}
        self._alive: list[Tensor] = []  # so that no two tensors have one id

    def inputs(self, tensors: Sequence[Tensor]) -> None:
        """The arguments of what will be played."""
        for place, tensor in enumerate(tensors):
            self._is(tensor, self.graph.placeholder(f"input_{place}"))

    def constant(self, tensor: Tensor) -> fx.Node:
        """A tensor that nothing here made."""
        name = f"constant_{len(self.constants)}"
        self.constants[name] = tensor.detach()
        return self._is(tensor, self.graph.get_attr(name))

    def end(self, found: Sequence[Tensor]) -> fx.GraphModule:
        """All of it, as a function."""
        self.graph.output(tuple(self._of(tensor) for tensor in found))
        return fx.GraphModule(self.constants, self.graph)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do it, and write it down."""
        if _depends_on_numbers(func, args):
            raise UntapableError(f"what {func} gives depends on numbers")
        given = _mapped(self._of, (args, kwargs or {}))
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and not func._schema.is_mutable:
            same = next((a for a in args if isinstance(a, Tensor) and _is_same(a, found)), None)
            if same is not None:
                self._is(found, self._of(same))
                return found
        node = self.graph.call_function(func, *given)
        if isinstance(found, Tensor):
            self._is(found, node)
        else:
            for place, tensor in enumerate(found):
                if isinstance(tensor, Tensor):
                    self._is(tensor, self.graph.call_function(operator.getitem, (node, place)))
        return found

    def _is(self, tensor: Tensor, node: fx.Node) -> fx.Node:
        self._alive.append(tensor)
        self._node[id(tensor)] = node
        return node

    def _of(self, tensor: Tensor) -> fx.Node:
        return self._node[id(tensor)] if id(tensor) in self._node else self.constant(tensor)


def _depends_on_numbers(func: Any, args: Any) -> bool:
    """Whether the result is none of a tensor, or of a shape that the shapes of its arguments do not say."""
    if func is torch.ops.aten.index.Tensor:
        return any(place is not None and place.dtype in (torch.bool, torch.uint8) for place in args[1])
    return any(tag in func.tags for tag in UNKNOWN)


def _mapped(change: Callable[[Tensor], Any], value: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(_mapped(change, part) for part in value)
    if isinstance(value, dict):
        return {key: _mapped(change, part) for key, part in value.items()}
    return value


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether they are the same numbers at the same place, so that nothing was done."""
    ones, others = ((t.data_ptr(), t.shape, t.stride(), t.dtype) for t in (one, other))
    return ones == others
