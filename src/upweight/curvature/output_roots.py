"""Output roots: ε ↦ R ε with R Rᵀ = Λ, the Hessian of the loss in the outputs, position by position.

For cross-entropy of logits z, Λ = c (diag(p) − p pᵀ) with p = softmax(z), and R = √c (diag(√p) − p √pᵀ): no matrix is
formed, however large the vocabulary. Whether a loss is one is seen from Λ itself.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from upweight.gradients.outputs import Outputs

MAX_BLOCK_NUMBERS = 1 << 25  # numbers of blocks that are decomposed at a time: 256 MB in float64
Root = Callable[[Tensor], Tensor]


def output_root(out: Outputs, joint: int) -> Root:
    """R on tensors of the outputs' shape, for blocks over the last `joint` axes.

    Raises ValueError where the blocks of one example take more than `MAX_BLOCK_NUMBERS` numbers.
    """
    found = _softmax(out) if joint == 1 else None
    return _decomposed(out, joint) if found is None else found


def _softmax(out: Outputs) -> Root | None:
    """Of cross-entropy, tokens with weights of their own or none; None for any other loss."""
    product, z = out.hessian_product(), out.values.detach()
    p = torch.softmax(z.double(), dim=-1)
    drawn = torch.Generator().manual_seed(0)

    def bent() -> tuple[Tensor, Tensor, Tensor]:
        u = torch.randn(z.shape, generator=drawn, dtype=torch.float64).to(z)
        wide = u.double()
        return wide, product(u).detach().double(), p * (wide - (p * wide).sum(-1, keepdim=True))

    u, found, plain = bent()
    scale = (u * found).sum(-1, keepdim=True) / (u * plain).sum(-1, keepdim=True).clamp_min(1e-300)
    _, found, plain = bent()
    coarse = torch.finfo(z.dtype).eps ** 0.5
    if not float((scale * plain - found).abs().max()) <= coarse * float(found.abs().max()):
        return None
    strength = scale.clamp_min(0.0).sqrt()

    def root(signs: Tensor) -> Tensor:
        half = p.sqrt()
        along = half * signs
        return (strength * (along - p * (half * signs).sum(-1, keepdim=True))).to(z)

    return root


def _decomposed(out: Outputs, joint: int) -> Root:
    """By eigenvalues of every block, those below zero left out."""
    b, each = len(out.values), out.values[0].numel()
    size = prod(out.values.shape[out.values.ndim - joint :])
    if b * each * size > MAX_BLOCK_NUMBERS:
        raise ValueError(
            f"expected blocks of the output Hessian of at most {MAX_BLOCK_NUMBERS:,} numbers in a batch of {b}, got "
            f"{b * each * size:,}: the loss joins {size:,} of {each:,} outputs (tokens whose losses are not simply "
            "added?); take EmpiricalFisher() or Identity()"
        )
    values, vectors = torch.linalg.eigh(out.hessian_blocks(joint).double())
    strength = values.clamp_min(0.0).sqrt()

    def root(signs: Tensor) -> Tensor:
        along = (strength * signs.double().view(strength.shape))[..., None]
        found: Tensor = vectors @ along
        return found.reshape(signs.shape).to(signs)

    return root
