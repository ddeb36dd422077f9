"""A table with changed cells comes in the form in which it came: everything else stays byte for byte."""

import codecs
import gzip

import numpy as np
import pytest

from upweight.cli.table_files.changed_table import changed_table
from upweight.cli.table_files.read import read_table

pd = pytest.importorskip("pandas")

ROWS = [(f"n{i}", i * 7 % 13 / 4, "yes" if i % 3 else "no") for i in range(12)]


def text_file(separator=",", end="\n", *, decimal=".", header=True, quote="", last=True, spaced=False, note=""):
    """A file with a number, a missing word, a text with quotation marks and separators, and the label."""
    space = " " if spaced else ""
    lines = [f"{separator}{space}".join(["name", "size", "note", "label"])] if header else []
    for name, size, label in ROWS:
        number = "NA" if name == "n3" else f"{size:.2f}".replace(".", decimal)
        cells = [name, number, f'"a ""{separator} b"""' if name == "n4" else f"plain{note}", f"{quote}{label}{quote}"]
        lines.append(f"{separator}{space}".join(cells))
    return end.join(lines) + (end if last else "")


FORMS = {
    "plain": (text_file(), "utf-8"),
    "semicolons and decimal commas": (text_file(";", decimal=","), "utf-8"),
    "windows": (text_file(";", "\r\n", note=" é"), "cp1252"),
    "tabs without header": (text_file("\t", header=False), "utf-8"),
    "quoted labels": (text_file(quote='"'), "utf-8"),
    "no line end at the end": (text_file(last=False), "utf-8"),
    "spaces after separators": (text_file(spaced=True), "utf-8"),
    "mark": (text_file(note=" ü"), "utf-8-sig"),
    "utf-16": (text_file(note=" ü"), "utf-16"),
    "comments and blank lines": ("# a comment\n\n" + text_file() + "\n", "utf-8"),
    "excel's directive": ("sep=;\n" + text_file(";"), "utf-8"),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_text_file_differs_in_the_changed_cells_alone(name, tmp_path):
    text, encoding = FORMS[name]
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode(encoding))
    table = read_table(path)
    column = table.frame.columns[-1]
    changed = changed_table(path, table, column, {1: "no", 4: "no", 6: "yes"}, [2, 11], tmp_path / "out.csv")
    lines = text.splitlines(keepends=True)
    of_row = {int(line[1 : line.index(separator)]): place for place, line in enumerate(lines)
              for separator in ",;\t" if line[:1] == "n" and line[1:2].isdigit() and separator in line[:4]}  # fmt: skip
    for row, old, new in ((1, "yes", "no"), (4, "yes", "no"), (6, "no", "yes")):
        head, label, tail = lines[of_row[row]].rpartition(old)
        assert label == old
        lines[of_row[row]] = head + new + tail
    for row in (11, 2):
        del lines[of_row[row]]
    expected = "".join(lines)
    if not text.endswith("\n"):
        expected = expected.removesuffix("\n")
    assert changed == expected.encode(encoding)


def test_big_endian_and_compressed_files_keep_their_bytes(tmp_path):
    text = text_file()
    path = tmp_path / "data.csv.gz"
    path.write_bytes(gzip.compress(codecs.BOM_UTF16_BE + text.encode("utf-16-be")))
    table = read_table(path)
    assert gzip.decompress(changed_table(path, table, "label", {}, [], tmp_path / "out.csv.gz")) == (
        codecs.BOM_UTF16_BE + text.encode("utf-16-be")
    )
    assert changed_table(path, table, "label", {}, [], tmp_path / "out.csv") == codecs.BOM_UTF16_BE + text.encode(
        "utf-16-be"
    )


def test_values_are_written_as_the_column_writes_them(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("x;flag;size\n" + "".join(f"{i};{'TRUE' if i % 2 else 'FALSE'};{i},50\n" for i in range(6)))
    table = read_table(path)
    changed = changed_table(path, table, "flag", {0: True}, [], path)
    assert changed.startswith(b"x;flag;size\n0;TRUE;0,50\n")
    assert b"\n1;TRUE;2,50\n" in changed_table(path, table, "size", {1: 2.5}, [], path)
    assert b"\n1;TRUE;2,25\n" in changed_table(path, table, "size", {1: 2.25}, [], path)


def test_a_value_with_special_characters_is_quoted_and_read_back(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text('a,b\n1,x\n2,y\n3,"z, ""w"""\n4,x\n')
    table = read_table(path)
    path.write_bytes(changed_table(path, table, "b", {0: 'z, "w"'}, [2], path))
    assert read_table(path).frame["b"].tolist() == ['z, "w"', "y", "x"]


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".xlsx"])
def test_other_files_keep_their_types(suffix, tmp_path):
    pytest.importorskip("openpyxl" if suffix == ".xlsx" else "pyarrow")
    frame = pd.DataFrame({"n": np.arange(8), "day": pd.date_range("2020", periods=8), "label": list("abababab")})
    if suffix != ".xlsx":
        frame["label"] = frame["label"].astype("category")
    path = tmp_path / f"data{suffix}"
    {".parquet": frame.to_parquet, ".feather": frame.to_feather, ".xlsx": lambda p: frame.to_excel(p, index=False)}[
        suffix
    ](path)
    table = read_table(path)
    out = tmp_path / f"out{suffix}"
    out.write_bytes(changed_table(path, table, "label", {0: "b", 5: "a"}, [3], out))
    expected = table.frame.copy()
    expected.loc[[0, 5], "label"] = ["b", "a"]
    pd.testing.assert_frame_equal(
        read_table(out).frame, expected.drop(index=3).reset_index(drop=True), check_index_type=False
    )


def test_a_sheet_with_empty_rows_and_columns_keeps_its_place_and_types(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    workbook, path = openpyxl.Workbook(), tmp_path / "data.xlsx"
    sheet = workbook.active
    for number, row in enumerate([("size", "label"), (1.5, 0), (2.5, 1), (3.5, 0), (4.5, 1)]):
        sheet.cell(3 + number + (number > 2), 2).value, sheet.cell(3 + number + (number > 2), 4).value = row
    workbook.create_sheet("more")["A1"] = "kept"
    workbook.save(path)
    path.write_bytes(changed_table(path, read_table(path), "label", {0: 1, 3: 0}, [2], path))
    changed = openpyxl.load_workbook(path)
    assert [cell.value for cell in changed.active["D"]] == [None, None, "label", 1, 1, None, 0]
    assert [cell.value for cell in changed.active["B"]] == [None, None, "size", 1.5, 2.5, None, 4.5]
    assert changed["more"]["A1"].value == "kept"
