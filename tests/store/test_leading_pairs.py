"""The pairs that a row keeps of a layer with several positions, beside the singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from upweight.store.leading_pairs import OVERSAMPLING, SMALL_SUBSPACE, leading_pairs  # noqa: E402


def matrices(p, q, decay, count=6):
    """Matrices (count, p, q) whose singular values are 1, decay, decay², …"""
    generator = torch.Generator().manual_seed(p + q)
    left, right = (torch.linalg.qr(torch.randn(count, side, min(p, q), generator=generator))[0] for side in (p, q))
    return left @ torch.diag(decay ** torch.arange(min(p, q))) @ right.transpose(1, 2)


@pytest.mark.parametrize(("p", "q"), [(20, 90), (90, 20), (100, 140), (140, 100)])
@pytest.mark.parametrize(("decay", "excess"), [(0.5, 1e-6), (0.9, 5e-3)])
def test_pairs_leave_as_little_out_as_the_best_approximation(p, q, decay, excess):
    rank, given = 4, matrices(p, q, decay)
    assert (min(p, q) >= SMALL_SUBSPACE * (rank + OVERSAMPLING)) == (min(p, q) >= 100)  # both ways are tried
    pairs = leading_pairs(given, rank)
    restored = pairs.matrix().reshape(given.shape)
    left_out = ((given.numpy() - restored) ** 2).sum(axis=(1, 2))
    least = (torch.linalg.svdvals(given)[:, rank:] ** 2).sum(dim=1).numpy()
    whole = (given.numpy() ** 2).sum(axis=(1, 2))
    assert (left_out <= least + excess * whole).all()


@pytest.mark.parametrize("size", [65, 130])
def test_matrices_of_low_rank_of_any_size_are_kept_whole(size):
    given = matrices(size, 128, 0.8)
    given = given[:, :, :3] @ given[:, :3, :].sum(dim=1, keepdim=True).expand(-1, 3, -1)
    given[:, : size // 2] = 0.0
    given *= 10.0 ** torch.tensor([-25.0, -12, -6, 0, 3, 6])[:, None, None]
    given[3] = 0.0
    restored = leading_pairs(given, 4).matrix().reshape(given.shape)
    largest = np.abs(given.numpy()).max(axis=(1, 2), keepdims=True)
    assert np.isfinite(restored).all() and (np.abs(restored - given.numpy()) <= 1e-5 * largest).all()


def test_pairs_of_an_example_do_not_depend_on_its_batch():
    given = matrices(110, 128, 0.9)
    whole, alone = leading_pairs(given, 4).matrix(), leading_pairs(given[2:3], 4).matrix()
    np.testing.assert_allclose(alone[0], whole[2], atol=1e-5)
