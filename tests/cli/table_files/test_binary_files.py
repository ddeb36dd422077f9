import gzip
import io
from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

from upweight.cli.table_files.read import read_table  # noqa: E402
from upweight.cli.table_files.table_format import ReadingOptions  # noqa: E402

FRAME = pd.DataFrame({"size": [1.5, 2.5, 4.0], "kind": ["NA", "b", None], "label": [1, 0, 1]})
KINDS = {"parquet": pd.DataFrame.to_parquet, "feather": pd.DataFrame.to_feather}


def saved(path, frame, kind="parquet"):
    KINDS[kind](frame, path)
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["t.parquet", "t.feather", "t.csv"])
def test_the_kind_is_seen_in_the_bytes_and_values_keep_their_types(tmp_path, kind, name):
    table = read_table(saved(tmp_path / name, FRAME, kind))
    pd.testing.assert_frame_equal(table.frame, FRAME)
    assert table.form.kind == kind and table.notes == ()


@pytest.mark.parametrize(
    ("index", "ids"),
    [
        (pd.Index(["a", "b", "c"], name="town"), ["a", "b", "c"]),
        (pd.Index([30, 10, 20]), [30, 10, 20]),
        (pd.RangeIndex(5, 8), [5, 6, 7]),
        (pd.date_range("2026-01-01", periods=3), ["2026-01-01", "2026-01-02", "2026-01-03"]),
    ],
)
def test_an_index_of_the_file_has_the_ids_and_is_said(tmp_path, index, ids):
    table = read_table(saved(tmp_path / "t.parquet", FRAME.set_axis(index, axis=0)))
    assert table.frame.index.tolist() == ids and list(table.frame.columns) == list(FRAME.columns)
    assert "The ids of the rows are the index" in table.notes[0]


def test_an_index_that_repeats_or_is_mentioned_is_a_column(tmp_path):
    index = pd.Index(["a", "b", "a"], name="town")
    table = read_table(saved(tmp_path / "t.parquet", FRAME.set_axis(index, axis=0)))
    assert table.frame["town"].tolist() == ["a", "b", "a"] and table.frame.index.tolist() == [0, 1, 2]
    assert "repeated or missing labels" in table.notes[0]
    unique = saved(tmp_path / "u.parquet", FRAME.set_axis(pd.Index(["a", "b", "c"], name="town"), axis=0))
    assert "town" in read_table(unique, ReadingOptions(columns=("town",))).frame.columns


def test_decimals_are_numbers_and_lists_are_left_out_with_a_note(tmp_path):
    frame = FRAME.assign(price=[Decimal("1.5"), None, Decimal("2.25")], tags=[["a"], [], ["b"]])
    table = read_table(saved(tmp_path / "t.parquet", frame))
    np.testing.assert_array_equal(table.frame["price"], [1.5, np.nan, 2.25])
    assert "tags" not in table.frame.columns and "Column tags was left out" in table.notes[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_by_a_sentence(tmp_path, kind):
    path = saved(tmp_path / f"t.{kind}", FRAME, kind)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=f"whole {kind} file"):
        read_table(path)


def test_options_of_text_files_are_refused_for_others(tmp_path):
    path = saved(tmp_path / "t.parquet", FRAME)
    with pytest.raises(ValueError, match="--sep and --header is for text files"):
        read_table(path, ReadingOptions(separator=";", header=1))


def test_an_excel_sheet_is_read_as_a_text_file_with_its_rows(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = "people"
    rows = [("age", "town", "born", "flag", "code", None), (41, "NA", datetime(1980, 1, 2), True, "007", None)]
    rows += [
        (None,) * 6,
        ("NA", None, datetime(1990, 5, 6), False, "042", None),
        (7.5, "Bern", None, True, "001", None),
    ]
    for row in rows:
        book.active.append(row)
    book.create_sheet("more").append(["x"])
    book.save(tmp_path / "t.xlsx")
    table = read_table(tmp_path / "t.xlsx")
    assert table.frame["age"].isna().tolist() == [False, True, False]
    assert table.frame["town"].fillna("").tolist() == ["NA", "", "Bern"]
    assert table.frame["born"][0].date() == date(1980, 1, 2) and table.frame["flag"].tolist() == [True, False, True]
    assert table.frame["code"].tolist() == ["007", "042", "001"]
    assert list(table.frame.columns) == ["age", "town", "born", "flag", "code"] and table.last_lines == [2, 4, 5]
    assert table.form.sheet == "people" and "Only the first of 2 sheets" in table.notes[0]
    more = read_table(tmp_path / "t.xlsx", ReadingOptions(columns=("x",)))
    assert more.form.sheet == "more" and "Only one of the 2 sheets of t.xlsx was read: more." in more.notes
    packed = tmp_path / "t.xlsx.gz"
    packed.write_bytes(gzip.compress((tmp_path / "t.xlsx").read_bytes()))
    assert read_table(packed).frame.equals(table.frame)


def test_a_damaged_workbook_is_refused_by_a_sentence(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    file = io.BytesIO()
    openpyxl.Workbook().save(file)
    (tmp_path / "t.xlsx").write_bytes(file.getvalue())
    with pytest.raises(ValueError, match="sheets without values"):
        read_table(tmp_path / "t.xlsx")
    (tmp_path / "t.xlsx").write_bytes(file.getvalue()[:400])
    with pytest.raises(ValueError, match="damaged"):
        read_table(tmp_path / "t.xlsx")
