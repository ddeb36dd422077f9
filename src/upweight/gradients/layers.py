"""Layer kinds: how the input and the output gradient of a module give the per-example gradients of its parameters.

The equations are those of the backward pass of the layer, without the sum over examples. Every kind receives the input
as `prepare_input` returned it, and the output gradient `slope`, both with examples on the first axis.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from upweight.gradients.functional import call_with, no_word_of_slow_operators
from upweight.gradients.gradient_terms import DenseTerm, GradientTerm, LookupTerm, OuterTerm
from upweight.gradients.patches import PatchTerm, grouped_gradients, output_shape


class LayerKind(ABC):
    """One kind of layer."""

    positional = False  # whether the features may follow any number of axes of examples and positions, in any order
    shareable = True  # whether one input may serve all examples

    def prepare_input(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """The part that depends on the input only, computed once for all output gradients; here the input itself."""
        return inputs

    @abstractmethod
    def terms(self, module: nn.Module, inputs: Tensor, slope: Tensor) -> Mapping[str, GradientTerm]:
        """Local parameter name → its per-example gradients."""


class LinearKind(LayerKind):
    """y = x Wᵀ + b."""

    positional = True

    def terms(self, module: nn.Module, inputs: Tensor, slope: Tensor) -> Mapping[str, GradientTerm]:
        """Outer products of output gradients and activations."""
        a, s = _positions(inputs), _positions(slope)
        return {"weight": OuterTerm(s, a, (s.shape[-1], a.shape[-1])), "bias": DenseTerm(s.sum(1))}


class GatesKind(LinearKind):
    """A weight of a recurrent layer, whose positions are the steps: `recurrent_layers`."""

    shareable = False


class TransposedLinearKind(LayerKind):
    """y = x W + b with W stored as (inputs, outputs): `Conv1D` of transformers."""

    positional = True

    def terms(self, module: nn.Module, inputs: Tensor, slope: Tensor) -> Mapping[str, GradientTerm]:
        """Outer products of activations and output gradients."""
        a, s = _positions(inputs), _positions(slope)
        return {"weight": OuterTerm(a, s, (a.shape[-1], s.shape[-1]), swapped=True), "bias": DenseTerm(s.sum(1))}


class ConvolutionKind(LayerKind):
    """Convolution in 1 to 3 dimensions: a linear map of patches for each group of channels."""

    def terms(self, module: nn.Module, inputs: Tensor, slope: Tensor) -> Mapping[str, GradientTerm]:
        """Outer products of output gradients and patches; materialised at once if channels are grouped."""
        assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        s = slope.flatten(2).transpose(1, 2)
        weight: GradientTerm
        if module.groups == 1:
            if output_shape(module, inputs) != slope.shape:
                raise ValueError(f"an input of shape {tuple(inputs.shape)} with outputs {tuple(slope.shape)}")
            weight = PatchTerm(s, inputs, module)
        else:
            weight = DenseTerm(grouped_gradients(module, inputs, slope))
        return {"weight": weight} if module.bias is None else {"weight": weight, "bias": DenseTerm(s.sum(1))}


class EmbeddingKind(LayerKind):
    """A table whose rows are looked up; the row at `padding_idx` gets no gradient."""

    positional = True

    def terms(self, module: nn.Module, inputs: Tensor, slope: Tensor) -> Mapping[str, GradientTerm]:
        """Output gradients at the rows of the table that were looked up."""
        assert isinstance(module, nn.Embedding)
        ids, s = inputs.reshape(len(inputs), -1), slope.reshape(len(slope), -1, slope.shape[-1])
        if module.padding_idx is not None:
            s = s * (ids != module.padding_idx)[..., None]
        return {"weight": LookupTerm(ids, s, (module.num_embeddings, module.embedding_dim))}


class LayerNormKind(LayerKind):
    """LayerNorm and RMSNorm: y = w ∘ x̂ + b over the last axes."""

    positional = True

    def prepare_input(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """The normalised input x̂."""
        if isinstance(module, nn.LayerNorm):
            return functional.layer_norm(inputs, list(module.normalized_shape), eps=module.eps)
        assert isinstance(module, nn.RMSNorm)
        return functional.rms_norm(inputs, list(module.normalized_shape), eps=module.eps)

    def terms(self, module: nn.Module, inputs: Tensor, slope: Tensor) -> Mapping[str, GradientTerm]:
        """Output gradients times the normalised input, summed over positions."""
        assert isinstance(module, nn.LayerNorm | nn.RMSNorm)
        axes, b = tuple(module.normalized_shape), len(inputs)
        return {
            "weight": DenseTerm((slope * inputs).reshape(b, -1, *axes).sum(1)),
            "bias": DenseTerm(slope.reshape(b, -1, *axes).sum(1)),
        }


class ChannelNormKind(LayerKind):
    """GroupNorm and batch norm in eval mode: y = w_c x̂ + b_c for every channel c."""

    def prepare_input(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """The normalised input x̂."""
        if isinstance(module, nn.GroupNorm):
            return functional.group_norm(inputs, module.num_groups, None, None, module.eps)
        assert isinstance(module, nn.modules.batchnorm._BatchNorm)
        return functional.batch_norm(inputs, module.running_mean, module.running_var, eps=module.eps)

    def terms(self, module: nn.Module, inputs: Tensor, slope: Tensor) -> Mapping[str, GradientTerm]:
        """Output gradients times the normalised input, summed over positions."""
        return {
            "weight": DenseTerm((slope * inputs).flatten(2).sum(2) if slope.ndim > 2 else slope * inputs),
            "bias": DenseTerm(slope.flatten(2).sum(2) if slope.ndim > 2 else slope),
        }


class LeafKind(LayerKind):
    """Any other module without children: its backward pass, vectorised over examples by vmap."""

    def terms(self, module: nn.Module, inputs: Tensor, slope: Tensor) -> Mapping[str, GradientTerm]:
        """∂⟨slope, module(inputs)⟩/∂parameters of each example."""
        frozen = {name: p.detach().to(slope.dtype) for name, p in module.named_parameters(recurse=False)}

        def gradients(x: Tensor, s: Tensor) -> dict[str, Tensor]:
            def scalar(parameters: dict[str, Tensor]) -> Tensor:
                output: Tensor = call_with(module, parameters, x[None])
                return (output * s[None]).sum()

            return dict(torch.func.grad(scalar)(frozen))

        with no_word_of_slow_operators():
            return {name: DenseTerm(values) for name, values in torch.func.vmap(gradients)(inputs, slope).items()}


LAYER_KINDS: tuple[tuple[tuple[type[nn.Module], ...], LayerKind], ...] = (
    ((nn.Linear,), LinearKind()),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), ConvolutionKind()),
    ((nn.Embedding,), EmbeddingKind()),
    ((nn.LayerNorm, nn.RMSNorm), LayerNormKind()),
    ((nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), ChannelNormKind()),
)
_TRANSPOSED, _LEAF, GATES = TransposedLinearKind(), LeafKind(), GatesKind()


def layer_kind(module: nn.Module) -> LayerKind | None:
    """The kind of a module with parameters of its own; None if its gradients need a pass over the whole net.

    `inspection` detects a wrong guess (a subclass that computes something else) by comparing with autograd.
    """
    for types, kind in LAYER_KINDS:
        if isinstance(module, types):
            return kind
    if type(module).__name__ == "Conv1D" and getattr(module, "weight", torch.empty(0)).ndim == 2:
        return _TRANSPOSED
    return _LEAF if next(module.children(), None) is None else None


def _positions(tensor: Tensor) -> Tensor:
    return tensor.reshape(len(tensor), -1, tensor.shape[-1])
