"""The plain loop that SOURCE is given is the training that is retrained, with its flips and running statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("PIL")

import torch
from benchmarks.batch_norm import EVERY, SETTINGS, flipped, loss, recorded, resnet

import upweight as uw


def test_the_plain_loop_is_the_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    train = uw.Examples(rng.normal(size=(24, 3, 8, 8)).astype(np.float32), np.arange(24) % 10)
    training = uw.Training(**SETTINGS | {"epochs": 1, "batch_size": 4}, augment=flipped)
    model = uw.TorchModel.trained(resnet, loss, train, training=training)
    run = recorded(model, training, train, str(tmp_path / "run"), 1.0)
    for name, tensor in model.network.net.state_dict().items():
        torch.testing.assert_close(run.network.net.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)
    lighter = recorded(model, training, train, str(tmp_path / "lighter"), 0.9)
    expected = model.retrain(train, np.full(24, 0.9)).parameters
    np.testing.assert_allclose(lighter.parameters, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected - model.parameters).max() > 1e-3
    assert run.trajectory is not None and len(run.trajectory) == 6 // EVERY + 2
