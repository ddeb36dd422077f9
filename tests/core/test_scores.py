import html
import os
import subprocess
import sys
from dataclasses import replace

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from sklearn.linear_model import LogisticRegression

from upweight import Examples, Influence, Scores, Unit, explainable
from upweight.core.identity import checksum
from upweight.core.model import Predictions

numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)
a_name = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@st.composite
def any_scores(draw, elements=numbers):
    def some_ids(n):
        kinds = st.integers(-(2**63), 2**63 - 1), a_name
        return draw(st.one_of(*(st.lists(kind, min_size=n, max_size=n, unique=True) for kind in kinds)))

    m, n = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    return Scores(
        values=draw(hnp.arrays(np.float64, (m, n), elements=elements)),
        query_ids=np.array(some_ids(m)),
        train_ids=np.array(some_ids(n)),
        unit=draw(st.sampled_from(Unit)),
        measurement=draw(a_name),
        recipe=draw(st.dictionaries(a_name, st.one_of(a_name, numbers, st.booleans(), st.none()))),
        diagnostics={"warnings": draw(st.lists(a_name))},
        measured=draw(st.one_of(st.none(), hnp.arrays(np.float64, m, elements=elements))),
    )


def some_scores():
    return Scores([[3.0, -1.0, 0.0, 2.0], [0.5, 0.5, -4.0, -4.0]], ["q", "r"], ["a", "b", "c", "d"], Unit.EFFECT)


@pytest.mark.parametrize("k", [-1, 2.5, True, "2", None])
def test_a_k_that_is_not_a_count_is_refused(k):
    scores = Scores(np.array([[3.0, 2.0, 1.0, -1.0]]), np.array([0]), np.arange(4), Unit.RANK)
    for side in (scores.proponents, scores.opponents):
        with pytest.raises(ValueError, match=r"expected k of at least 0, got .*; pass a whole number"):
            side(0, k)
        assert side(0, np.int64(1)) and side(0, 0) == []


@given(scores=any_scores())
def test_a_round_trip_changes_no_bit(tmp_path_factory, scores):
    path = tmp_path_factory.mktemp("scores") / "scores.npz"
    scores.save(path)
    back = Scores.load(path)
    assert back.values.dtype == np.float64 and back.values.tobytes() == scores.values.tobytes()
    assert back.query_ids.tolist() == scores.query_ids.tolist()
    assert back.train_ids.tolist() == scores.train_ids.tolist()
    assert (back.unit, back.measurement) == (scores.unit, scores.measurement)
    assert (back.recipe, back.diagnostics) == (scores.recipe, scores.diagnostics)
    assert back.predictions is None
    assert (back.measured is None) == (scores.measured is None)
    assert back.measured is None or back.measured.tobytes() == scores.measured.tobytes()


def test_predictions_come_back_too(tmp_path):
    probabilities = np.array([[0.1, 0.9], [2 / 3, 1 / 3]])
    predictions = Predictions((np.int64(1), "spam"), ("ham", np.str_("spam")), probabilities)
    replace(some_scores(), predictions=predictions).save(tmp_path / "s")
    back = Scores.load(tmp_path / "s").predictions
    assert (back.predicted, back.classes) == ((1, "spam"), ("ham", "spam"))
    assert back.probabilities.tobytes() == probabilities.tobytes()
    replace(some_scores(), predictions=Predictions((0.1, 0.2))).save(tmp_path / "s")
    assert Scores.load(tmp_path / "s").predictions == Predictions((0.1, 0.2))


def test_numpy_in_the_diagnostics_comes_back_as_plain_values(tmp_path):
    news = {"damping": np.float64(0.1), "spectrum": np.array([1.0, 0.1]), "steps": np.int32(3), "ok": np.True_}
    replace(some_scores(), diagnostics=news).save(tmp_path / "s")
    assert Scores.load(tmp_path / "s").diagnostics == {"damping": 0.1, "spectrum": [1.0, 0.1], "steps": 3, "ok": True}


