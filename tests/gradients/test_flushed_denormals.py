"""Subnormal numbers are flushed in our own products alone, and the processor's setting is the user's again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import upweight as uw
from upweight.gradients.flushed_denormals import SUBNORMAL, flushed_denormals


def is_flushed() -> bool:
    return not bool(torch.tensor(SUBNORMAL) * 1.0)


@pytest.fixture
def _restored():
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot flush subnormal numbers")
    yield
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.usefixtures("_restored")
def test_the_setting_of_the_user_is_restored(before):
    torch.set_flush_denormal(before)
    with flushed_denormals():
        assert is_flushed()
        with flushed_denormals():
            assert is_flushed()
        assert is_flushed()
    assert is_flushed() == before
    with pytest.raises(RuntimeError, match="stop"), flushed_denormals():
        raise RuntimeError("stop")
    assert is_flushed() == before


@pytest.mark.usefixtures("_restored")
def test_a_loss_of_a_subnormal_probability_is_finite():
    """log of a probability of 1e-40, which a loss that clamps it from above differentiates as a constant."""
    seen: list[bool] = []

    def loss(net, batch):
        seen.append(is_flushed())
        chance = torch.full((len(batch.x),), SUBNORMAL)
        return -chance.log() + net(batch.x).square().sum(dim=1)

    examples = uw.Examples(np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32))
    fitted = uw.Influence(curvature=uw.EKFAC()).fit(uw.TorchModel(nn.Linear(3, 2), loss), examples)
    assert np.isfinite(fitted.attribute(examples).values).all()
    assert seen
    assert not any(seen)
