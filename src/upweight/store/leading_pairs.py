"""The leading parts of per-example gradients of a layer, which a row keeps: pairs of vectors, or rows of a table."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.store.row_blocks import Lookups, Pairs

Floats = NDArray[np.float32]
ID = np.uint16  # of a row of a table, which are `MAX_ROTATED_AXIS` at most
OVERSAMPLING = 4  # vectors of a subspace beyond the rank
SUBSPACE_STEPS = 2  # products with the Gram matrix; for a flat spectrum the error is half a percent above the least
LEAST_KEPT = 0.9  # share of the squared gradient of a table that its kept rows have at least
SMALL_SUBSPACE = 3  # a subspace is small if a matrix has this many times as many rows as the subspace has vectors


def leading_pairs(joint: Tensor, rank: int) -> Pairs:
    """The best approximation of rank `rank` of matrices (B, p, q), from the leading left singular vectors."""
    is_wide = joint.shape[1] <= joint.shape[2]
    matrices = joint if is_wide else joint.transpose(1, 2)
    largest = matrices.abs().amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(matrices.dtype).tiny)
    short = _leading_vectors(matrices / largest, rank).transpose(1, 2)  # (B, rank, smaller side)
    long = short @ matrices
    left, right = (short, long) if is_wide else (long, short)
    return Pairs(as_floats(left), as_floats(right))


def _leading_vectors(matrices: Tensor, rank: int) -> Tensor:
    """The left singular vectors (B, p, rank) of the largest singular values of matrices (B, p, q).

    By subspace iteration from fixed vectors (Halko, Martinsson & Tropp 2011) if the subspace is small, which takes a
    fraction of all eigenvectors.
    """
    width = rank + OVERSAMPLING
    if matrices.shape[1] < SMALL_SUBSPACE * width:
        return _eigenvectors(matrices @ matrices.transpose(1, 2))[:, :, -rank:]
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(matrices.shape[2], width, generator=generator).to(matrices)
    basis = torch.linalg.qr(matrices @ start)[0]
    for _ in range(SUBSPACE_STEPS):
        basis = torch.linalg.qr(matrices @ (matrices.transpose(1, 2) @ basis))[0]
    inside = matrices.transpose(1, 2) @ basis  # (B, q, width)
    leading: Tensor = basis @ _eigenvectors(inside.transpose(1, 2) @ inside)[:, :, -rank:]
    return leading


def _eigenvectors(gram: Tensor) -> Tensor:
    """Eigenvectors of symmetric matrices (B, k, k), in ascending order of their eigenvalues.

    In double precision: in single precision LAPACK often does not converge if many eigenvalues are zero.
    """
    vectors: Tensor = torch.linalg.eigh(gram.double())[1]
    return vectors.to(gram)


def padded_pairs(pairs: Pairs, rank: int) -> Pairs:
    """The pairs with zeros up to this rank."""
    missing = rank - pairs.rank
    if missing <= 0:
        return pairs
    left, right = (np.pad(side, ((0, 0), (0, missing), (0, 0))) for side in (pairs.left, pairs.right))
    return Pairs(left, right)


def leading_lookups(ids: Tensor, vectors: Tensor, table: int, count: int) -> Lookups:
    """This many rows of a table for each example: those of the largest vectors, or all of them and zeros.

    Args:
        ids: (B, T) integers below `table`.
        vectors: (B, T, k).
        table: rows of the table.
        count: of each example.

    Raises ValueError if the others hold more than a tenth of the squared gradient of an example.
    """
    missing = count - ids.shape[1]
    if missing < 0:
        squares = vectors.square().sum(dim=2)
        largest, chosen = squares.topk(count, dim=1)
        if bool((largest.sum(dim=1) < LEAST_KEPT * squares.sum(dim=1)).any()):
            looked_up = int(torch.count_nonzero(squares, dim=1).max())
            raise ValueError(
                f"an example looks up {looked_up} rows of an embedding, and the store has room for {count}, as many as "
                "in the examples from which it was planned: put the longest example first and build another store"
            )
        ids, vectors = ids.gather(1, chosen), vectors.gather(1, chosen[:, :, None].expand(-1, -1, vectors.shape[2]))
    padding = (0, max(0, missing))
    numbers = np.pad(ids.cpu().numpy().astype(ID), ((0, 0), padding))
    return Lookups(numbers, np.pad(as_floats(vectors), ((0, 0), padding, (0, 0))), None, table)


def as_floats(tensor: Tensor) -> Floats:
    """The tensor as a contiguous array of single precision."""
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())
