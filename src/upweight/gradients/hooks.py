"""Capture: hooks that see every layer's input and output gradient in one ordinary backward pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.gradient_terms import DenseTerm, GradientTerm, OuterTerm
from upweight.gradients.layers import LayerKind, LeafKind, layer_kind
from upweight.gradients.network import Network

# Where the examples are in a module's input: its first axis; folded with the positions into the first axis; the second
# axis; nowhere (the same input serves all examples, as positions do in a transformer), with or without an axis of one.
ExampleLayout = Literal["first", "folded", "second", "single", "shared"]


PARAMETER_SITE = -1  # in place of a call: the site is a parameter itself, of shape (1, …), given to each example


class CallSite(NamedTuple):
    """One call of a module in a forward pass, or a parameter that a module without a kind uses itself."""

    module: str
    call: int


@dataclass(frozen=True)
class HookedCall:
    """What a hook saw."""

    site: CallSite
    module: nn.Module
    kind: LayerKind
    layout: ExampleLayout
    given: Tensor
    version: int
    edge: GradientEdge
    names: Mapping[str, str]  # the module's own parameter names → the network's


class HookedPass:
    """Hooks on a network for one forward pass and any number of backward passes.

    Use inside `network.preserved()`:

        with Tape(network, count, layouts) as tape:
            values = network.values("loss", batch, ids)
        captured = tape.pull(values)

    Args:
        count: examples in the batch.
        layouts: where the examples are at each site; what is not named is guessed from the shape.
        without: parameters that are not to be captured.

    Attributes:
        calls: what the hooks saw.
        failed: sites whose gradients could not be taken, with the reason.
    """

    def __init__(
        self,
        network: Network,
        count: int,
        layouts: Mapping[CallSite, ExampleLayout],
        without: frozenset[str] = frozenset(),
    ) -> None:
        self.network, self.count, self.layouts, self.without = network, count, layouts, without
        self.calls: list[HookedCall] = []
        self.failed: dict[CallSite, Exception] = {}
        self._stretched: dict[str, Tensor] = {}
        self._swapped: list[tuple[nn.Module, str, nn.Parameter]] = []
        self._handles: list[Any] = []
        self._times: dict[str, int] = {}
        self._ready: dict[CallSite, Tensor] = {}
        self._open = False

    def __enter__(self) -> HookedPass:
        names = {id(p): name for name, p in self.network.parameters().items()}
        try:
            for module_name, module in self.network.net.named_modules():
                local = {n: names[id(p)] for n, p in module.named_parameters(recurse=False) if id(p) in names}
                local = {n: name for n, name in local.items() if name not in self.without}
                kind = layer_kind(module) if local else None
                self._stretch(module, local)
                if kind is not None and not isinstance(module, torch.jit.ScriptModule):
                    hook = self._hook(module_name, kind, local)
                    self._handles.append(module.register_forward_hook(hook, with_kwargs=True))
        except BaseException:
            self.__exit__()
            raise
        self._open = True
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        while self._swapped:
            module, local, parameter = self._swapped.pop()
            module._parameters[local] = parameter
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def backpropagate(self, values: Tensor, cotangent: Tensor | None = None, keep: bool = False) -> CapturedBatch:
        """Gradients of every example's ⟨cotangent, values⟩; `keep` allows another pull of the same values.

        Args:
            values: what was computed under this tape, examples on the first axis, e.g. losses (B,) or outputs (B, C).
            cotangent: of the same shape; None for ones.
            keep: hold the graph.
        """
        if not values.requires_grad:
            raise ValueError(
                "the values do not depend on the net's trainable parameters: is there a no_grad() or a detach() in the "
                "loss or in the net's forward?"
            )
        cotangent = torch.ones_like(values) if cotangent is None else cotangent.to(values)
        terms: dict[str, list[GradientTerm]] = {name: [] for name in self.network.names if name not in self.without}
        owners: dict[str, tuple[str, str | None]] = {}
        if self.calls or self._stretched:
            edges = [*(call.edge for call in self.calls), *map(get_gradient_edge, self._stretched.values())]
            slopes = torch.autograd.grad(values, edges, cotangent, retain_graph=keep, allow_unused=True)
            with torch.no_grad():
                for call, slope in zip(self.calls, slopes, strict=False):
                    if slope is not None:
                        self._add(call, slope, terms, owners)
                for name, slope in zip(self._stretched, slopes[len(self.calls) :], strict=True):
                    if slope is not None:
                        terms[name].append(DenseTerm(slope[:, None].to(self.network.precision)))
        like = torch.empty(0, dtype=self.network.precision, device=self.network.device)
        return CapturedBatch(self.count, {k: tuple(v) for k, v in terms.items()}, like, self.network.shapes, owners)

    def _add(
        self,
        call: HookedCall,
        slope: Tensor,
        terms: dict[str, list[GradientTerm]],
        owners: dict[str, tuple[str, str | None]],
    ) -> None:
        if call.given._version != call.version:
            raise RuntimeError(
                f"the input of {call.site.module!r} was changed in place after it was used, so its gradient is lost; "
                "training would have failed the same way"
            )
        try:
            if call.site not in self._ready:
                wide = self.network.precision
                given = call.given.to(wide) if call.given.is_floating_point() else call.given
                self._ready[call.site] = call.kind.prepare_input(call.module, self._arranged(given, call.layout))
            slope = self._arranged(slope.to(self.network.precision), call.layout, output=True)
            found = call.kind.terms(call.module, self._ready[call.site], slope)
        except (RuntimeError, ValueError, IndexError) as error:  # a layer that is not what it looks like
            self.failed[call.site] = error
            return
        for local, name in call.names.items():
            if local in found:  # a subclass may hold more than its kind knows of
                terms[name].append(found[local])
        if "weight" in call.names and isinstance(found["weight"], OuterTerm):
            owners.setdefault(call.names["weight"], (call.site.module, call.names.get("bias")))

    def _arranged(self, tensor: Tensor, layout: ExampleLayout, output: bool = False) -> Tensor:
        """An input or an output gradient with the examples first."""
        if layout == "folded":
            return torch.unflatten(tensor, 0, (self.count, -1))
        if layout == "second":
            return tensor.transpose(0, 1)
        if layout in ("single", "shared") and not output:  # an output has one for each of them
            return self._for_each(tensor, layout)
        return tensor

    def _for_each(self, tensor: Tensor, layout: ExampleLayout) -> Tensor:
        """What all examples share, once for each of them."""
        tensor = tensor if layout == "single" else tensor[None]
        return tensor.expand(self.count, *tensor.shape[1:])

    def _stretch(self, module: nn.Module, local: Mapping[str, str]) -> None:
        """Parameters that the layouts name are, for this pass, one for each example: a class token, positions."""
        for attribute, name in local.items():
            if CallSite(name, PARAMETER_SITE) in self.layouts:
                parameter = module._parameters[attribute]
                assert parameter is not None
                if name not in self._stretched:
                    self._stretched[name] = parameter.expand(self.count, *parameter.shape[1:])
                self._swapped.append((module, attribute, parameter))
                module._parameters[attribute] = self._stretched[name]  # type: ignore[assignment]

    def _hook(self, module_name: str, kind: LayerKind, names: Mapping[str, str]) -> Any:
        def seen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            given = args[0] if args else next(iter(kwargs.values()), None)
            if not (self._open and isinstance(output, Tensor) and output.requires_grad and isinstance(given, Tensor)):
                return None
            site = CallSite(module_name, self._times.get(module_name, 0))
            self._times[module_name] = site.call + 1
            layout = self.layouts.get(site) or next(iter(possible_layouts(kind, given, self.count)), None)
            if layout is None or (isinstance(kind, LeafKind) and len(args) + len(kwargs) > 1):
                return None
            changed = layout in ("single", "shared")
            if changed:  # an output for every example, so that its gradient is the example's own
                output = self._for_each(output, layout)
            elif layout == "first" and len(given) != self.count:
                raise ValueError(
                    f"{module_name!r} saw {len(given)} inputs in a batch of {self.count}, and one for each example "
                    "when it was looked at first: where a net regroups its batch, nobody knows whose gradient is whose"
                )
            edge = get_gradient_edge(output)
            self.calls.append(HookedCall(site, module, kind, layout, given.detach(), given._version, edge, names))
            return output if changed else None

        return seen


def possible_layouts(kind: LayerKind, given: Tensor, count: int) -> tuple[ExampleLayout, ...]:
    """Where the examples could be in this input, the likeliest first."""
    found: list[ExampleLayout] = []
    first = len(given) if given.ndim else 0
    if first == count:
        found.append("first")
    if kind.positional:
        if given.ndim > 1 and given.shape[1] == count:
            found.append("second")
        if first > count and first % count == 0:
            found.append("folded")
        if first == 1 and count > 1:
            found.append("single")
        if given.ndim and count > 1:
            found.append("shared")
    return tuple(found)
