import gzip

import pytest

pd = pytest.importorskip("pandas")

from upweight.cli.table_files.read import read_all_records, read_table  # noqa: E402
from upweight.cli.table_files.table_format import ReadingOptions, TableFormat  # noqa: E402

ROWS = [("age", "town", "label"), ("41", "Zürich", "yes"), ("7", "Bern", "no"), ("63", "Zürich", "no")]


@pytest.fixture
def written(tmp_path):
    def write(content, name="t.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return write


def text(separator=",", line_end="\n", rows=ROWS):
    return "".join(separator.join(row) + line_end for row in rows)


def columns(table):
    return {name: table.frame[name].tolist() for name in table.frame.columns}


EXPECTED = {"age": [41, 7, 63], "town": ["Zürich", "Bern", "Zürich"], "label": ["yes", "no", "no"]}


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|", ", "])
def test_the_format_is_found_out_and_said(written, separator, encoding, line_end):
    table = read_table(written(text(separator, line_end), encoding=encoding))
    assert columns(table) == EXPECTED
    form = TableFormat(encoding=encoding, separator=separator[0], spaced=separator == ", ", line_end=line_end)
    assert table.form == form
    assert ("How t.csv was read" in " ".join(table.notes)) == (separator not in (",", ", ") or encoding != "utf-8")


def test_records_have_the_lines_of_the_file_and_rows_are_among_them(written):
    path = written('# a title\nname,note\na,"two\nlines"\n\nb,one\n')
    table = read_table(path, ReadingOptions(columns=("note",)))
    assert columns(table) == {"name": ["a", "b"], "note": ["two\nlines", "one"]}
    assert table.last_lines == [4, 6]
    records = read_all_records(path, table.form)
    rows = dict(zip(records.last_lines, records.fields, strict=True))
    assert [rows[line] for line in table.last_lines] == [["a", "two\nlines"], ["b", "one"]]
    assert rows[table.form.header] == ["name", "note"]


def test_compression_is_seen_in_the_bytes_and_not_in_the_name(written):
    table = read_table(written(gzip.compress(text().encode()), "t.csv"))
    assert columns(table) == EXPECTED and table.form.compression == "gzip"
    assert columns(read_table(written(text(), "t.csv.gz"))) == EXPECTED


def test_options_win_over_what_would_be_found_out(written):
    path = written("1,5;2\n3,5;4\n", encoding="cp1252")
    options = ReadingOptions(separator=";", decimal=",", header=0, encoding="cp1252")
    assert columns(read_table(path, options)) == {"column_1": [1.5, 3.5], "column_2": [2, 4]}
    assert list(read_table(path, ReadingOptions(header=1)).frame.columns) == ["1,5", "2"]
