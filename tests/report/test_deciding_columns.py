"""A page of a wide table shows the columns that decide."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import upweight as uw
from upweight.report.deciding_columns import COLUMNS_SHOWN, deciding_columns


def wide(deciding: int, columns: int = 60) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(90, columns)).round(3), columns=[f"c{i}" for i in range(columns)])
    return x, (x.iloc[:, deciding] > 0).astype(int).to_numpy()


@pytest.mark.parametrize("deciding", [0, 30, 59])
@pytest.mark.parametrize("kind", ["frame", "array", "polars"])
def test_the_deciding_column_comes_first(deciding: int, kind: str) -> None:
    x, y = wide(deciding)
    if kind == "polars":
        pl = pytest.importorskip("polars")
        examples = uw.Examples(pl.from_pandas(x), y)
    else:
        examples = uw.Examples(x if kind == "frame" else x.to_numpy(), y)
    chosen = deciding_columns(examples.take(range(80)), examples.take(range(80, 90)))
    assert chosen is not None and chosen[0] == deciding and len(set(chosen)) == COLUMNS_SHOWN


def test_a_category_can_decide() -> None:
    x, y = wide(0)
    x["colour"] = np.where(y == 1, "red", "blue")
    x = x.drop(columns="c0")
    examples = uw.Examples(x, y)
    chosen = deciding_columns(examples, examples)
    assert chosen is not None and x.columns[chosen[0]] == "colour"


def test_missing_values_constants_and_sets_without_labels_have_columns_too() -> None:
    x, y = wide(50)
    x.iloc[::3, 50] = np.nan
    x["constant"] = 1.0
    assert (deciding_columns(uw.Examples(x, y), uw.Examples(x, y)) or [])[0] == 50
    assert len(deciding_columns(uw.Examples(x), uw.Examples(x)) or []) == COLUMNS_SHOWN


def test_narrow_tables_show_all_columns_in_their_order() -> None:
    x, y = wide(3, columns=24)
    assert deciding_columns(uw.Examples(x, y), uw.Examples(x, y)) is None


def test_the_page_has_the_deciding_column_and_is_written_in_little_time(tmp_path: Path) -> None:
    x, y = wide(599, columns=600)
    train, queries = uw.Examples(x[:80], y[:80]), uw.Examples(x[80:], y[80:])
    model = uw.explainable(LogisticRegression(tol=1e-8, max_iter=1000).fit(train.x, train.y), train)
    scores = uw.Influence().fit(model, train).attribute(queries)
    start = time.process_time()
    page = uw.write_report(tmp_path / "page.html", scores, train, queries).read_text(encoding="utf-8")
    assert time.process_time() - start < 2.0
    assert "c599" in page
    assert f"{x.iloc[80, 599]:g}".lstrip("-") in page
