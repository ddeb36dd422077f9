"""Results as tables in long form: pandas, polars and Arrow agree, and notebooks show labels and contents."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import upweight as uw
from support.report_stand_ins import HOSTILE

pd, pl, pa = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = rng.normal(size=(60, 2)) + 2 * np.eye(2)[y]
    labels = {0: "ham", 1: "spam " + HOSTILE}
    whole = uw.Examples(x, y, labels=labels, shown=[f"mail {i} {HOSTILE}" for i in range(60)])
    train, queries = whole.take(range(50)), whole.take(range(50, 60))
    model = uw.explainable(LogisticRegression(tol=1e-10).fit(train.x, train.y), train)
    scores = uw.Influence().fit(model, train).attribute(queries)
    return model, train, queries, scores


@pytest.fixture(scope="module")
def results(parts):
    """One result of most classes, by name."""
    model, train, queries, scores = parts
    one_by_one = uw.Retraining(processes=1)
    suspects = uw.mislabeled(model, train, budget=4, evaluation=queries)
    check = uw.verify(model, train, queries, scores, removals=3, retraining=one_by_one)
    named = [
        scores,
        uw.Influence().fit(model, train).top(queries, k=3),
        check,
        suspects,
        uw.explain(model, train, queries, removals=0),
        uw.overview(scores, queries),
        uw.Patch.of(train, {0: 1, 3: "drop"}),
        uw.prototypes(model, train, k=3),
        uw.what_if(model, train, queries, {"without two": uw.Change(remove=[0, 1])}, removals=0),
        uw.audit(uw.explain(model, train, queries, removals=0)),
        uw.detection_rates(suspects.score, train, np.array([0, 1])),
    ]
    return {type(result).__name__: result for result in named}


NAMES = [
    *("Scores", "Top", "Check", "Suspects", "Explanation", "Overview", "Patch", "Prototypes", "WhatIf", "Audit"),
    "Detection",
]


@pytest.mark.parametrize("name", NAMES)
def test_pandas_polars_and_arrow_have_the_same_table(results, name):
    result = results[name]
    columns = result.to_columns()
    frame = result.to_pandas(long=True) if name == "Scores" else pd.DataFrame(columns)
    polars, arrow = result.to_polars(), result.to_arrow()
    assert list(frame.columns) == polars.columns == arrow.column_names == list(columns)
    assert len({len(values) for values in columns.values()}) == 1
    assert pl.DataFrame(result).equals(polars) or pl.DataFrame(result).shape == polars.shape
    for column in columns:
        tables = [frame[column].tolist(), polars[column].to_list(), arrow[column].to_pylist()]
        expected, *others = [[None if pd.isna(value) else value for value in table] for table in tables]
        assert others == [expected, expected]
    assert pa.table(result).column_names == arrow.column_names


def test_the_long_form_of_scores_has_every_pair(parts, results):
    scores = parts[3]
    long = results["Scores"].to_pandas(long=True).set_index(["query", "train"])["score"]
    for q in (50, 59):
        for i in (0, 17, 49):
            assert long[q, i] == scores.values[q - 50, i]
    assert scores.to_pandas().loc[50, 17] == long[50, 17]


def test_rows_are_what_the_results_say(results, parts):
    check, suspects = results["Check"], results["Suspects"]
    table = check.to_pandas()
    assert len(table) == check.predicted.size
    row = table[(table["query"] == 52) & (table["removal"] == check.removals[1].name)].iloc[0]
    assert (row["predicted"], row["actual"]) == (check.predicted[2, 1], check.actual[2, 1])
    assert suspects.to_pandas()["id"].tolist() == suspects.ids.tolist()
    what_if = results["WhatIf"].to_pandas()
    assert what_if["predicted"].tolist() == results["WhatIf"].predicted[:, 0].tolist()
    assert results["Patch"].to_pandas()["id"].tolist() == [0, 3]


@pytest.mark.parametrize("name", ["Suspects", "Explanation", "Prototypes", "WhatIf", "Audit"])
def test_notebooks_show_labels_and_contents_as_text(results, name):
    html = results[name]._repr_html_()
    assert "mail" in html and "ham" in html
    assert "<script" not in html and "<img" not in html and "&lt;script&gt;" in html


def test_pictures_are_small_pictures_in_a_notebook(parts):
    model, train, _, _ = parts
    pictures = np.random.default_rng(0).integers(0, 255, (50, 90, 90, 3)).astype(np.uint8)
    html = uw.mislabeled(model, train.replaced(shown=pictures), budget=3)._repr_html_()
    assert html.count("<img ") == 3 and len(html) < 30_000


@pytest.mark.parametrize("name", NAMES)
def test_every_result_shows_itself_in_a_notebook(results, name):
    html = results[name]._repr_html_() if hasattr(results[name], "_repr_html_") else ""
    assert html.count("<table") >= 1 and len(html) < 60_000


def test_columns_of_different_kinds_become_texts_or_floats():
    from upweight.core.tabular import Tabular

    class Mixed(Tabular):
        def _rows(self):
            yield {"a": 1, "b": "x", "c": {"d": 1.5}, "e": [1, 2], "f": [{"g": 1}], "h": True}
            yield {"a": 2.5, "b": 7, "c": {"d": None}, "e": (0.5,), "h": None, "i": np.float64(3)}

    assert Mixed().to_columns() == {
        "a": [1.0, 2.5],
        "b": ["x", "7"],
        "c.d": [1.5, None],
        "e": [[1.0, 2.0], [0.5]],
        "h": [True, None],
        "i": [None, 3.0],
    }
    assert Mixed().to_arrow().num_rows == Mixed().to_polars().height == 2
