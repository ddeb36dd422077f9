"""Hooks that capture the input and the output gradient of every layer in one ordinary backward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from upweight.gradients.batches import as_constant
from upweight.gradients.call_sites import (
    PARAMETER_SITE,
    CallSite,
    ExampleLayout,
    HookedCall,
    UnassignableError,
    possible_layouts,
)
from upweight.gradients.captured_batch import CapturedBatch
from upweight.gradients.flushed_denormals import flushed_denormals
from upweight.gradients.gradient_terms import DenseTerm, GradientTerm, OuterTerm
from upweight.gradients.layers import GATES, LayerKind, LeafKind, layer_kind
from upweight.gradients.network import Network
from upweight.gradients.recurrent_layers import can_unroll, unrolled


class HookedPass:
    """Hooks on a network for one forward pass and any number of backward passes.

    Use it inside `network.preserved()`:

        with HookedPass(network, count, layouts) as hooked:
            values = network.values("loss", batch, ids)
        gradients = hooked.backpropagate(values)

    Args:
        count: examples in the batch.
        layouts: where the examples are at each site; at other sites the shape decides.
        without: parameters that are not captured.
        explore: whether a site without a layout gets the most likely one. Otherwise a call of a module that the
            inspection did not see raises UnassignableError, because nobody compared its gradients with autograd.

    Attributes:
        calls: the recorded calls.
        failed: sites whose gradients could not be computed, with the reason.
        stretched: parameters that were expanded to one per example for this pass, by name.
    """

    def __init__(
        self,
        network: Network,
        count: int,
        layouts: Mapping[CallSite, ExampleLayout],
        without: frozenset[str] = frozenset(),
        explore: bool = False,
    ) -> None:
        self.network, self.count, self.layouts, self.without = network, count, layouts, without
        self._known_modules = None if explore else {site.module for site in layouts}
        self.calls: list[HookedCall] = []
        self.failed: dict[CallSite, Exception] = {}
        self.stretched: dict[str, Tensor] = {}
        self._swapped: list[tuple[nn.Module, str, nn.Parameter]] = []
        self._unrolled: list[nn.Module] = []
        self._handles: list[Any] = []
        self._times: dict[str, int] = {}
        self._inputs: dict[CallSite, Tensor] = {}
        self._open = False

    def __enter__(self) -> HookedPass:
        names = {id(p): name for name, p in self.network.parameters().items()}
        try:
            for module_name, module in self.network.net.named_modules():
                local = {n: names[id(p)] for n, p in module.named_parameters(recurse=False) if id(p) in names}
                local = {n: name for n, name in local.items() if name not in self.without}
                kind = layer_kind(module) if local else None
                self._stretch(module, local)
                if local and can_unroll(module):
                    self._unroll(module_name, module, local)
                elif kind is not None and not isinstance(module, torch.jit.ScriptModule):
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
        while self._unrolled:
            del self._unrolled.pop().__dict__["forward"]
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def backpropagate(self, values: Tensor, cotangent: Tensor | None = None, keep: bool = False) -> CapturedBatch:
        """Gradients of ⟨cotangentᵢ, valuesᵢ⟩ for every example i.

        Args:
            values: computed inside this pass, with examples on the first axis, e.g. losses (B,) or outputs (B, C).
            cotangent: of the same shape; None for ones.
            keep: keep the graph, so that the same values can be backpropagated again.
        """
        if not values.requires_grad:
            raise ValueError(
                "the values do not depend on the net's trainable parameters: is there a no_grad() or a detach() in the "
                "loss or in the net's forward?"
            )
        self._open = False  # some kinds of layers call their module again, which is no call of this pass
        # Not by `grad_outputs`: checking its shape makes torch import sympy, half a second in every new process.
        total = values.sum() if cotangent is None else (values * as_constant(cotangent.to(values))).sum()
        terms: dict[str, list[GradientTerm]] = {name: [] for name in self.network.names if name not in self.without}
        owners: dict[str, tuple[str, str | None]] = {}
        if self.calls or self.stretched:
            edges = [*(call.edge for call in self.calls), *map(get_gradient_edge, self.stretched.values())]
            with flushed_denormals():
                slopes = torch.autograd.grad(total, edges, retain_graph=keep, allow_unused=True)
            with torch.no_grad():
                for call, slope in zip(self.calls, slopes, strict=False):
                    if slope is not None:
                        self._add(call, slope, terms, owners)
                for name, slope in zip(self.stretched, slopes[len(self.calls) :], strict=True):
                    if slope is not None:
                        terms[name].append(DenseTerm(slope[:, None].to(self.network.precision)))
        like = torch.empty(0, dtype=self.network.precision, device=self.network.device)
        return CapturedBatch(self.count, {k: tuple(v) for k, v in terms.items()}, like, self.network.shapes, owners)

    @property
    def failed_names(self) -> set[str]:
        """The parameters at the sites whose gradients could not be computed."""
        return {name for call in self.calls if call.site in self.failed for name in call.names.values()}

    def require_none_failed(self) -> None:
        """Raise UnassignableError if the gradients at a site could not be computed."""
        if self.failed:
            site, error = next(iter(self.failed.items()))
            raise UnassignableError(
                f"the gradients of {site.module!r} cannot be computed from its input and output gradient ({error})",
                self.failed_names,
            ) from error

    def _add(
        self,
        call: HookedCall,
        slope: Tensor,
        terms: dict[str, list[GradientTerm]],
        owners: dict[str, tuple[str, str | None]],
    ) -> None:
        if call.inputs._version != call.version:
            raise RuntimeError(
                f"the input of {call.site.module!r} was changed in place after it was used, so the gradient cannot be "
                "computed; training would have failed in the same way"
            )
        try:
            if call.site not in self._inputs:
                wide = self.network.precision
                inputs = call.inputs.to(wide) if call.inputs.is_floating_point() else call.inputs
                self._inputs[call.site] = call.kind.prepare_input(call.module, self.arranged(inputs, call.layout))
            slope = self.arranged(slope.to(self.network.precision), call.layout, output=True)
            local_terms = call.kind.terms(call.module, self._inputs[call.site], slope)
            self._require_fitting(call, slope, local_terms)
        except (
            RuntimeError,
            ValueError,
            IndexError,
        ) as error:  # the layer computes something else than its class suggests
            self.failed[call.site] = error
            return
        for local, name in call.names.items():
            if local in local_terms:  # a subclass may have parameters that its kind does not know
                terms[name].append(local_terms[local])
        if "weight" in call.names and isinstance(local_terms["weight"], OuterTerm):
            owners.setdefault(call.names["weight"], (call.site.module, call.names.get("bias")))

    def _require_fitting(self, call: HookedCall, slope: Tensor, terms: Mapping[str, GradientTerm]) -> None:
        """Raise ValueError unless there is a gradient of the parameter's shape for every example.

        A part of a batch, taken for a batch whose examples are on another axis, has others.
        """
        counts = {len(self._inputs[call.site]), len(slope)}
        pairs = [(terms[n].shape, self.network.shapes[full]) for n, full in call.names.items() if n in terms]
        if counts != {self.count} or any(shape != expected for shape, expected in pairs):
            raise ValueError(f"an input of shape {tuple(call.inputs.shape)} in a batch of {self.count}")

    def arranged(self, tensor: Tensor, layout: ExampleLayout, output: bool = False) -> Tensor:
        """An input or an output gradient with the examples on the first axis."""
        if layout == "folded":
            return torch.unflatten(tensor, 0, (self.count, -1))
        if layout == "second":
            return tensor.transpose(0, 1)
        if layout in ("single", "shared") and not output:  # the output was already expanded
            return self._for_each(tensor, layout)
        return tensor

    def _for_each(self, tensor: Tensor, layout: ExampleLayout) -> Tensor:
        """A tensor that all examples share, expanded to one for each of them."""
        tensor = tensor if layout == "single" else tensor[None]
        return tensor.expand(self.count, *tensor.shape[1:])

    def _stretch(self, module: nn.Module, local: Mapping[str, str]) -> None:
        """Expand the parameters named in the layouts to one per example for this pass: a class token, positions."""
        for attribute, name in local.items():
            if CallSite(name, PARAMETER_SITE) in self.layouts:
                parameter = module._parameters[attribute]
                assert parameter is not None
                if name not in self.stretched:
                    self.stretched[name] = parameter.expand(self.count, *parameter.shape[1:])
                self._swapped.append((module, attribute, parameter))
                module._parameters[attribute] = self.stretched[name]  # type: ignore[assignment]

    def _is_known(self, site: CallSite, layout: ExampleLayout | None) -> bool:
        """Whether the inspection saw this call, or other calls of the module with the examples on the first axis."""
        if self._known_modules is None or site in self.layouts:
            return True
        return layout == "first" and site.module in self._known_modules

    def _unroll(self, module_name: str, module: nn.Module, names: Mapping[str, str]) -> None:
        """Let a recurrent layer compute step by step for this pass; each of its weights is a linear layer then."""
        forward = module.forward

        def report(weight: str, bias: str, inputs: Tensor, output: Tensor) -> None:
            own = {local: names[name] for local, name in (("weight", weight), ("bias", bias)) if name in names}
            if own and self._open and output.requires_grad:
                self._record(self._next_site(f"{module_name}.{weight}"), module, GATES, own, inputs, output)

        def stepwise(*args: Any, **kwargs: Any) -> Any:
            result = unrolled(module, report, args, kwargs)
            if result is not None:
                return result
            if self._open and self._known_modules is not None and torch.is_grad_enabled():
                raise UnassignableError(
                    f"{module_name!r} was called with a single sequence or with dropout, but not so when the net was "
                    "inspected, so its gradients cannot be assigned to examples",
                    names.values(),
                )
            return forward(*args, **kwargs)

        module.forward = stepwise
        self._unrolled.append(module)

    def _hook(self, module_name: str, kind: LayerKind, names: Mapping[str, str]) -> Any:
        def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if not self._open or (isinstance(output, Tensor) and not output.requires_grad):
                return None
            inputs = args[0] if args else next(iter(kwargs.values()), None)
            if isinstance(kind, LeafKind) and len(args) + len(kwargs) > 1:
                inputs = None  # a function of more than one input
            return self._record(self._next_site(module_name), module, kind, names, inputs, output)

        return record

    def _next_site(self, name: str) -> CallSite:
        self._times[name] = self._times.get(name, -1) + 1
        return CallSite(name, self._times[name])

    def _record(
        self, site: CallSite, module: nn.Module, kind: LayerKind, names: Mapping[str, str], inputs: Any, output: Any
    ) -> Tensor | None:
        """Record a call; returns its output in another form where one input serves all examples."""
        layout = self.layouts.get(site)
        if layout is None and isinstance(inputs, Tensor):
            layout = next(iter(possible_layouts(kind, inputs, self.count)), None)
        if not self._is_known(site, layout):
            raise UnassignableError(
                f"the call of {site.module!r} was not seen when the net was inspected, so its gradients cannot be "
                "assigned to examples",
                names.values(),
            )
        if layout is None or not isinstance(output, Tensor) or not isinstance(inputs, Tensor):
            return None
        changed = layout in ("single", "shared")
        if changed:  # one output per example, so that each has its own gradient
            output = self._for_each(output, layout)
        elif layout == "first" and len(inputs) != self.count:
            raise UnassignableError(
                f"{site.module!r} got {len(inputs)} inputs in a batch of {self.count}, but one per example when "
                "the net was inspected; if a net regroups its batch, its gradients cannot be assigned to examples",
                names.values(),
            )
        edge = get_gradient_edge(output)
        self.calls.append(HookedCall(site, module, kind, layout, inputs.detach(), inputs._version, edge, names))
        return output if changed else None
