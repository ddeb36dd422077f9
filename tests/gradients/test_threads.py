"""Threads that ask about the same net take turns: each has the answer of a single thread, and the net is as it was."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import upweight as uw  # noqa: E402
from upweight.testing.networks import cross_entropy  # noqa: E402

THREADS, QUERIES, WIDTH = 4, 15, 32
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(90, WIDTH)).astype(np.float32), RNG.integers(0, 3, 90)


@pytest.fixture
def hasty(monkeypatch):
    """Threads change places as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("is_stored", [False, True], ids=["captured", "stored"])
@pytest.mark.parametrize("recipe", [uw.GradDot(), uw.GradCos(), uw.Influence(curvature=uw.KFAC())], ids=str)
def test_a_fit_that_threads_share_answers_each_of_them(recipe, is_stored, hasty, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(WIDTH, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3))
    net[0].bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    store = uw.Store(tmp_path, uw.LowRank(), shard_bytes=2000) if is_stored else None
    fitted = recipe.fit(uw.TorchModel(net, cross_entropy), uw.Examples(X, Y), store=store)
    asked = [
        uw.Examples(X[k : k + QUERIES], Y[k : k + QUERIES], ids=[f"{k} {i}" for i in range(QUERIES)])
        for k in range(0, THREADS * QUERIES, QUERIES)
    ]
    expected = [fitted.attribute(queries).values for queries in asked]
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(5):
            for scores, values in zip(pool.map(fitted.attribute, asked), expected, strict=True):
                np.testing.assert_allclose(scores.values, values, rtol=1e-4, atol=1e-6 * np.abs(values).max())
    assert net.training and [p.requires_grad for p in net.parameters()] == [True, False] + [True] * 4
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
