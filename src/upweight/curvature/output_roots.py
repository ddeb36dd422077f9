"""Square roots of the output Hessian, position by position: ε ↦ R ε with R Rᵀ = Λ.

For cross-entropy of logits z, Λ = c (diag(p) − p pᵀ) with p = softmax(z), and R = √c (diag(√p) − p √pᵀ): no matrix is
formed, however large the vocabulary. Whether a loss is cross-entropy is recognised from products with Λ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from upweight.gradients.outputs import Outputs

MAX_BLOCK_NUMBERS = 1 << 25  # numbers of the blocks that are decomposed at a time: 256 MB in float64
CERTAIN = 64  # times the precision of outputs: a token whose probabilities spread less is as good as certain
SMALLEST = 1e-300
Root = Callable[[Tensor], Tensor]


class LargeBlocksError(ValueError):
    """Blocks of the output Hessians of a batch that are too large to be decomposed together.

    Attributes:
        fitting: examples whose blocks can be; 0 if those of one cannot.
    """

    def __init__(self, message: str, fitting: int) -> None:
        super().__init__(message)
        self.fitting = fitting


def output_root(out: Outputs, joint: int, max_numbers: int = MAX_BLOCK_NUMBERS) -> Root:
    """R on tensors of the outputs' shape, for blocks over the last `joint` axes.

    Raises:
        LargeBlocksError: the blocks of the batch take more than `max_numbers` numbers.
    """
    root = _softmax_root(out) if joint == 1 else None
    return _decomposed_root(out, joint, max_numbers) if root is None else root


def _softmax_root(out: Outputs) -> Root | None:
    """The root for cross-entropy, whose tokens may be weighted; None for any other loss.

    Whether it is one does not depend on the batch: it is seen at outputs of zero first, where no token is certain. Of
    tokens that are as good as certain, Λ is rounding, and so is its scale: there the scale is that at zero.
    """
    at_zero = _softmax_probe(replace(out, values=torch.zeros_like(out.values)))
    if not at_zero.error <= at_zero.tolerance * at_zero.largest:
        return None
    known = torch.where(at_zero.scale.isfinite(), at_zero.scale, 0.0)
    probe = _softmax_probe(out, known)
    if not probe.error <= probe.tolerance * probe.largest:
        return None
    p, z = probe.p, out.wide_values()
    strength = probe.scale.clamp_min(0.0).sqrt()

    def root(signs: Tensor) -> Tensor:
        half = p.sqrt()
        along = half * signs
        return (strength * (along - p * (half * signs).sum(-1, keepdim=True))).to(z)

    return root


class _Probe(NamedTuple):
    """How far Λ of a batch is from cross-entropy's.

    Attributes:
        p: softmax of the outputs, in double precision.
        scale: c of every token, (B, …, 1).
        error: the largest difference of Λ u from c (diag(p) − p pᵀ) u, beyond rounding where c was known.
        largest: number in Λ u.
        tolerance: relative error up to which both are the same.
    """

    p: Tensor
    scale: Tensor
    error: float
    largest: float
    tolerance: float


def _softmax_probe(out: Outputs, known: Tensor | None = None) -> _Probe:
    """Compare products with Λ with those of cross-entropy; `known` is c where a token is too certain to tell it."""
    product, z = out.hessian_product(), out.wide_values()
    p = torch.softmax(z.double(), dim=-1)
    generator, eps = torch.Generator().manual_seed(0), torch.finfo(z.dtype).eps

    def compare() -> tuple[Tensor, Tensor, Tensor]:
        """A random u, the same for every example, Λ u, and u less its mean over p."""
        u = torch.randn(z.shape[1:], generator=generator, dtype=torch.float64).to(z).expand_as(z)
        wide = u.double()
        return wide, product(u).detach().double(), wide - (p * wide).sum(-1, keepdim=True)

    u, actual, centred = compare()
    spread = (p * centred**2).sum(-1, keepdim=True)  # uᵀ(diag(p) − p pᵀ)u without cancellation
    scale = (u * actual).sum(-1, keepdim=True) / spread.clamp_min(SMALLEST)
    if known is not None:
        scale = torch.where(spread > CERTAIN * eps, scale, known)
    _, actual, centred = compare()
    error = (scale * p * centred - actual).abs()
    if known is not None:
        error -= CERTAIN * eps * known.abs()
    return _Probe(p, scale, float(error.max()), float(actual.abs().max()), eps**0.5)


def _decomposed_root(out: Outputs, joint: int, max_numbers: int) -> Root:
    """The root from the eigenvalues of every block; those below zero are left out."""
    b, outputs = len(out.values), out.values[0].numel()
    size = prod(out.values.shape[out.values.ndim - joint :])
    if b * outputs * size > max_numbers:
        raise LargeBlocksError(
            f"expected blocks of the output Hessian of at most {max_numbers:,} numbers in a batch of {b}, got "
            f"{b * outputs * size:,}: the loss joins {size:,} of {outputs:,} outputs (tokens whose losses are not "
            "simply added?); use EmpiricalFisher() or Identity()",
            max_numbers // (outputs * size),
        )
    values, vectors = torch.linalg.eigh(out.hessian_blocks(joint).double())
    strength = values.clamp_min(0.0).sqrt()

    def root(signs: Tensor) -> Tensor:
        """The symmetric root: it does not depend on signs of eigenvectors, nor on those chosen of equal eigenvalues."""
        along = vectors.transpose(-1, -2) @ signs.double().view(strength.shape)[..., None]
        image: Tensor = vectors @ (strength[..., None] * along)
        return image.reshape(signs.shape).to(signs)

    return root