def test_another_process_without_scipy_or_sklearn_can_read_them(tmp_path):
    some_scores().save(tmp_path / "s.npz")
    code = (
        "import sys, upweight; print(upweight.Scores.load(sys.argv[1]).values.tolist());"
        "assert not {'scipy', 'sklearn', 'pandas', 'torch'} & set(sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "s.npz"], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == repr(some_scores().values.tolist())


@given(any_scores(), st.integers(1, 10))
def test_proponents_and_opponents_are_the_two_ends(scores, k):
    for query in scores.query_ids.tolist():
        row = dict(zip(scores.train_ids.tolist(), scores.row(query).tolist(), strict=True))
        helped, harmed = scores.proponents(query, k), scores.opponents(query, k)
        assert all(a.score == row[a.id] for a in helped + harmed)
        assert [a.score for a in helped] == sorted((v for v in row.values() if v > 0), reverse=True)[:k]
        assert [a.score for a in harmed] == sorted(v for v in row.values() if v < 0)[:k]


def test_equal_scores_come_in_the_order_of_the_training_set():
    assert [a.id for a in some_scores().proponents("r")] == ["a", "b"]
    assert [a.id for a in some_scores().opponents("r")] == ["c", "d"]


@given(any_scores(st.floats(-1e6, 1e6)), st.data())
def test_a_group_is_the_sum_of_its_columns(scores, data):
    n = len(scores.train_ids)
    names = data.draw(st.lists(st.sampled_from(["cats", "dogs", "…"]), min_size=n, max_size=n))
    grouped = scores.group(names)
    assert grouped.train_ids.tolist() == sorted(set(names))
    for column, name in enumerate(grouped.train_ids):
        members = scores.values[:, np.array(names) == name]
        rounding = 1e-15 * n * np.abs(members).sum(axis=1)  # in any order of the sum, however much of it cancels
        assert (np.abs(grouped.values[:, column] - members.sum(axis=1)) <= rounding).all()
    by_id = scores.group(dict(zip(scores.train_ids.tolist(), names, strict=True)))
    assert by_id.values.tobytes() == grouped.values.tobytes()


@pytest.mark.parametrize("by", [[1, 0, 1, 0], np.array([True, False, True, False]), pd.Series([7, 2, 7, 2])])
def test_groups_may_be_numbers(by):
    assert some_scores().group(by).values.tolist() == [[1.0, 3.0], [-3.5, -3.5]]


@pytest.mark.parametrize(
    ("by", "says"),
    [
        (["x", "y"], r"`by` to have one entry per example \(4\), got an array of shape \(2,\)"),
        ({"a": 1, "b": 2, "d": 1}, r"a group for every training example, got none for \['c'\]"),
        ([("a", 1), ("a", 2), ("b", 1), ("b", 1)], r"got an array of shape \(4, 2\)"),
        ([1, "x", 1, "x"], "all str, got int and str"),
        ([None, "x", "x", "x"], "all str, got NoneType and str"),
    ],
)
def test_groups_that_cannot_be_names_are_refused(by, says):
    with pytest.raises(ValueError, match=says):
        some_scores().group(by)


@given(any_scores(st.floats(-1e6, 1e6)))
def test_the_total_is_the_sum_over_queries(scores):
    total = scores.total()
    np.testing.assert_allclose(total.row("total"), scores.values.sum(axis=0), rtol=1e-12, atol=1e-9)
    assert total.train_ids.tolist() == scores.train_ids.tolist() and total.predictions is None
    if scores.measured is not None:
        np.testing.assert_allclose(total.measured, [scores.measured.sum()])


def test_a_frame_carries_the_ids():
    frame = some_scores().to_pandas()
    assert frame.loc["q", "b"] == -1.0 and frame.index.name == "query" and frame.columns.name == "train"


@pytest.mark.parametrize("query", ["z", 0, None])
def test_an_unknown_query_is_named_with_some_that_are_known(query):
    scores = some_scores()
    for ask in (scores.row, scores.proponents, scores.opponents):
        with pytest.raises(KeyError, match=r"no query has the id .*; query ids look like \['q', 'r'\]"):
            ask(query)
    with pytest.raises(KeyError, match="no query has the id 'q'"):
        replace(scores, query_ids=np.array([5, 6])).row("q")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([[1.0, 2.0]], r"shape \[query, train\] = \(2, 4\), got \(1, 2\)"),
        (np.ones((4, 2)), r"\(2, 4\), got \(4, 2\)"),
        ([[1, 2, 3, np.nan], [1, np.inf, 1, 1]], "2 scores are NaN or infinite; check the features and the damping"),
    ],
)
def test_values_that_cannot_be_scores_are_refused(values, says):
    with pytest.raises(ValueError, match=says):
        replace(some_scores(), values=values)


