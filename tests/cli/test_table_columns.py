import datetime

import numpy as np
import pytest

pd = pytest.importorskip("pandas")

from upweight.cli.column_notes import sentences  # noqa: E402
from upweight.cli.dates import are_dates  # noqa: E402
from upweight.cli.table_columns import read_columns  # noqa: E402

N = 80
RNG = np.random.default_rng(5)


def frame(**columns):
    return pd.DataFrame({"size": RNG.normal(size=N), **columns})


def test_columns_are_read_by_what_is_in_them():
    columns = read_columns(
        frame(
            colour=RNG.choice(["red", "blue"], N),
            flag=RNG.random(N) > 0.5,
            note=[f"remark {i} on something that is long" for i in range(N)],
            department_id=RNG.integers(0, 4, N),
            whole=pd.Series(RNG.integers(0, 50, N)).astype("Int64").mask(np.arange(N) % 9 == 0),
        )
    )
    assert columns.numbers == ["size", "whole"]
    assert columns.categories == ["colour", "flag", "department_id"] and columns.texts == ["note"]
    assert [(note.name, note.reason) for note in columns.notes] == [("department_id", "codes")]


def test_every_column_that_is_left_out_is_named_with_its_reason():
    size = RNG.normal(size=N)
    table = pd.DataFrame(
        {
            "never": [None] * N,
            "always": 3,
            "sometimes": np.where(np.arange(N) % 2, 3.0, np.nan),
            "size": size,
            "again": size,
            "day": pd.date_range("2020-01-01", periods=N),
            "encounter": 145_682_345 + 7 * np.arange(N),
            "code": [f"c{i}" for i in range(N)],
        }
    )
    columns = read_columns(table)
    assert columns.names == ["size"]
    reasons = {note.name: note.reason for note in columns.notes}
    assert reasons == {
        "never": "empty",
        "always": "constant",
        "sometimes": "constant",
        "again": "duplicate",
        "day": "dates",
        "encounter": "ids",
        "code": "unique texts",
    }
    notes_text = " ".join(sentences(columns.notes))
    assert all(f"Column {name} was left out" in notes_text for name in reasons)
    assert "constant, 3 in every row." in notes_text and "a duplicate of size" in notes_text
    assert "--id encounter" in notes_text and "--use encounter" in notes_text and "--id code" in notes_text


def test_many_columns_of_one_reason_share_a_sentence():
    columns = read_columns(frame(**{f"flat{i}": i for i in range(50)}))
    (sentence,) = sentences(columns.notes)
    assert "50 columns were left out because they are constant: flat0 (0), flat1 (1)" in sentence
    assert "and 20 more" in sentence


def test_a_duplicate_has_the_same_values_in_every_row_and_nothing_else():
    whole, words = RNG.integers(0, 9, N), RNG.choice(["a", "b", "c"], N)
    huge = 2**60 + np.arange(N) % 7  # as floats, all of them would be equal
    table = frame(whole=whole, floats=whole.astype(float), words=words, other=np.where(np.arange(N) == 3, "c", words))
    table = table.assign(huge=huge, shifted=huge + 1, missing=pd.Series(words).mask(np.arange(N) == 5))
    assert [note.name for note in read_columns(table).notes if note.reason == "duplicate"] == ["floats"]


def test_the_user_decides_which_columns_are_read():
    table = frame(encounter=1000 + np.arange(N), code=[f"c{i}" for i in range(N)], colour=RNG.choice(["a", "b"], N))
    columns = read_columns(table, use=["encounter", "code"], leave_out=["colour"])
    assert columns.numbers == ["size", "encounter"] and columns.categories == ["code"] and not columns.notes


def test_what_looks_like_ids_is_used_if_nothing_else_is_there():
    columns = read_columns(pd.DataFrame({"a": np.arange(N)}))
    assert columns.numbers == ["a"] and "looks like ids" in sentences(columns.notes)[0]


def test_a_table_without_a_usable_column_is_refused():
    with pytest.raises(ValueError, match=r"no column is left.*Column one was left out"):
        read_columns(pd.DataFrame({"one": [1] * N}))


@pytest.mark.parametrize(
    "dates",
    [
        ["2020-01-31", "2019-12-01"],
        ["2020-01", "2019-12"],
        ["31.12.2020", "1.1.2021"],
        ["12/31/2020", "1/2/2021"],
        ["2020-01-31T10:20:30Z", "2020-01-31 10:20"],
        ["3 Jan 2020", "12-Mar-2019"],
        ["Jan 3, 2020", "March 12, 2019"],
        [20200131, 19991231],
        [datetime.date(2020, 1, 31), datetime.date(2019, 12, 1)],
        pd.period_range("2020-01", periods=2, freq="M"),
        pd.to_timedelta([1, 2], unit="D"),
    ],
)
def test_dates_are_recognised_however_they_are_held(dates):
    assert are_dates(pd.Series(dates))


@pytest.mark.parametrize(
    "values", [["2019-20", "2020-21"], ["123-45-6789"], ["10-12", "20-30"], ["2020"], [20201331, 20200101], [True], []]
)
def test_what_is_no_date_is_none(values):
    assert not are_dates(pd.Series(values))


def test_a_mark_in_some_rows_is_a_category_beside_empty_cells():
    marked = pd.Series(np.where(np.arange(N) % 3, "x", None), dtype=object)
    columns = read_columns(frame(vip=marked))
    assert "vip" in columns.categories and not columns.notes
    rare = pd.DataFrame({"size": RNG.normal(size=200), "vip": pd.Series([None] * 199 + ["x"], dtype=object)})
    assert [note.reason for note in read_columns(rare).notes] == ["constant"]
