"""The rows of a table on a page: every value in full, all columns if they fit, and few bytes if they do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import upweight as uw
from upweight.core.scores import Scores, Unit
from upweight.report.page_limits import PageLimits
from upweight.report.previews import Album
from upweight.report.table_cells import Cells


def cells_of(train: uw.Examples, queries: uw.Examples, max_bytes: int = 4_000_000) -> dict[str, list[Any]]:
    """Column name → what the page shows for all training rows and then all queries, added in mixed order."""
    cells = Cells(train, queries, max_bytes)
    rows = [("query", i) for i in queries.ids.tolist()] + [("train", i) for i in train.ids.tolist()[::-1]]
    numbers = [cells.add(side, identifier) for side, identifier in rows]
    order = [*numbers[len(queries) :][::-1], *numbers[: len(queries)]]
    data = cells.data()
    return {
        column["name"]: [
            column["values"][row] if "values" in column else column["levels"][column["codes"][row]] for row in order
        ]
        for column in data["columns"]
    }


def test_every_value_is_shown_in_full() -> None:
    x = {
        "patient": [145_682_001, 7, 145_682_003],
        "as_float": [145_682_001.0, np.nan, 145_682_003.0],
        "beyond_floats": [2**60 + 1, 2**60 + 2, 3],
        "amount": [1_456_821.53, 0.1234567, 1e-7],
        "truth": [True, False, True],
        "day": pd.to_datetime(["2024-01-01", "2024-01-02", None]),
        "town": ["Ulm", None, "NA"],
        "count": pd.array([1, None, 3], dtype="Int64"),
        "endless": [np.inf, 1.0, 2.0],
    }
    examples = uw.Examples(pd.DataFrame(x), [0, 1, 0])
    shown = cells_of(examples, examples.take([1]))
    for name, (first, second, third) in {
        "patient": (145_682_001, 7, 145_682_003),
        "as_float": (145_682_001, None, 145_682_003),
        "beyond_floats": (str(2**60 + 1), str(2**60 + 2), "3"),
        "amount": (1_456_821.5, 0.123457, 1e-7),
        "truth": ("True", "False", "True"),
        "day": ("2024-01-01 00:00:00", "2024-01-02 00:00:00", "missing"),
        "town": ("Ulm", "missing", "NA"),
        "count": (1, None, 3),
        "endless": ("inf", "1", "2"),
    }.items():
        assert shown[name] == [first, second, third, second], name


def test_rows_of_both_sides_keep_their_values_in_every_kind_of_table() -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(size=(6, 30)).round(3)
    frame = pd.DataFrame(array, columns=[f"x{i}" for i in range(30)])
    kinds = [array, frame, array.astype(object)]
    try:
        import polars as pl

        kinds.append(pl.from_pandas(frame))
    except ImportError:
        pass
    for x in kinds:
        examples = uw.Examples(x, [0, 1] * 3)
        shown = cells_of(examples.take(range(4)), examples.take([4, 5]))
        assert shown == {f"x{i}": array[:, i].tolist() for i in range(30)}


def test_columns_in_another_order_are_matched_by_name_and_other_columns_are_not_compared() -> None:
    frame = pd.DataFrame({"age": [20, 30, 40], "town": ["Ulm", "Bonn", "Ulm"]})
    train, queries = uw.Examples(frame, [0, 1, 0]), uw.Examples(frame[["town", "age"]].iloc[1:2], [1])
    assert cells_of(train, queries) == {"age": [20, 30, 40, 30], "town": ["Ulm", "Bonn", "Ulm", "Bonn"]}
    assert not Cells(train, uw.Examples(frame.rename(columns={"age": "height"}), [0, 1, 0]), 1_000)


def test_a_sparse_row_shows_its_largest_values_and_counts_the_others() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    dense = np.zeros((2, 500))
    dense[0, 100:350] = -np.arange(1, 251)
    dense[1, 3] = 2.5
    examples = uw.Examples(sparse.csc_array(dense), [0, 1])
    album = Album(examples, examples)
    first, second = (album.entries[album.add("train", i)] for i in (0, 1))
    assert first["pairs"][0] == ["x349", "−250"] and len(first["pairs"]) + first["more"] == 250
    assert (second["pairs"], second["more"]) == ([["x3", "2.5"]], 0)


def report_of(x: Any, folder: Path, **limits: int) -> tuple[str, dict[str, Any]]:
    y, n = np.arange(len(x)) % 2, len(x) - 5
    examples = uw.Examples(x, y)
    train, queries = examples.take(range(n)), examples.take(range(n, n + 5))
    values = np.random.default_rng(0).normal(size=(5, n))
    scores = Scores(values, queries.ids, train.ids, Unit.EFFECT)
    page = uw.write_report(folder / "r.html", scores, train, queries, limits=PageLimits(**limits)).read_text("utf-8")
    return page, json.loads(page.split('id="data">')[1].split("</script>")[0])


def test_all_columns_are_on_the_page_if_they_fit_and_the_page_says_if_not(tmp_path: Path) -> None:
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 400)))
    data = report_of(x, tmp_path)[1]
    assert len(data["table"]["columns"]) == data["table"]["total"] == 400
    page, data = report_of(x, tmp_path, cell_bytes=50_000)
    shown = len(data["table"]["columns"])
    assert 24 < shown < 400 and f"The {shown} columns that go most with the labels are on this page, of 400" in page
    assert len(json.dumps(data["table"])) < 2 * 50_000


def test_long_texts_in_many_columns_do_not_make_a_large_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = ["word " * k for k in rng.integers(2_000, 4_000, 60)]
    x = pd.DataFrame({f"mail {i}": rng.permutation(texts) for i in range(40)})
    data = report_of(x, tmp_path, cell_bytes=300_000)[1]
    assert len(json.dumps(data["table"])) < 900_000 and len(data["table"]["columns"]) == 24


def test_a_frame_is_read_by_column_as_an_array_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 400)))
    previews = []
    preview = uw.Examples.preview
    monkeypatch.setattr(uw.Examples, "preview", lambda *a: previews.append(a) or preview(*a))
    report_of(x, tmp_path)
    assert len(previews) < 10  # the kind of the examples, and not every row
