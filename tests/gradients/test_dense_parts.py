"""Parts of the matrix of captured gradients are those of the whole matrix, whatever the layers, weights and limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import upweight as uw
from upweight.gradients import dense_parts as module
from upweight.methods import trackstar


class Mixed(nn.Module):
    """An embedding, a normalisation, a linear layer of several positions, a convolution, and a layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.mixed = nn.Embedding(11, 6), nn.LayerNorm(6), nn.Linear(6, 5)
        self.convolution, self.twice, self.head = nn.Conv1d(5, 4, 3), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.mixed(self.norm(self.table(x))))
        hidden = torch.tanh(self.convolution(hidden.transpose(1, 2))).mean(dim=2)
        logits: torch.Tensor = self.head(torch.tanh(self.twice(torch.tanh(self.twice(hidden)))))
        return logits


def loss(net: nn.Module, batch: Any) -> Any:
    return nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")


@pytest.fixture(scope="module")
def data() -> tuple[nn.Module, uw.Examples]:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    weights = rng.choice([0.0, 1.0, 2.0], 17)
    return Mixed().double(), uw.Examples(rng.integers(0, 11, (17, 8)), rng.integers(0, 3, 17), weights=weights)


@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("held", [1 << 26, 500], ids=["all at once", "a few examples at a time"])
@pytest.mark.parametrize("width", [1, 7, 64, 10_000])
def test_parts_are_those_of_the_matrix(
    data: Any, monkeypatch: pytest.MonkeyPatch, l2: float, held: int, width: int
) -> None:
    net, train = data
    rows: Any = uw.TorchModel(net, loss, objective=uw.Objective("mean", l2=l2)).loss_rows(train)
    whole = rows.dense()
    monkeypatch.setattr(module, "MAX_CACHED_NUMBERS", held)
    monkeypatch.setattr(module, "streamed_numbers", lambda: 4 * 5 * width)  # five examples of a part
    size = whole.shape[1]
    columns = [slice(first, min(first + width, size)) for first in range(0, size, width)]
    out, seen = np.full_like(whole, np.nan), np.zeros_like(whole)
    for part, some, dense in rows.dense_parts(columns):
        out[part, some], seen[part, some] = dense, seen[part, some] + 1
    assert (seen == 1).all()
    assert np.allclose(out, whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("held", [1 << 26, 500], ids=["all at once", "a few examples at a time"])
def test_projections_are_those_of_the_dense_matrices(data: Any, monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    net, train = data
    monkeypatch.setattr(module, "MAX_CACHED_NUMBERS", held)
    monkeypatch.setattr(trackstar, "PROJECTION_ROWS", 50)
    model = uw.TorchModel(net, loss)
    rows: Any = model.loss_rows(train)
    fitted: Any = uw.TrackStar(directions=12, seed=4).fit(model, train)
    dense = rows.dense()
    drawn = [
        np.random.default_rng([4, number]).normal(scale=12**-0.5, size=(min(50, dense.shape[1] - first), 12))
        for number, first in enumerate(range(0, dense.shape[1], 50))
    ]
    expected = (dense * fitted._scales) @ np.concatenate(drawn)
    assert np.allclose(fitted._projected(rows), expected, rtol=1e-10, atol=1e-12)
    counts = train.weights
    squares = counts @ (dense / np.maximum(counts, 1.0)[:, None]) ** 2 / counts.sum()
    used = fitted._scales > 0
    assert np.allclose(fitted._scales[used], squares[used] ** -0.5, rtol=1e-10)


def test_random_directions_are_drawn_once_for_all_examples_that_have_room(
    data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, train = data
    drawn = list[slice]()
    draw = trackstar.FittedTrackStar._scaled_directions
    monkeypatch.setattr(
        trackstar.FittedTrackStar, "_scaled_directions", lambda own, where: drawn.append(where) or draw(own, where)
    )
    monkeypatch.setattr(trackstar, "PROJECTION_ROWS", 50)
    monkeypatch.setattr(module, "streamed_numbers", lambda: 200)  # one example at a time
    fitted: Any = uw.TrackStar(directions=12).fit(uw.TorchModel(net, loss), train)
    assert len(drawn) == -(-len(fitted._scales) // 50)
