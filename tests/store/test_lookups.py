"""Rows of embeddings that a store keeps as they are looked up, and matrices outside of layers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import spearmanr

import upweight as uw

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from support.network_families import cross_entropy  # noqa: E402
from support.stored_nets import QUERIES, TRAIN, model, relative_error  # noqa: E402
from upweight.store.encode_rows import decode_block, encode_block  # noqa: E402
from upweight.store.encodings.encoding import Layout  # noqa: E402
from upweight.store.factors import Factors  # noqa: E402
from upweight.store.leading_pairs import leading_lookups  # noqa: E402
from upweight.store.row_blocks import Lookups, Numbers, products, times_sizes  # noqa: E402

RNG = np.random.default_rng(0)
WORDS, LENGTH, WIDTH = 300, 6, 8
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def lookups(n=5, length=4, table=3, width=2, scaled=True):
    values = RNG.normal(size=(n, length, width)).astype(np.float32)
    scale = RNG.uniform(1, 2, (n, length)).astype(np.float32) if scaled else None
    return Lookups(RNG.integers(0, table, (n, length)).astype(np.uint16), values, scale, table)


def multiplied_out(block):
    """Example by example and row by row."""
    out = np.zeros((len(block), block.table, block.values.shape[2]))
    for i, ids in enumerate(block.ids):
        for t, place in enumerate(ids):
            out[i, place] += (1 if block.scale is None else block.scale[i, t]) * block.values[i, t]
    return out


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("at_a_time", [1, 10**6])
def test_products_with_lookups_are_those_of_the_rows_multiplied_out(scaled, at_a_time, monkeypatch):
    monkeypatch.setattr("upweight.store.row_blocks.NUMBERS_AT_A_TIME", at_a_time)
    rows, queries = lookups(scaled=scaled), Numbers(RNG.normal(size=(3, 6)).astype(np.float32))
    out, dense = np.ones((3, 5), np.float32), multiplied_out(rows)
    products(queries, rows, out)
    np.testing.assert_allclose(out, 1 + queries.values @ dense.reshape(5, -1).T, **CLOSE)
    np.testing.assert_allclose(rows.matrix(), dense.reshape(5, -1), **CLOSE)
    np.testing.assert_allclose(rows.take(np.array([4, 1])).matrix(), dense[[4, 1]].reshape(2, -1), **CLOSE)


def test_lookups_times_factors_are_the_multiplied_rows_times_them():
    rows, values = lookups(), RNG.uniform(1, 2, (3, 2))
    kept = rows.times(Factors(values, 0.0, (np.ones(3), np.ones(2))))
    np.testing.assert_allclose(multiplied_out(kept), multiplied_out(rows) * values, **CLOSE)
    left, right = RNG.uniform(1, 2, 3), RNG.uniform(1, 2, 2)
    sized = times_sizes(rows, left, right)
    np.testing.assert_allclose(multiplied_out(sized), multiplied_out(rows) * np.outer(left, right), **CLOSE)


@pytest.mark.parametrize(("precision", "error"), [("float32", 0), ("int8", 1 / 127), ("int4", 1 / 7), ("int3", 1 / 2)])
def test_encoded_lookups_are_read_back(precision, error):
    rows = lookups(width=5, scaled=False)
    layout = Layout("lookups", 3, 5, 4)
    arrays = encode_block("w", rows, precision, np.arange(5))
    read = decode_block("w", arrays, layout, precision)
    np.testing.assert_array_equal(read.ids, rows.ids)
    assert np.abs(read.vectors() - rows.values).max() <= error * np.abs(rows.values).max()
    assert sum(array.nbytes for array in arrays.values()) == 5 * layout.bytes(precision)


def test_of_more_rows_than_there_is_room_for_the_largest_are_kept():
    ids, vectors = torch.tensor([[2, 0, 1], [1, 1, 2]]), torch.tensor([[[3.0], [1], [-5]], [[-4], [2], [1]]])
    kept = leading_lookups(ids, vectors, 3, 2)
    np.testing.assert_array_equal(multiplied_out(kept)[:, :, 0], [[0, -5, 3], [0, -2, 0]])
    more = leading_lookups(ids, vectors, 3, 5)
    assert more.ids.shape == (2, 5)
    np.testing.assert_array_equal(multiplied_out(more)[:, :, 0], [[1, -5, 3], [0, -2, 1]])


class Reader(nn.Module):
    """A mean over words, each of which is looked up twice."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, ids):
        return self.head(torch.tanh(self.words(ids) + self.words(ids.flip(1)) ** 2).mean(1))


def reader(**settings):
    torch.manual_seed(0)
    ids = RNG.integers(0, WORDS, (60, LENGTH))
    ids[:, 0], ids[:, 1] = ids[:, 0] % 5, ids[:, 2]  # common words, and one that is there twice
    examples = uw.Examples(ids, RNG.integers(0, 3, 60), weights=RNG.integers(1, 3, 60))
    return uw.TorchModel(Reader().double(), cross_entropy, **settings), examples


