"""A torch module with its loss and measurement, and its trainable parameters in a fixed order."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upweight.core.examples import Examples
from upweight.gradients.batches import collate as stack
from upweight.gradients.batches import to_device
from upweight.gradients.copied_net import copy_net
from upweight.gradients.failed_calls import raise_explained, raise_failed_collate
from upweight.gradients.loss_parameters import notes_of_loss
from upweight.gradients.matrices import flatten_each
from upweight.gradients.preserve_model import preserve_model

Quantity = Literal["loss", "measure"]
PerExampleFunction = Callable[[Any, Any], Tensor]
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Network:
    """A net, its loss and its measurement: what gradient passes need. A network never changes after construction.

    Args:
        net: the module; passes leave it unchanged.
        loss: `loss(net, batch) -> (n,)`, one loss per example; sentences in its attribute `notes`, if it has one, are
            notes of the network.
        measure: `measure(net, batch) -> (m,)`; None for −loss.
        collate: `collate(examples) -> batch`; None for a `Batch(x, y)` of tensors.

    Attributes:
        names: trainable parameters in the order of `net.named_parameters()`; tied parameters appear once, and those
            without numbers do not appear.
        shapes: name → shape.
        frozen: names of the parameters that do not require gradients, which are held fixed.
        notes: facts that a reader of the scores should know, as sentences.

    Raises:
        ValueError: the net has no trainable parameters, complex, lazy or sharded parameters, tensors made inside
            `torch.inference_mode()`, batch norm without running statistics, or an embedding that renormalises its
            weights.
    """

    def __init__(
        self, net: nn.Module, loss: PerExampleFunction, measure: PerExampleFunction | None = None, collate: Any = None
    ) -> None:
        if not isinstance(net, nn.Module):
            raise TypeError(f"expected a torch.nn.Module, got {type(net).__name__}")
        if isinstance(loss, nn.modules.loss._Loss):
            raise TypeError(
                f"expected loss(net, batch) -> (n,), got {type(loss).__name__}(), which takes neither net nor batch; "
                "pass lambda net, batch: F.cross_entropy(net(batch.x), batch.y, reduction='none')"
            )
        net = unwrap(net)
        self.net, self.loss, self.measure = net, loss, measure
        self.collate = stack if collate is None else collate
        named = dict(net.named_parameters())
        self.names = tuple(name for name, p in named.items() if p.requires_grad and not _is_empty(p))
        self.frozen = tuple(name for name, p in named.items() if not p.requires_grad)
        self._refuse(named)
        self.shapes = {name: tuple(named[name].shape) for name in self.names}
        self.device, self.dtype = named[self.names[0]].device, named[self.names[0]].dtype
        self.notes = (*self._notes(named), *notes_of_loss(loss, net), *getattr(loss, "notes", ()))

    def _refuse(self, named: Mapping[str, Tensor]) -> None:
        if not self.names:
            raise ValueError(
                "expected a net with trainable parameters, but none requires gradients; set requires_grad_(True)"
            )
        for name, parameter in named.items():
            if hasattr(parameter, "device_mesh"):  # a DTensor, as fully_shard makes
                raise ValueError(
                    f"parameter {name!r} is sharded over processes, and gradients of single examples need whole "
                    "parameters; pass the net before fully_shard, or load the full state dict (torch.distributed."
                    "checkpoint.state_dict.get_model_state_dict with full_state_dict=True) into a net that is not "
                    "sharded"
                )
            if parameter.is_meta:
                raise ValueError(
                    f"parameter {name!r} is on the meta device and has no values; load the weights into the net first"
                )
        for name in self.names:
            if isinstance(named[name], nn.parameter.UninitializedParameter):
                raise ValueError(f"parameter {name!r} has no shape yet (a lazy module); run one batch through the net")
            if named[name].is_complex():
                raise ValueError(
                    f"parameter {name!r} is complex: gradients of real and imaginary parts are not defined "
                    "here; freeze it with requires_grad_(False) or split it into two real parameters"
                )
        for name, tensor in (*named.items(), *self.net.named_buffers()):
            if not nn.parameter.is_lazy(tensor) and tensor.is_inference():
                raise ValueError(
                    f"{name!r} was made, loaded or cast inside torch.inference_mode(), and such a tensor has no "
                    "gradients; do that outside of it, or pass copy.deepcopy(net), made outside"
                )
        for name, module in self.net.named_modules():
            if isinstance(module, BATCH_NORMS) and module.running_mean is None:
                raise ValueError(
                    f"{name!r} is a batch norm without running statistics: every example's loss depends on its "
                    "batch, so it has no gradient of its own; use track_running_stats=True or another norm"
                )
            if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
                raise ValueError(
                    f"{name!r} has max_norm, so every forward pass changes its weights; rebuild it without max_norm"
                )

    def _notes(self, named: Mapping[str, Tensor]) -> Iterator[str]:
        if self.frozen:
            count = sum(named[name].numel() for name in self.frozen)
            yield (
                f"{len(self.frozen)} frozen parameters ({count:,} of {count + self.size:,} numbers, e.g. "
                f"{self.frozen[0]}) are held fixed: scores are about the trainable parameters only."
            )
        random = (nn.modules.dropout._DropoutNd, *BATCH_NORMS)
        active = [name for name, m in self.net.named_modules() if isinstance(m, random) and m.training]
        if active:
            yield (
                f"The net was in training mode, which changes {len(active)} modules (e.g. {active[0]}): gradients are "
                "computed in eval mode."
            )

    def parameters(self) -> dict[str, Tensor]:
        """Name → trainable parameter, not a copy."""
        named = dict(self.net.named_parameters())
        return {name: named[name] for name in self.names}

    def narrowed(self, names: Sequence[str]) -> Network:
        """The same net with all other parameters held fixed; backward passes go no further than these need."""
        narrowed = copy.copy(self)
        narrowed.names = tuple(name for name in self.names if name in set(names))
        narrowed.shapes = {name: self.shapes[name] for name in narrowed.names}
        return narrowed

    def widened(self) -> Network:
        """The same network on a copy in float32 if the net holds a tensor in half precision; else this network.

        Raises TypeError if the net cannot be copied.
        """
        if not any(_is_half(tensor) for tensor in (*self.net.parameters(), *self.net.buffers())):
            return self
        widened = copy.copy(self)
        widened.net = copy_net(self.net)
        widened.net._apply(lambda tensor: tensor.float() if _is_half(tensor) else tensor)  # type: ignore[no-untyped-call]
        widened.dtype = self.precision
        return widened

    @property
    def size(self) -> int:
        """Trainable numbers."""
        return sum(prod(shape) for shape in self.shapes.values())

    @property
    def version(self) -> int:
        """The number of writes to the trainable parameters; it changes whenever they do."""
        return sum(p._version for p in self.parameters().values())

    def vector(self) -> NDArray[np.float64]:
        """All trainable parameters as one vector, float64, shape (size,)."""
        return np.asarray(self.join({name: p.detach()[None] for name, p in self.parameters().items()})[0])

    def join(self, blocks: Mapping[str, Tensor]) -> NDArray[np.float64]:
        """Blocks name → (k, *shape) as one float64 matrix (k, size)."""
        flat = [flatten_each(blocks[name].detach()).cpu().double() for name in self.names]
        return np.asarray(torch.cat(flat, dim=1).numpy())

    def split(self, vectors: NDArray[Any]) -> dict[str, Tensor]:
        """A matrix (k, size) as blocks name → (k, *shape), on the network's device and in its precision."""
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or vectors.shape[1] != self.size:
            raise ValueError(f"expected vectors of shape (k, {self.size}), got {vectors.shape}")
        matrix = torch.as_tensor(vectors).to(self.device, self.precision)
        parts = torch.split(matrix, [prod(self.shapes[name]) for name in self.names], dim=1)
        return {name: part.reshape(len(part), *self.shapes[name]) for name, part in zip(self.names, parts, strict=True)}

    def writable_copy(self, with_hooks: bool = True) -> Network:
        """The same network on a copy of the net, whose parameters may be overwritten; all others are frozen there."""
        net = copy_net(self.net, with_hooks)
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name in self.names)
        return Network(net, self.loss, self.measure, self.collate)

    def write(self, vector: NDArray[np.float64]) -> None:
        """Overwrite the trainable parameters with a vector (size,). Only for a `writable_copy`."""
        parameters = self.parameters()
        with torch.no_grad():
            for name, block in self.split(np.asarray(vector)[None]).items():
                parameters[name].copy_(block[0])

    @property
    def precision(self) -> torch.dtype:
        """The precision of inner products: that of the parameters, but at least float32."""
        return torch.promote_types(self.dtype, torch.float32)

    def batch(self, examples: Examples) -> Any:
        """The batch that the loss takes, on the device of the network."""
        if self.collate is not stack:
            examples = examples.with_column()
        try:
            batch = self.collate(examples)
        except Exception as error:
            raise_failed_collate(error, examples)
        return to_device(batch, self.device, self.dtype)

    def preserved(self) -> AbstractContextManager[None]:
        """A context in which the net is in eval mode; on exit, its state is restored."""
        return preserve_model(self.net, frozenset(self.names))

    def values(self, quantity: Quantity, batch: Any, ids: Any, net: Any = None) -> Tensor:
        """Loss or measurement of every example of a batch, (n,), with its graph; `net` replaces the net if given.

        Raises ValueError unless the function returns one finite number per example.
        """
        is_negated = quantity == "measure" and self.measure is None
        values = self.call("loss" if is_negated else quantity, batch, net)
        require_one_per_example("loss" if is_negated else quantity, values, ids)
        return -values if is_negated else values

    def call(self, quantity: Quantity, batch: Any, net: Any = None) -> Tensor:
        """What the loss or the measurement returns for a batch; `net` replaces the net if given.

        Raises the error of the function, with a sentence about the batch.
        """
        function = self.loss if quantity == "loss" or self.measure is None else self.measure
        try:
            return function(self.net if net is None else net, batch)
        except Exception as error:
            raise_explained(error, quantity, batch)


