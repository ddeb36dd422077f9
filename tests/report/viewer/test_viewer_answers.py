"""What the viewer answers is what the scores say, searched and sorted as plain loops do."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

import upweight as uw
from upweight.core.scores import Scores, Unit
from upweight.report.document import safe_json


@pytest.fixture
def other(digits):
    """Scores by a second method, with queries and training examples in another order."""
    scores = digits[0]
    values = np.round(scores.values + np.random.default_rng(5).normal(size=scores.values.shape), 4)
    order = np.random.default_rng(6).permutation(60)
    flipped = Scores(values[::-1][:, order], scores.query_ids[::-1], scores.train_ids[order], Unit.RANK)
    return replace(flipped, recipe={"method": "GradDot"}), values


@pytest.fixture
def viewer(digits, other):
    return uw.Viewer(*digits, against=other[0])


def ask(viewer, path, **parameters):
    return json.loads(safe_json(viewer.answer(path, {name: str(value) for name, value in parameters.items()})))


def test_one_query_has_the_strongest_of_both_methods_with_their_ranks_by_the_other(viewer, digits, other):
    scores, values = digits[0], other[1]
    for q, query in enumerate(scores.query_ids.tolist()):
        part = ask(viewer, "query", at=q)
        assert part == ask(viewer, "query", id=query)
        for side, strongest in (("proponents", scores.proponents), ("opponents", scores.opponents)):
            expected = [[a.id, a.score, None] for a in strongest(query, 10)]
            assert part["entry"]["top"][side] == expected
            ranks = 1 + np.argsort(np.argsort(-values[q], kind="stable"), kind="stable")
            assert [row[2] for row in part["both"]["tops"][0][side]] == [ranks[place] for place, *_ in expected]
        highest = set(np.argsort(-values[q], kind="stable")[:10].tolist())
        assert {place for place, *_ in part["both"]["tops"][1]["proponents"]} == highest
        agreement = part["both"]["agreement"]
        assert agreement["spearman"] == pytest.approx(spearmanr(scores.values[q], values[q])[0])
        assert agreement["proponents"] == len(highest & {a.id for a in scores.proponents(query, 10)})


@pytest.mark.parametrize("sort", ["score", "strength", "rank", "id", "label", "other"])
@pytest.mark.parametrize("down", [0, 1])
def test_rows_are_searched_filtered_and_sorted_as_a_plain_loop_does(viewer, digits, other, sort, down):
    (scores, train, _), values = digits, other[1]
    keys = {
        "score": scores.values[2],
        "strength": np.abs(scores.values[2]),
        "rank": np.argsort(np.argsort(-scores.values[2], kind="stable"), kind="stable"),
        "id": scores.train_ids,
        "label": train.y,
        "other": values[2],
    }[sort]
    wanted = [i for i in range(60) if "1" in f"{train.ids[i]}\n{train.y[i]}" and train.y[i] == 1]
    wanted.sort(key=lambda i: (-1 if down else 1) * keys[i])
    shown = [
        row
        for page in (0, 1)
        for row in ask(viewer, "rows", at=2, text="1", label=1, sort=sort, down=down, page=page)["rows"]
    ]
    rows = shown[:20]
    assert [row["place"] for row in rows] == wanted
    assert [row["score"] for row in rows] == pytest.approx(scores.values[2][wanted])
    assert [row["other"] for row in rows] == pytest.approx(values[2][wanted])
    text = ask(viewer, "csv", at=2, text="1", label=1, sort=sort, down=down)["text"]
    table = list(csv.reader(io.StringIO(text)))
    assert [line[0] for line in table[1:]] == [str(train.ids[i]) for i in wanted]
    assert [float(line[2]) for line in table[1:]] == scores.values[2][wanted].tolist()


def test_a_page_beyond_the_last_one_is_the_last_one(viewer):
    part = ask(viewer, "rows", at=0, page=99)
    assert (part["page"], part["matching"], len(part["rows"])) == (2, 60, 10)


def test_queries_are_searched_by_label_and_by_mistake(viewer):
    assert [row["id"] for row in ask(viewer, "queries", wrong=1)["rows"]] == ["q3"]
    assert [row["id"] for row in ask(viewer, "queries", text="Q2")["rows"]] == ["q2"]
    assert ask(viewer, "queries", text="nothing")["total"] == 0


def test_an_example_names_the_queries_that_it_affects_most(viewer, digits):
    scores = digits[0]
    part = ask(viewer, "example", at=1, row=17)
    column = scores.values[:, 17]
    assert [query["score"] for query in part["queries"]["raised"]] == sorted(column[column > 0], reverse=True)
    assert [query["score"] for query in part["queries"]["lowered"]] == sorted(column[column < 0])
    assert part["mean"] == pytest.approx(column.mean(), rel=1e-5)


def test_the_whole_set_sums_the_scores_of_groups(viewer, digits, other):
    (scores, train, _), values = digits, other[1]
    part = ask(viewer, "whole")
    assert part["overview"]["count"] == 4 and [group["name"] for group in part["overview"]["groups"]] == ["0 → 1"]
    (by_label,) = part["groups"]
    for row in by_label["rows"]:
        sums = scores.values[:, train.y == int(row["name"])].sum(axis=1)
        expected = [sums.mean(), np.abs(sums).mean(), sums[3]]
        assert [row["mean"], row["strength"], row["onMistakes"]] == pytest.approx(expected, rel=1e-5)
    worst = [row["name"] for row in by_label["rows"] if row["worst"]]
    assert worst == [str(np.argmin([scores.values[3, train.y == c].sum() for c in range(3)]))]
    shared = [
        len({a.id for a in scores.proponents(query, 10)} & set(np.argsort(-values[q], kind="stable")[:10].tolist()))
        for q, query in enumerate(scores.query_ids.tolist())
    ]
    assert part["agreement"]["proponents"] == pytest.approx(np.mean(shared))


def test_columns_of_a_table_are_groups_and_are_searched(table):
    scores, train, queries = table
    viewer = uw.Viewer(scores, train, queries, by=["<b>town</b>"])
    (groups,) = ask(viewer, "whole")["groups"]
    size = np.sqrt(np.mean(scores.values[0] ** 2))  # RANK scores are compared in units of their query
    sums = {row["name"]: row["mean"] for row in groups["rows"]}
    assert sums == pytest.approx({"Ulm": 0.5 / size, "Bonn": -0.25 / size}, rel=1e-5)
    assert [row["place"] for row in ask(viewer, "rows", at=0, text="bonn")["rows"]] == [1]
    with pytest.raises(KeyError, match="no column 'country'"):
        uw.Viewer(scores, train, queries, by=["country"])


def test_scores_that_are_not_known_come_last_and_have_no_number(digits):
    scores, train, queries = digits
    values = scores.values.copy()
    values[:, 7] = np.nan
    unknown = replace(scores, values=values, diagnostics={"undefined": [7]})
    viewer = uw.Viewer(unknown, train, queries)
    for down in (0, 1):
        last = ask(viewer, "rows", at=0, page=9, down=down)["rows"][-1]
        assert (last["place"], last["score"], last["rank"]) == (7, None, 60)


def test_mapped_scores_are_those_of_the_file(digits, tmp_path):
    rng = np.random.default_rng(0)
    scores = Scores(rng.normal(size=(3, 50_001)), ["a", "b", "c"], np.arange(50_001), Unit.RANK)
    scores.save(tmp_path / "scores.npz")
    mapped = Scores.load(tmp_path / "scores.npz", mapped=True)
    np.testing.assert_array_equal(mapped.values, scores.values)
    assert not mapped.values.flags.writeable and mapped.train_ids.tolist() == scores.train_ids.tolist()
    content = bytearray((tmp_path / "scores.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "damaged.npz").write_bytes(content)
    with pytest.raises(ValueError, match="does not fit its checksum"):
        Scores.load(tmp_path / "damaged.npz", mapped=True)


def test_scores_of_other_data_are_refused_in_a_sentence(digits, other):
    scores, train, queries = digits
    with pytest.raises(ValueError, match="every query id of the scores to be in `queries`"):
        uw.Viewer(scores, train, queries.take([0, 1]))
    with pytest.raises(ValueError, match="every train id of the scores to be in `train`"):
        uw.Viewer(scores, train.take(range(30)), queries)
    with pytest.raises(ValueError, match=r"the same 60 training examples as the first, got 30 .* e.g. without 30"):
        few = replace(scores, values=scores.values[:, :30], train_ids=scores.train_ids[:30])
        uw.Viewer(scores, train, queries, against=few)
    with pytest.raises(TypeError, match=r"expected train as upweight\.Examples"):
        uw.Viewer(scores, train.x, queries)
    with pytest.raises(TypeError, match="expected `against` to be Scores of another method, got ndarray"):
        uw.Viewer(scores, train, queries, against=scores.values)


def test_queries_that_changed_since_are_refused():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    train = uw.Examples(rng.normal(size=(40, 2)), np.arange(40) % 2)
    model = uw.explainable(LogisticRegression(tol=1e-8).fit(train.x, train.y), train)
    scores = uw.Influence().fit(model, train).attribute(train.take(range(5)))
    uw.Viewer(scores, train, train)  # queries without scores are left out
    with pytest.raises(ValueError, match="other inputs or labels than when they were scored"):
        uw.Viewer(scores, train, train.replaced(x=train.x + 1))
    with pytest.raises(ValueError, match="these training examples have other inputs, labels or weights"):
        uw.Viewer(scores, train.replaced(y=train.y[::-1]), train)


@pytest.mark.parametrize(
    ("path", "parameters", "error", "words"),
    [
        ("secrets", {}, LookupError, "there is no 'secrets'"),
        ("query", {"at": "4"}, LookupError, "no number 4"),
        ("query", {"id": "q9"}, LookupError, "no query has the id 'q9'"),
        ("rows", {"at": "-1"}, ValueError, "expected a whole number as at, got '-1'"),
        ("rows", {}, ValueError, "expected a whole number as at, got ''"),
        ("rows", {"at": "0", "sort": "price"}, ValueError, "sorted by"),
        ("example", {"at": "0", "row": "²"}, ValueError, "expected a whole number as row"),
    ],
)
def test_wrong_questions_are_answered_with_a_sentence(viewer, path, parameters, error, words):
    with pytest.raises(error, match=words):
        viewer.answer(path, parameters)
