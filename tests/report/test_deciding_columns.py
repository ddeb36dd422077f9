"""A page of a table shows the columns that matter first."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import upweight as uw
from upweight.report.deciding_columns import Column, deciding_columns


def wide(deciding: int, columns: int = 60) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(90, columns)).round(3), columns=[f"c{i}" for i in range(columns)])
    return x, (x.iloc[:, deciding] > 0).astype(int).to_numpy()


def first(x: pd.DataFrame, y: np.ndarray | None) -> Column:
    examples = uw.Examples(x, y)
    return deciding_columns(examples, examples)[0]


@pytest.mark.parametrize("deciding", [0, 30, 59])
@pytest.mark.parametrize("kind", ["frame", "array", "objects", "polars"])
def test_the_deciding_column_comes_first(deciding: int, kind: str) -> None:
    x, y = wide(deciding)
    if kind == "polars":
        examples = uw.Examples(pytest.importorskip("polars").from_pandas(x), y)
    else:
        examples = uw.Examples(x if kind == "frame" else x.to_numpy(dtype=object if kind == "objects" else float), y)
    columns = deciding_columns(examples.take(range(80)), examples.take(range(80, 90)))
    assert sorted(column.position for column in columns) == list(range(60)) and columns[0].position == deciding


def test_a_narrow_table_has_its_deciding_column_first_too() -> None:
    assert first(*wide(3, columns=5)).position == 3


@pytest.mark.parametrize("values", [("red", "blue"), (True, False)])
def test_a_category_can_decide(values: tuple[object, object]) -> None:
    x, y = wide(0)
    x["colour"] = np.where(y == 1, *values)
    column = first(x.drop(columns="c0"), y)
    assert column.position == 59 and set(column.shifts) == {str(value) for value in values}


def test_a_rare_category_does_not_come_before_the_column_that_decides() -> None:
    x, y = wide(7)
    x["name"] = [f"person {i}" for i in range(len(x))]
    assert first(x, y).position == 7


def test_missing_values_constants_and_sets_without_labels_have_columns_too() -> None:
    x, y = wide(50)
    x.iloc[::3, 50] = np.nan
    x["constant"] = 1.0
    assert first(x, y).position == 50
    without_labels = uw.Examples(x)
    assert len(deciding_columns(without_labels, without_labels)) == 61


def test_pictures_texts_and_sparse_rows_have_no_columns() -> None:
    sparse = pytest.importorskip("scipy.sparse").csr_array(np.eye(4))
    for x in (np.zeros((4, 3, 3)), ["a", "b", "c", "d"], sparse):
        examples = uw.Examples(x, [0, 1, 0, 1])
        assert deciding_columns(examples, examples) == []