def _is_empty(parameter: Tensor) -> bool:
    """Whether a parameter holds no numbers; one of a lazy module has no shape yet."""
    return not isinstance(parameter, nn.parameter.UninitializedParameter) and parameter.numel() == 0


def _is_half(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and torch.finfo(tensor.dtype).bits < 32


def unwrap(net: nn.Module) -> nn.Module:
    """The module inside a compiled or data-parallel module, which shares its parameters but hides it from hooks."""
    inside = getattr(net, "_orig_mod", None)
    if isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inside = net.module
    return unwrap(inside) if isinstance(inside, nn.Module) else net


def require_one_per_example(what: str, values: Any, ids: Any) -> None:
    """Raise unless `values` is one finite real number per example."""
    n = len(ids)
    if not isinstance(values, Tensor):
        raise TypeError(f"expected {what}(net, batch) to return a tensor of shape ({n},), got {type(values).__name__}")
    if values.shape != (n,):
        hint = (
            "use reduction='none' (the .loss of a transformer is a mean over its batch: see uw.hf.classifier)"
            if values.ndim == 0
            else "reduce the values of each example separately, e.g. .flatten(1).mean(1)"
        )
        raise ValueError(
            f"expected {what}(net, batch) to return one number per example ({n},), got shape {tuple(values.shape)}: "
            f"{hint}"
        )
    if not values.is_floating_point():
        raise ValueError(f"expected {what}(net, batch) to return real numbers, got {values.dtype}")
    finite = torch.isfinite(values.detach())
    if not bool(finite.all()):
        bad = int(torch.nonzero(~finite)[0])
        raise ValueError(
            f"{what} of example {ids[bad].item()!r} is {values[bad].item()} ({int((~finite).sum())} of {n} in its "
            "batch); check its inputs, and the loss for log(0) or overflow"
        )
