"""A training of Lightning is recorded as a loop that is written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import upweight as uw

try:
    import lightning.pytorch as pl
except ImportError:
    pl = pytest.importorskip("pytorch_lightning")

X, Y = torch.randn(24, 5, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3


def loss(net: Any, batch: Any) -> torch.Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


class Classifier(pl.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6), nn.GELU(), nn.Linear(6, 3))

    def forward(self, x: torch.Tensor) -> Any:
        return self.net(x)

    def training_step(self, batch: Any, number: int) -> Any:
        _, (x, y) = batch
        return F.cross_entropy(self(x), y)

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.SGD(self.parameters(), 0.2, momentum=0.9)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: 1.0 / (t + 1))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(folder: Any, loader: Any, **settings: Any) -> tuple[Any, uw.LightningTrajectory]:
    torch.manual_seed(0)
    module, recorder = Classifier(), uw.LightningTrajectory(folder)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[recorder], default_root_dir=folder, **settings,
    )  # fmt: skip
    trainer.fit(module, loader)
    return module, recorder


@pytest.mark.parametrize("accumulated", [1, 2, 3])
def test_steps_are_recorded_with_the_rate_that_was_used(tmp_path: Any, accumulated: int) -> None:
    loader = uw.indexed(DataLoader(TensorDataset(X, Y), batch_size=6, shuffle=True))
    module, recorder = fit(tmp_path, loader, gradient_clip_val=0.5, accumulate_grad_batches=accumulated)
    steps = 2 * -(-4 // accumulated)  # the last step of an epoch may accumulate fewer batches
    assert np.allclose(recorder.trajectory.rates(), 0.2 / np.arange(1, steps + 1))
    model = uw.TorchModel(module.eval(), loss, trajectory=recorder.trajectory)
    fitted = uw.SOURCE().fit(model, uw.Examples(X.numpy(), Y.numpy()))
    assert fitted.diagnostics["checked_steps"] == steps and fitted.diagnostics["warnings"] == []
    assert fitted.attribute(uw.Examples(X[:2].numpy(), Y[:2].numpy())).values.any()


def test_batches_without_ids_are_refused_at_the_first_step(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"uw\.indexed\(loader\)"):
        fit(tmp_path, DataLoader(TensorDataset(X), batch_size=6))
    with pytest.raises(ValueError, match='gradient_clip_algorithm="norm"'):
        loader = uw.indexed(DataLoader(TensorDataset(X, Y), batch_size=6))
        fit(tmp_path / "value", loader, gradient_clip_val=0.5, gradient_clip_algorithm="value")
