"""The encoding of a store of which nothing was said: what it keeps in a fiftieth of the bytes of a gradient."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

import upweight as uw

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from support.network_families import cross_entropy  # noqa: E402

RANDOM = np.random.default_rng(0)
TRAIN = uw.Examples(RANDOM.normal(size=(4, 3, 8, 8)).astype(np.float32), np.arange(4) % 3)


def convolutional(channels: int, depth: int, width: int | None = None) -> uw.TorchModel:
    """Convolutions, then a mean over positions, or a layer of this width for all of them."""
    torch.manual_seed(0)
    convolved = [nn.Conv2d(3 if not place else channels, channels, 3, padding=1) for place in range(depth)]
    if width is None:
        return uw.TorchModel(
            nn.Sequential(*convolved, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)), cross_entropy
        )
    layers = nn.Flatten(), nn.Linear(64 * channels, width), nn.Linear(width, 3)
    return uw.TorchModel(nn.Sequential(*convolved, *layers), cross_entropy)


def plan(model: uw.TorchModel, folder, encoding: uw.Encoding | None = None):
    chosen = uw.Store(folder, encoding).header(model, TRAIN)
    return chosen.encoding, chosen.bytes_per_row, 4 * model.network.size // 50


def test_a_large_linear_layer_leaves_room_for_all_directions_of_convolutions(tmp_path):
    encoding, size, most = plan(convolutional(16, 2, width=128), tmp_path)
    assert encoding == uw.LowRank(rank=128, precision="int8") and size <= most


def test_a_small_net_keeps_all_directions_in_two_kilobytes(tmp_path):
    made = convolutional(8, 3)
    encoding, size, most = plan(made, tmp_path / "store")
    assert encoding == uw.LowRank(rank=8, precision="int8") and most < 1024 < size <= 2048
    recipe, queries = uw.Influence(curvature=uw.EKFAC()), TRAIN
    expected = recipe.fit(made, TRAIN).attribute(queries).values
    kept = recipe.fit(made, TRAIN, store=uw.Store(tmp_path / "store")).attribute(queries).values
    assert np.mean([spearmanr(*pair).statistic for pair in zip(kept, expected, strict=True)]) > 0.995


def test_otherwise_rows_have_as_many_pairs_as_there_is_room_for(tmp_path):
    encoding, size, most = plan(convolutional(48, 4), tmp_path)
    assert isinstance(encoding, uw.Coordinates) and encoding.rank > 4 and size <= most
    more = uw.Coordinates(rank=encoding.rank + 1, directions=encoding.directions)
    assert plan(convolutional(48, 4), tmp_path, more)[1] > most


def test_and_few_directions_of_four_pairs_in_a_narrow_net(tmp_path):
    encoding, size, most = plan(convolutional(16, 10), tmp_path)
    assert isinstance(encoding, uw.Coordinates) and encoding.rank == 4 and 32 <= encoding.directions < 128
    assert size <= most
    more = uw.Coordinates(rank=4, directions=encoding.directions + 4)
    assert plan(convolutional(16, 10), tmp_path, more)[1] > most


def test_a_wide_net_keeps_products_in_96_directions(tmp_path):
    encoding, size, most = plan(convolutional(128, 4), tmp_path)
    assert encoding == uw.LoGra(directions=96, precision="int3") and size <= most


class Words(nn.Module):
    """A model of words: an embedding, two layers for each position, and a head over the vocabulary."""

    def __init__(self, words: int, width: int):
        super().__init__()
        self.table, self.hidden = nn.Embedding(words, width), nn.Linear(width, 4 * width)
        self.back, self.head = nn.Linear(4 * width, width), nn.Linear(width, words)

    def forward(self, ids):
        x = self.table(ids)
        return self.head(x + self.back(torch.relu(self.hidden(x))))


@pytest.mark.parametrize(("words", "is_cut"), [(300, False), (100, True)])
def test_the_head_of_a_small_language_model_keeps_all_words(words, is_cut, tmp_path):
    torch.manual_seed(0)
    made = uw.TorchModel(Words(words, 24), lambda net, batch: net(batch.x).logsumexp(2).sum(1))
    train = uw.Examples(RANDOM.integers(0, words, (20, 8)))
    header = uw.Store(tmp_path).header(made, train)
    encoding, most = header.encoding, max(4 * made.network.size // 50, 1024)
    assert header.layouts["head.weight"].left == words and header.layouts["table.weight"].form == "lookups"
    assert header.bytes_per_row <= most and isinstance(encoding, uw.Coordinates if is_cut else uw.LowRank)
    if not is_cut:
        more = uw.LowRank(rank=encoding.rank + 1, precision="int4")
        assert encoding.precision == "int4" and uw.Store(tmp_path, more).header(made, train).bytes_per_row > most


def test_a_store_is_asked_in_the_encoding_that_it_was_built_in(tmp_path):
    made, older = convolutional(16, 2, width=128), uw.LoGra(directions=96, precision="int3")
    uw.Store(tmp_path, older).build(made, TRAIN)
    assert plan(made, tmp_path)[0] == older
    scores = uw.GradCos().fit(made, TRAIN, store=uw.Store(tmp_path)).attribute(TRAIN).values
    assert np.isfinite(scores).all()
