"""Words, sparse columns and superpixels: what neighbours show, and what their features say of them."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import upweight as uw
from upweight.applications.interpretable.features import cosine_distances, shown_parts
from upweight.applications.interpretable.pictures import PictureFeatures, as_picture
from upweight.applications.interpretable.texts import SparseFeatures, TextFeatures

TEXTS = ["A good, good film!", "the plot is bad", "what a plot; good", "a bad film", "is it a film?", "the good plot"]


def inputs(drawn: Any) -> list[Any]:
    return [x for block in drawn.inputs() for x in block]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def test_the_number_of_hidden_features_is_uniform_and_which_are_hidden_is_random() -> None:
    shown = shown_parts(20_000, 5, np.random.default_rng(0))
    shares = np.bincount(5 - shown.sum(axis=1), minlength=6) / 20_000
    np.testing.assert_allclose(shares, [0, 0.2, 0.2, 0.2, 0.2, 0.2], atol=0.012)
    np.testing.assert_allclose(shown.mean(axis=0), 0.4, atol=0.012)
    rows = shown[:50].astype(float)
    exact = [1 - row.sum() / np.sqrt(row.sum() * 5) if row.any() else 1.0 for row in rows]
    np.testing.assert_allclose(cosine_distances(rows), exact)


def test_neighbours_of_a_text_lack_words_wherever_they_stand() -> None:
    train = uw.Examples(TEXTS)
    features = TextFeatures(train, train.take([0]), None)
    assert features.names == ("A", "good", "film") and features.width == 25
    drawn = features.random(200, np.random.default_rng(0))
    texts = inputs(drawn)
    assert texts[0] == TEXTS[0] and len(texts) == 201
    for text, row in zip(texts, drawn.rows, strict=True):
        assert [name in words(text) for name in features.names] == (row == 1).tolist()
        assert re.sub(r"\w", "", text) == re.sub(r"\w", "", TEXTS[0])
    np.testing.assert_allclose(features.weights(drawn.rows[:1]), 1.0)
    far = 100 * (1 - np.sqrt(1 / 3))
    np.testing.assert_allclose(features.weights(np.eye(3)), np.sqrt(np.exp(-(far**2) / 25**2)))


def test_words_that_are_hidden_are_replaced_by_words_of_the_training_example() -> None:
    train = uw.Examples(TEXTS)
    features = TextFeatures(train, train.take([0]), None)
    sources = np.array([1, 2, 3, 4] * 50)
    drawn = features.mixed(sources, np.random.default_rng(0))
    whole = 0
    for text, row, source in zip(inputs(drawn), drawn.rows, sources, strict=True):
        assert words(text) <= words(TEXTS[0]) | words(TEXTS[source])
        assert [name in words(text) for name in features.names] == (row == 1).tolist()
        whole += words(text) <= words(TEXTS[source])
    assert whole > 20
    taken = features.of_training(np.array([2, 4]))
    np.testing.assert_array_equal(taken.rows, [[0, 1, 0], [0, 0, 1]])
    assert inputs(taken) == [TEXTS[2], TEXTS[4]]


def test_a_text_is_explained_by_its_words() -> None:
    texts, y = TEXTS * 10, [1, 0, 1, 0, 1, 1] * 10
    train = uw.Examples(texts, y, labels={0: "poor", 1: "fine"})
    model = uw.explainable(make_pipeline(CountVectorizer(), LogisticRegression(tol=1e-8)).fit(texts, y), train)
    query = uw.Examples(["a bad, bad film"], [0], labels=train.labels)
    result = uw.local_model(model, query, train, neighbours=uw.Neighbours(samples=300, influential=20))
    assert result.label == "poor" and max(result.random.effects, key=result.random.effects.get) == "bad"
    assert max(result.influential.effects, key=result.influential.effects.get) == "bad"
    alone = uw.local_model(model, query, neighbours=uw.Neighbours(samples=300))
    assert alone.random.effects == result.random.effects and len(alone.fidelity) == 1
    with pytest.raises(ValueError, match="at least one word"):
        uw.local_model(model, uw.Examples(["?!"]), train)


def test_a_sparse_row_is_explained_by_its_columns_that_are_not_0() -> None:
    matrix = sparse.csr_matrix([[0, 2, 0, 1.5], [1, 0, 0, 1.5], [0, 2, 3, 0], [0, 0, 0, 1]])
    train = uw.Examples(matrix, names=list("abcd"))
    features = SparseFeatures(train, train.take([0]), None)
    assert features.names == ("b = 2", "d = 1.5")
    drawn = features.random(50, np.random.default_rng(0))
    for x, row in zip(inputs(drawn), drawn.rows, strict=True):
        np.testing.assert_array_equal(x.toarray().ravel(), [0, 2 * row[0], 0, 1.5 * row[1]])
    mixed = features.mixed(np.array([1, 2, 3] * 20), np.random.default_rng(0))
    for x, row in zip(inputs(mixed), mixed.rows, strict=True):
        values = x.toarray().ravel()
        assert values[0] == values[2] == 0 and (values[[1, 3]] == [2, 1.5]).tolist() == (row == 1).tolist()
    taken = features.of_training(np.array([1, 2]))
    np.testing.assert_array_equal(taken.rows, [[0, 1], [1, 0]])
    assert (next(taken.inputs()) != matrix[[1, 2]]).nnz == 0
    with pytest.raises(ValueError, match="zeros only"):
        SparseFeatures(train, uw.Examples(sparse.csr_matrix((1, 4))), None)


SEGMENTS = np.array([[7, 7, 2, 2, 2], [7, 2, 2, 2, 7]])


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 3), (3, 2, 5), (10,)])
def test_superpixels_are_hidden_by_their_mean_by_a_number_or_by_a_training_picture(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((5, *shape))
    shown = x.reshape(5, 2, 5) if len(shape) == 1 else None
    train = uw.Examples(x, shown=shown)
    segments = np.array([[1, 1, 0, 0, 0], [1, 0, 0, 0, 1]])
    whole = {(2, 5): segments, (2, 5, 3): segments[..., None], (3, 2, 5): segments[None], (10,): segments.ravel()}
    inside = np.broadcast_to(whole[shape], shape)
    features = PictureFeatures(train, train.take([0]), None, SEGMENTS, None)
    assert features.names == ("superpixel 0", "superpixel 1") and features.width == 0.25
    np.testing.assert_array_equal(features.segments, segments)
    drawn = features.random(40, rng)
    assert drawn.rows[0].all() and set(map(tuple, drawn.rows.tolist())) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    axes = {(2, 5, 3): (0, 1), (3, 2, 5): (1, 2)}.get(shape, tuple(range(len(shape))))
    for picture, row in zip(inputs(drawn), drawn.rows, strict=True):
        for j in (0, 1):
            part = np.where(inside == j, x[0], np.nan)
            expected = x[0] if row[j] else np.broadcast_to(np.nanmean(part, axis=axes, keepdims=True), shape)
            np.testing.assert_allclose(picture[inside == j], expected[inside == j])
    sources = np.array([1, 2, 3, 4] * 10)
    mixed = features.mixed(sources, rng)
    for picture, row, source in zip(inputs(mixed), mixed.rows, sources, strict=True):
        np.testing.assert_array_equal(picture, np.where(row[inside] == 1, x[0], x[source]))
    black = PictureFeatures(train, train.take([0]), None, SEGMENTS, 0.0).random(10, rng)
    for picture, row in zip(inputs(black), black.rows, strict=True):
        np.testing.assert_array_equal(picture, np.where(row[inside] == 1, x[0], 0.0))
    assert features.of_training(np.array([1])) is None


def test_a_picture_is_explained_by_the_superpixel_that_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((80, 8, 8)).astype(np.float32)
    y = (x[:, :4, :4].mean(axis=(1, 2)) > 0.5).astype(int)
    whole = uw.Examples(x.reshape(80, 64), y, shown=x)
    train = whole.take(range(70))
    model = uw.explainable(LogisticRegression(C=100, tol=1e-8, max_iter=1000).fit(train.x, train.y), train)
    quarters = np.repeat(np.repeat([[0, 1], [2, 3]], 4, axis=0), 4, axis=1)
    settings = uw.Neighbours(segments=lambda picture: quarters[: len(picture)], hidden=0.5, samples=200, influential=20)
    query = whole.take([int(np.argmax(np.abs(model.predict(whole).probabilities[:, 1] - 0.5)))])
    result = uw.local_model(model, query, train, neighbours=settings)
    assert next(iter(result.influential.effects)) == "superpixel 0" and result.features.kind == "picture"
    assert {f.neighbours for f in result.fidelity} == {"random", "influential"}
    with pytest.raises(ValueError, match=r"segments of the shape of the picture, \(8, 8\), got \(3, 3\)"):
        uw.local_model(model, query, train, neighbours=uw.Neighbours(segments=np.zeros((3, 3))))
    with pytest.raises(ValueError, match="at least two superpixels, got one"):
        uw.local_model(model, query, train, neighbours=uw.Neighbours(segments=np.zeros((8, 8))))
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(ImportError, match=r"superpixels need scikit-image; install upweight\[pictures\], or pass"):
        uw.local_model(model, query, train)


def test_superpixels_by_scikit_image_divide_small_and_large_pictures() -> None:
    pytest.importorskip("skimage.segmentation")
    rng = np.random.default_rng(0)
    for shape in ((8, 8), (40, 40, 3), (1, 12, 12)):
        x = rng.random((1, *shape)).round(1)
        x[0].flat[: x.size // 2] /= 10
        segments = PictureFeatures(None, uw.Examples(x), None, None, None).segments
        assert segments.shape == as_picture(x[0]).shape[:2] and 2 <= segments.max() + 1 <= segments.size // 2
        assert set(segments.ravel()) == set(range(segments.max() + 1))
