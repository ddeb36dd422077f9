"""Square roots of the output Hessian, position by position: ε ↦ R ε with R Rᵀ = Λ.

For cross-entropy of logits z, Λ = c (diag(p) − p pᵀ) with p = softmax(z), and R = √c (diag(√p) − p √pᵀ): no matrix is
formed, however large the vocabulary. Whether a loss is cross-entropy is recognised from products with Λ.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from upweight.gradients.outputs import Outputs

MAX_BLOCK_NUMBERS = 1 << 25  # numbers of the blocks that are decomposed at a time: 256 MB in float64
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
    """The root for cross-entropy, whose tokens may be weighted; None for any other loss."""
    product, z = out.hessian_product(), out.wide_values()
    p = torch.softmax(z.double(), dim=-1)
    generator = torch.Generator().manual_seed(0)

    def compare() -> tuple[Tensor, Tensor, Tensor]:
        """A random u, the same for every example, Λ u, and (diag(p) − p pᵀ) u."""
        u = torch.randn(z.shape[1:], generator=generator, dtype=torch.float64).to(z).expand_as(z)
        wide = u.double()
        return wide, product(u).detach().double(), p * (wide - (p * wide).sum(-1, keepdim=True))

    u, actual, softmax = compare()
    scale = (u * actual).sum(-1, keepdim=True) / (u * softmax).sum(-1, keepdim=True).clamp_min(1e-300)
    _, actual, softmax = compare()
    tolerance = torch.finfo(z.dtype).eps ** 0.5
    if not float((scale * softmax - actual).abs().max()) <= tolerance * float(actual.abs().max()):
        return None
    strength = scale.clamp_min(0.0).sqrt()

    def root(signs: Tensor) -> Tensor:
        half = p.sqrt()
        along = half * signs
        return (strength * (along - p * (half * signs).sum(-1, keepdim=True))).to(z)

    return root


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
        along = (strength * signs.double().view(strength.shape))[..., None]
        image: Tensor = vectors @ along
        return image.reshape(signs.shape).to(signs)

    return root