@pytest.mark.parametrize("recipe", [uw.Influence(curvature=uw.EKFAC()), uw.RelatIF(curvature=uw.KFAC()), uw.GradCos()])
@pytest.mark.parametrize("l2", [0.0, 0.01])
def test_rows_of_an_embedding_are_kept_and_none_is_cut_off(recipe, l2, tmp_path):
    made, train = reader(objective=uw.Objective("sum", l2=l2) if l2 else "sum")
    store = uw.Store(tmp_path, uw.Coordinates(precision="float32"), shard_bytes=4000)
    layout = store.header(made, train).layouts["words.weight"]
    assert layout == Layout("lookups", WORDS, WIDTH, 2 * LENGTH)
    expected = recipe.fit(made, train).attribute(train.take(range(7))).values
    values = recipe.fit(made, train, store=store).attribute(train.take(range(7))).values
    assert relative_error(values, expected) <= 1e-5
    assert store.check() == []


def texts(lengths):
    """(model, examples) of texts with these lengths, which are cut to the longest of their batch."""

    def collate(examples):
        ids = torch.as_tensor(examples.x)
        return SimpleNamespace(x=ids[:, : int((ids >= 0).sum(1).max())], y=torch.as_tensor(examples.y))

    class Texts(Reader):
        def forward(self, ids):
            return self.head((torch.tanh(self.words(ids.clamp_min(0))) * (ids >= 0)[:, :, None]).sum(1))

    torch.manual_seed(0)
    ids = RNG.integers(0, WORDS, (len(lengths), max(lengths)))
    ids[np.arange(max(lengths)) >= np.array(lengths)[:, None]] = -1
    made = uw.TorchModel(Texts().double(), cross_entropy, collate=collate)
    return made, uw.Examples(ids, RNG.integers(0, 3, len(lengths)))


def test_of_texts_in_the_order_of_their_lengths_all_words_are_kept(tmp_path):
    made, train = texts([2] * 30 + [5] * 300)
    recipe, store = uw.Influence(curvature=uw.EKFAC()), uw.Store(tmp_path, uw.LowRank(rank=3, precision="float32"))
    expected = recipe.fit(made, train).attribute(train.take(range(40, 47))).values
    assert (
        relative_error(recipe.fit(made, train, store=store).attribute(train.take(range(40, 47))).values, expected)
        < 1e-5
    )


def test_a_text_of_which_most_words_have_no_room_is_refused(tmp_path):
    made, train = texts([2] * 150 + [9] + [2] * 149)
    with pytest.raises(ValueError, match=r"looks up 9 rows of an embedding, and the store has room for 2, .* longest"):
        uw.GradDot().fit(made, train, store=uw.Store(tmp_path, uw.LowRank(rank=3)))


class Matrices(nn.Module):
    """A perceptron whose weights are parameters of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(64, 24) / 8), nn.Parameter(torch.randn(24, 3) / 5)

    def forward(self, x):
        return torch.tanh(x @ self.first) @ self.second


def test_a_matrix_outside_of_layers_is_kept_like_that_of_a_layer(tmp_path):
    made, recipe = model(Matrices), uw.Influence(curvature=uw.EKFAC())
    expected = recipe.fit(made, TRAIN).attribute(QUERIES).values
    scores = recipe.fit(made, TRAIN, store=uw.Store(tmp_path)).attribute(QUERIES)
    assert min(scores.diagnostics["kept_share"].values()) > 0.99
    assert np.mean([spearmanr(*pair).statistic for pair in zip(scores.values, expected, strict=True)]) > 0.95
    assert uw.Store(tmp_path).plan(made, TRAIN).bytes_per_row < 1024


class Scaled(nn.Module):
    """A layer whose outputs are multiplied by a single number."""

    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(64, 3), nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.scale * self.layer(x)


def test_a_single_number_is_kept_and_its_curvature_is_saved(tmp_path):
    made, recipe = model(Scaled), uw.Influence(curvature=uw.EKFAC())
    fitted, encoding = recipe.fit(made, TRAIN), uw.LowRank(rank=3, precision="float32")
    expected = fitted.attribute(QUERIES).values
    stored = recipe.fit(made, TRAIN, store=uw.Store(tmp_path / "store", encoding))
    assert relative_error(stored.attribute(QUERIES).values, expected) <= 1e-6
    fitted.save(tmp_path / "fit.npz")
    loaded = recipe.load(tmp_path / "fit.npz", made, TRAIN)
    np.testing.assert_allclose(loaded.attribute(QUERIES).values, expected, rtol=1e-9, atol=1e-12)