def test_every_query_has_one_measurement():
    with pytest.raises(ValueError, match=r"one measurement per query \(2,\), got \(3,\)"):
        replace(some_scores(), measured=np.zeros(3))


def test_text_and_html_name_the_shape_and_the_unit():
    scores = replace(
        some_scores(),
        train_ids=["<b>", "b", "c", "d"],
        recipe={"method": "Influence"},
        diagnostics={"warnings": ["stopped & short"]},
    )
    assert repr(scores) == "Scores(2 queries × 4 train, EFFECT of −loss, by Influence)"
    page = scores._repr_html_()
    assert html.escape(repr(scores)) in page and "stopped &amp; short" in page
    assert "&lt;b&gt; (+3)" in page and "<b> (" not in page


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "scores.npz"
    some_scores().save(path)
    before = path.read_bytes()

    def full_disk(file, **arrays):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full_disk)
        with pytest.raises(OSError, match="No space left"):
            replace(some_scores(), values=np.zeros((2, 4))).save(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            replace(some_scores(), values=np.zeros((2, 4))).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["scores.npz"]


def test_ids_that_are_objects_are_refused_before_anything_is_written(tmp_path):
    scores = replace(some_scores(), train_ids=np.array([("a",), None, 3, "d"], dtype=object))
    with pytest.raises(TypeError, match=r"array 'train_ids' holds Python objects, .* use str or numbers"):
        scores.save(tmp_path / "scores.npz")
    assert os.listdir(tmp_path) == []


def test_scores_know_the_queries_that_they_are_of(tmp_path):
    queries = Examples(np.eye(2), [0, 1])
    values = Scores(np.ones((2, 3)), queries.ids, [0, 1, 2], Unit.RANK)
    scores = replace(values, contents=(checksum(queries.ids), queries.checksum()))
    scores.save(tmp_path / "scores.uw")
    for same_scores in (scores, Scores.load(tmp_path / "scores.uw")):
        same_scores.require_queries(Examples(np.eye(2), [0, 1]))
        with pytest.raises(ValueError, match="other inputs or labels than when they were scored"):
            same_scores.require_queries(queries.replaced(y=[1, 1]))
        with pytest.raises(ValueError, match="exactly these queries"):
            same_scores.require_queries(queries.take([1, 0]))
    values.require_queries(queries.replaced(y=[1, 1]))  # of an earlier version
    replace(scores, values=scores.values[:1], query_ids=[0]).require_queries(queries.take([0]))


def test_scores_know_the_training_examples_that_they_are_of(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 2
    train, queries = Examples(x, y), Examples(x[:3], y[:3])
    scores = Influence().fit(explainable(LogisticRegression(tol=1e-8).fit(x, y), train), train).attribute(queries)
    scores.save(tmp_path / "scores.uw")
    for same_scores in (scores, Scores.load(tmp_path / "scores.uw"), scores.total()):
        same_scores.require_train(Examples(x.copy(), y.copy(), shown=[str(row) for row in x]))
        for other in (train.replaced(y=1 - y), Examples(x + 1, y), Examples(x, y, weights=y + 1.0)):
            with pytest.raises(ValueError, match="these training examples have other inputs, labels or weights"):
                same_scores.require_train(other)
    replace(scores, train_contents=None).require_train(train.replaced(y=1 - y))  # of an earlier version
    scores.require_train(train.take([1, 0]).replaced(y=[0, 0]))  # a selection is not known
    turned = train.take(np.arange(len(train))[::-1])
    scores.require_train(turned)
    with pytest.raises(ValueError, match="these training examples have other inputs, labels or weights"):
        scores.require_train(turned.replaced(y=1 - turned.y))
