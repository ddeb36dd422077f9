import json
from pathlib import Path

import numpy as np
import pytest

pd = pytest.importorskip("pandas")

import upweight as uw  # noqa: E402
from support.command_line import run, words, written  # noqa: E402
from upweight.cli.inputs import Source  # noqa: E402
from upweight.cli.row_ids import with_ids  # noqa: E402
from upweight.cli.table_options import TableOptions  # noqa: E402
from upweight.core.progress import no_progress  # noqa: E402

ROWS = [f"{i * 7 % 13},{i * 5 % 11},{'yes' if i * 7 % 13 > 6 else 'no'}" for i in range(40)]
HEADER = "a,b,label"
OF_LINES = ("--target", "label")


def test_ids_come_from_a_column_or_are_numbers_or_the_index():
    table = pd.DataFrame({"size": np.zeros(9), "name": np.arange(100, 109)})
    assert with_ids(table, "size", "name", "t.csv").index[:2].tolist() == [100, 101]
    assert with_ids(table, "size", None, "t.csv").index[:2].tolist() == [0, 1]
    assert with_ids(table, "size", None, "t.csv", True).index[:2].tolist() == [1, 2]
    with pytest.raises(ValueError, match="missing or repeat"):
        with_ids(table, "name", "size", "t.csv")


def row_ids_of(path):
    """The ids of all rows, in the order of the file, and what they are."""
    source = Source(path, TableOptions(target="label"))
    return source.read_table().frame.index.tolist(), source.read(no_progress).table.row_ids


NUMBERS = list(range(1, 41))


@pytest.mark.parametrize(
    "text",
    [
        "\n".join([HEADER, *ROWS]),
        "\n".join(["# made by hand", "", HEADER, *ROWS[:9], "", *ROWS[9:]]),
        "\n".join(["a,b,label,note", *[f'{row},"one\ntwo"' for row in ROWS]]),
    ],
)
def test_a_row_without_an_id_is_named_by_its_number_below_the_header(text, tmp_path):
    path = written(tmp_path / "data.csv", text + "\n")
    assert row_ids_of(path) == (NUMBERS, "their number in data.csv: the first row below the header is 1")


def test_an_excel_row_is_named_by_its_number_below_the_header(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [HEADER, *ROWS]:
        book.active.append([int(cell) if cell.isdigit() else cell for cell in row.split(",")])
    book.save(tmp_path / "data.xlsx")
    assert row_ids_of(tmp_path / "data.xlsx")[0] == NUMBERS


def test_rows_of_a_file_without_lines_are_counted_from_0_or_named_by_its_index(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame([row.split(",") for row in ROWS], columns=HEADER.split(",")).astype({"a": int, "b": int})
    frame.to_parquet(tmp_path / "data.parquet")
    assert row_ids_of(tmp_path / "data.parquet") == (list(range(40)), "their number in data.parquet, from 0")
    frame.set_axis([f"r{i}" for i in range(40)]).to_parquet(tmp_path / "named.parquet")
    assert row_ids_of(tmp_path / "named.parquet") == ([f"r{i}" for i in range(40)], "the index of named.parquet")


def test_the_number_of_a_row_names_it_in_query_json_page_and_patch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "data.csv", "\n".join([HEADER, *ROWS, ""]))
    document = json.loads(run("explain", path, *OF_LINES, "--query", "23", "--removals", "0", "--json").stdout)
    [query] = document["queries"]
    assert (query["id"], query["label"]) == (23, ROWS[22].split(",")[2])
    assert document["model"]["row_ids"] == "their number in data.csv: the first row below the header is 1"
    printed = words(run("explain", path, *OF_LINES, "--query", "23", "--removals", "0").stdout)
    assert printed.count("Rows are named by their number in data.csv:") == 1 and "Example 23 is labelled" in printed
    assert Path("report.html").read_text(encoding="utf-8").count("Rows are named by their number in data.csv:") == 1
    assert "no query has the id '0'" in words(run("explain", path, *OF_LINES, "--query", "0", code=2).stderr)
    train = Source(path, TableOptions(target="label")).read(no_progress).train
    number = train.ids[0].item()
    uw.Patch.of(train, {number: "drop"}).save("patch.json")
    run("patch", path, "patch.json", *OF_LINES, "--out", "cleaned.csv")
    lines = path.read_text().splitlines()
    assert Path("cleaned.csv").read_text().splitlines() == lines[:number] + lines[number + 1 :]


def test_a_misspelt_column_is_refused_with_the_one_that_was_meant():
    table = pd.DataFrame({"Würde kaufen": np.zeros(3), **{f"gene{i}": np.zeros(3) for i in range(40)}})
    with pytest.raises(KeyError, match=r"did you mean 'Würde kaufen'.*gene18 and 21 more"):
        with_ids(table, "wurde kaufen", None, "t.csv")
