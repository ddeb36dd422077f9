"""Convolutions as linear maps of patches: the patches, their products, and gradients that hold no patches."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from upweight.core.blocks import blocks
from upweight.gradients.gradient_terms import MAX_TEMPORARY_NUMBERS, OuterTerm

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
MAX_CONVOLVED_NUMBERS = 1 << 18  # padded numbers in a convolution of many groups; of more, oneDNN's copies are large
_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


class PatchTerm(OuterTerm):
    """Gradients Σ_t s_t patch_tᵀ of a convolution, whose patches are formed when they are needed.

    Patches take `prod(kernel_size)` times the memory of the input, and every product needs them for a moment only.

    Args:
        slopes: (B, T, d_o), the output gradients.
        inputs: (B, channels, *size), the input.
        module: the convolution, without groups.
    """

    def __init__(self, slopes: Tensor, inputs: Tensor, module: Convolution) -> None:
        self.left, self.inputs, self.module = slopes, inputs, module
        self.shape, self.swapped = tuple(module.weight.shape), False

    @property
    def right(self) -> Tensor:
        """(B, T, d_i), the patches, formed anew."""
        return patches(self.module, self.inputs)

    @property
    def columns(self) -> int:
        """d_i."""
        return prod(self.shape[1:])

    def __len__(self) -> int:
        return len(self.left)

    @property
    def floats(self) -> int:
        """Those of the output gradients and of the input."""
        return (self.left[0].numel() + self.inputs[0].numel()) if len(self) else 0

    @property
    def length(self) -> int:
        """T."""
        return self.left.shape[1]

    def materialise(self) -> Tensor:
        """One batched GEMM for as many examples as their patches fit."""
        out = self.left.new_empty(len(self), self.left.shape[-1], self.columns)
        for where in blocks(len(self), max(1, MAX_TEMPORARY_NUMBERS // (self.length * self.columns))):
            torch.matmul(self.left[where].transpose(1, 2), patches(self.module, self.inputs[where]), out=out[where])
        return out.reshape(len(self), *self.shape)

    def take(self, where: slice) -> PatchTerm:
        """Views."""
        return PatchTerm(self.left[where], self.inputs[where], self.module)

    def scaled(self, by: Tensor) -> PatchTerm:
        """The output gradients times `by`."""
        return PatchTerm(self.left * by[:, None, None], self.inputs, self.module)

    def dot_vectors(self, block: Tensor, limit: int = MAX_TEMPORARY_NUMBERS) -> Tensor:
        """One convolution with a single vector as kernel; with several vectors, of materialised gradients."""
        if len(block) > 1:
            return super().dot_vectors(block, limit)
        images = rotated_patches(self.module, self.inputs, block.reshape(self.shape[0], self.columns).T, False)
        return (images * self.left).sum((1, 2))[:, None]

    def sums(self, membership: Tensor, limit: int = MAX_TEMPORARY_NUMBERS) -> Tensor:
        """One GEMM over the positions of a few examples at a time; several groups, of materialised gradients."""
        if len(membership) > 1:
            return super().sums(membership, limit)
        out = self.left.new_zeros(self.shape[0], self.columns)
        for where in blocks(len(self), max(1, limit // (self.length * self.columns))):
            weighted = self.left[where] * membership[0, where, None, None]
            out += (weighted.transpose(1, 2) @ patches(self.module, self.inputs[where])).sum(0)
        return out.reshape(1, *self.shape)

    def outer(self) -> OuterTerm:
        """The same gradients with their patches, for many products with the factors."""
        return OuterTerm(self.left, self.right, self.shape)

    def concatenated(self, terms: Sequence[OuterTerm]) -> OuterTerm:
        """These terms as one, without patches if all pictures are of one size."""
        convolutions = [term for term in terms if isinstance(term, PatchTerm)]
        if len({tuple(term.inputs.shape[1:]) for term in convolutions}) > 1 or len(convolutions) < len(terms):
            return super().concatenated(terms)
        left, inputs = (torch.cat([getattr(term, part) for term in convolutions]) for part in ("left", "inputs"))
        return PatchTerm(left, inputs, self.module)


def patches(module: Convolution, inputs: Tensor) -> Tensor:
    """The part of the input that every output position sees, (B, positions, channels · kernel)."""
    windows, dimensions = _windows(module, inputs), len(module.kernel_size)
    # Positions come last in memory: copying runs of pixels is twice as fast as copying single kernel windows.
    order = (0, 1, *range(2 + dimensions, 2 + 2 * dimensions), *range(2, 2 + dimensions))
    return windows.permute(order).flatten(1, 1 + dimensions).flatten(2).transpose(1, 2)


def patches_at(module: Convolution, inputs: Tensor, positions: Tensor) -> Tensor:
    """The patches of some output positions alone, `positions` (B, k) → (B, k, channels · kernel)."""
    padded, lengths = _padded(module, inputs), output_shape(module, inputs)[2:]
    size = padded.shape[2:]
    corners, remaining = torch.zeros_like(positions), positions
    offsets = torch.arange(padded.shape[1], device=inputs.device) * prod(size)
    for axis in reversed(range(len(size))):
        corners = corners + remaining % lengths[axis] * (module.stride[axis] * prod(size[axis + 1 :]))
        remaining = remaining // lengths[axis]
    for axis, count in enumerate(module.kernel_size):
        step = module.dilation[axis] * prod(size[axis + 1 :])
        offsets = offsets[..., None] + torch.arange(count, device=inputs.device) * step
    where = corners[:, :, None] + offsets.flatten()
    return padded.flatten(1).gather(1, where.flatten(1)).view(where.shape)


def rotated_patches(module: Convolution, inputs: Tensor, basis: Tensor, has_ones: bool) -> Tensor:
    """patches Q, (B, T, columns of Q), as one convolution with the columns of Q (d_i [+ 1], k) as kernels.

    Args:
        module: the convolution.
        inputs: its input.
        basis: Q.
        has_ones: whether Q has a last row for a column of ones beside the patches.
    """
    dimensions = len(module.kernel_size)
    kernels, constant = (basis[:-1], basis[-1]) if has_ones else (basis, None)
    kernels = kernels.T.reshape(-1, *module.weight.shape[1:])
    padded = _padded(module, inputs)
    images = _CONVOLVE[dimensions](padded, kernels, constant, module.stride, 0, module.dilation)
    return images.flatten(2).transpose(1, 2)


def grouped_gradients(module: Convolution, inputs: Tensor, slope: Tensor) -> Tensor:
    """Per-example weight gradients of a convolution with groups, (B, *weight shape), one product per kernel offset.

    Depthwise ones are a single convolution where oneDNN computes it: 2 to 15 times as fast there, slower in float64.
    """
    padded, dimensions, size = _padded(module, inputs), len(module.kernel_size), slope.shape[2:]
    is_fast = torch.backends.mkldnn.is_available() and slope.is_cpu and slope.dtype == torch.float32  # type: ignore[no-untyped-call]
    if is_fast and module.groups == module.in_channels and slope.numel():
        examples = blocks(len(slope), max(1, MAX_CONVOLVED_NUMBERS // padded[0].numel()))
        return torch.cat([_depthwise_gradients(module, padded[where], slope[where]) for where in examples])
    s = torch.unflatten(slope, 1, (module.groups, -1)).flatten(3)  # (B, groups, outputs, T)
    out = slope.new_empty(len(inputs), module.groups, s.shape[2], module.weight.shape[1], prod(module.kernel_size))
    for number in range(prod(module.kernel_size)):
        window, remaining = padded, number
        for axis in reversed(range(dimensions)):
            start = (remaining % module.kernel_size[axis]) * module.dilation[axis]
            remaining //= module.kernel_size[axis]
            stop = start + (size[axis] - 1) * module.stride[axis] + 1
            window = window[(slice(None),) * (2 + axis) + (slice(start, stop, module.stride[axis]),)]
        x = torch.unflatten(window, 1, (module.groups, -1)).flatten(3)
        if s.shape[2] == 1 and x.shape[2] == 1:  # depthwise
            out[:, :, 0, 0, number] = (s[:, :, 0] * x[:, :, 0]).sum(-1)
        else:
            out[..., number] = s @ x.transpose(2, 3)
    return out.reshape(len(inputs), *module.weight.shape)


def _depthwise_gradients(module: Convolution, padded: Tensor, slope: Tensor) -> Tensor:
    """Σ_t slope_t · padded_{stride · t + dilation · offset} of every channel: output gradients as kernels.

    Examples and channels together are the groups of this convolution; stride and dilation change places.
    """
    dimensions, count = len(module.kernel_size), len(slope) * module.groups
    pictures, kernels = padded.reshape(1, count, *padded.shape[2:]), slope.reshape(-1, 1, *slope.shape[2:])
    out = _CONVOLVE[dimensions](pictures, kernels, None, module.dilation, 0, module.stride, count)
    # strides may leave pixels at the end that no output saw
    for axis, offsets in enumerate(module.kernel_size):
        out = out.narrow(2 + axis, 0, offsets)
    return out.reshape(len(slope), *module.weight.shape)


def output_shape(module: Convolution, inputs: Tensor) -> tuple[int, ...]:
    """The shape of the module's output for this input, (B, channels, *size)."""
    padding = module._reversed_padding_repeated_twice[::-1]
    size = (
        (length + sum(padding[2 * axis : 2 * axis + 2]) - module.dilation[axis] * (module.kernel_size[axis] - 1) - 1)
        // module.stride[axis]
        + 1
        for axis, length in enumerate(inputs.shape[2:])
    )
    return (len(inputs), module.out_channels, *size)


def _padded(module: Convolution, inputs: Tensor) -> Tensor:
    padding = module._reversed_padding_repeated_twice
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return functional.pad(inputs, padding, mode=mode) if any(padding) else inputs


def _windows(module: Convolution, inputs: Tensor) -> Tensor:
    """Views of the input, (B, channels, *positions, *kernel)."""
    windows = _padded(module, inputs)
    for axis in range(len(module.kernel_size)):
        size, stride, dilation = module.kernel_size[axis], module.stride[axis], module.dilation[axis]
        windows = windows.unfold(2 + axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return windows
