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


def test_a_mentioned_column_decides_whether_there_is_a_header_and_cannot_be_two(written):
    path = written("text,label\nfine,pos\nbad,neg\n")
    assert columns(read_table(path, ReadingOptions(columns=("label",)))) == {
        "text": ["fine", "bad"], "label": ["pos", "neg"],
    }  # fmt: skip
    assert len(read_table(path, ReadingOptions(columns=("column_2",))).frame) == 3
    with pytest.raises(ValueError, match="several columns called label"):
        read_table(written("label,a,label\n1,2,3\n"), ReadingOptions(columns=("label",)))


def test_a_file_without_a_separator_is_refused_if_another_column_is_mentioned(written):
    with pytest.raises(ValueError, match=r"no separator was found in t\.csv.*--sep"):
        read_table(written("1::2::3\n4::5::6\n"), ReadingOptions(columns=("label",)))


@pytest.mark.parametrize("words", [["NA", "None", "null", "nan"], ["0", "1", "NA"], ["1.5", "2.5", "null"]])
def test_no_spelling_of_a_target_is_missing(written, words):
    path = written("a,label\n" + "".join(f"{i},{words[i % len(words)]}\n" for i in range(12)) + "12,\n")
    label = read_table(path, targets=["label"]).frame["label"]
    assert label.tolist()[:12] == [words[i % len(words)] for i in range(12)] and label.isna().tolist()[12:] == [True]


def test_words_for_missing_numbers_are_said_with_their_count(written):
    table = read_table(written("a,b\n1,x\nNA,y\nNA,z\n?,y\n"))
    assert table.frame["a"].isna().tolist() == [False, True, True, True]
    assert any("column a" in note and "? (1), NA (2)" in note for note in table.notes)


def test_a_file_longer_than_the_sample_is_read_whole(written):
    rows = "".join(f'{i},"a remark\non two lines, {i}",yes\n' for i in range(9000))
    table = read_table(written("n,remark,label\n" + rows))
    assert len(rows) > 200_000 and table.frame.shape == (9000, 3)
    assert table.frame["remark"].iloc[-1] == "a remark\non two lines, 8999" and table.last_lines[-1] == 18_001
    with pytest.raises(ValueError, match=r"line 18002 of t\.csv has 2 fields"):
        read_table(written("n,remark,label\n" + rows + "1,2\n"))


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("ab", None, None, None), "--sep"),
        ((None, "utf-9", None, None), "--encoding"),
        ((None, None, "x", None), "--decimal"),
        ((",", None, ",", None), "--decimal"),
        ((None, None, None, "0"), "--header"),
    ],
)
def test_values_that_no_file_has_are_refused_with_their_option(words, option):
    with pytest.raises(ValueError) as refusal:
        ReadingOptions.parsed(*words)
    assert refusal.value.args[0] == option


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lines_that_repeat_the_names_of_the_columns_are_left_out_with_their_lines(written, mark):
    table = read_table(written(text() + mark + text(), encoding="utf-8"), ReadingOptions(columns=("label",)))
    assert columns(table) == {name: 2 * values for name, values in EXPECTED.items()}
    assert table.last_lines == [2, 3, 4, 6, 7, 8]
    assert any("repeat the names of the columns: 1 (5)" in note for note in table.notes)


def test_a_value_equal_to_the_name_of_the_only_column_is_a_row(written):
    table = read_table(written("word\na\nword\nb\n"), ReadingOptions(header=1))
    assert columns(table) == {"word": ["a", "word", "b"]}


def test_a_first_line_that_repeats_is_a_row_where_there_are_no_names(written):
    table = read_table(written("1,a\n2,b\n1,a\n2,b\n"))
    assert columns(table) == {"column_1": [1, 2, 1, 2], "column_2": ["a", "b", "a", "b"]}


@pytest.mark.parametrize("target", ["p", "0"])
def test_a_target_that_may_be_a_value_of_the_first_row_is_no_proof_of_names(written, target):
    path = written("p,39,x,0\n" + "e,40,x,0\np,39,y,7\n" * 5)
    with pytest.raises(ValueError, match="--header none"):
        read_table(path, ReadingOptions(columns=(target,)))


def test_names_that_count_the_columns_and_names_above_numbers_are_names_even_if_they_come_again(written):
    counted = read_table(written("0,1,2\n0,5,1\n1,6,2\n"), ReadingOptions(columns=("0",)))
    assert columns(counted)["0"] == [0, 1]
    spam = read_table(written("spam,length\nspam,5\nham,6\n"), ReadingOptions(columns=("spam",)))
    assert columns(spam) == {"spam": ["spam", "ham"], "length": [5, 6]}


def test_a_target_below_a_title_names_the_line_of_the_header(written):
    with pytest.raises(ValueError, match="line 3 has; say --header 3"):
        read_table(written("Customers;;\n;;\n" + text(";")), ReadingOptions(columns=("label",)))


def test_a_line_of_sums_below_a_table_does_not_make_texts_of_its_numbers(written):
    path = written("age,day,word,label\n1,2020-01-31,a,x\n2,2020-02-28,b,y\nSum,all,c,\n")
    table = read_table(path, ReadingOptions(columns=("label",)), ["label"])
    assert table.frame["age"].tolist()[:2] == [1, 2] and table.frame["age"].isna().tolist() == [False, False, True]
    assert table.frame["day"].dt.day.tolist()[:2] == [31, 28] and table.frame["word"].tolist() == ["a", "b", "c"]
    assert "Column age has 'Sum' in a row without a target, read as missing." in table.notes
    assert read_table(path, ReadingOptions(header=1)).frame["age"].tolist() == ["1", "2", "Sum"]


def test_numbers_that_may_be_thousands_wait_for_the_option(written):
    path = written('a,b\n"1,234",x\n"5,678",y\n')
    assert "--thousands" in " ".join(read_table(path).notes)
    assert read_table(path, ReadingOptions(thousands=",")).frame["a"].tolist() == [1234, 5678]
    semicolons = written("a;b\n1,234;x\n5,678;y\n")
    assert read_table(semicolons, ReadingOptions(thousands=",")).frame["a"].tolist() == [1234, 5678]
    with pytest.raises(ValueError, match="--thousands"):
        ReadingOptions.parsed(None, None, ",", None, ",")


def test_what_stands_beside_numbers_and_differs_by_capitals_is_said(written):
    notes = read_table(written("a,b\n1 kg,Yes\n2.5 kg,yes\n3 kg,no\n"), ReadingOptions(header=1)).notes
    assert "Column a was read as numbers without 'kg', such as '2.5 kg'." in notes
    assert "Column b has 'Yes' and 'yes', which differ by capitals, as different values." in notes


def test_targets_that_differ_by_spaces_around_them_are_one_class(written):
    table = read_table(written("age,mood\n1,😀\n2,😀  \n3, 😡\n4,😡\n5,Yes\n"), targets=["mood"])
    assert columns(table)["mood"] == ["😀", "😀", "😡", "😡", "Yes"]
    assert "Column mood was read without the spaces around its values, such as '😀  '." in table.notes
    assert columns(read_table(written("age,mood\n1,😀\n2,😀  \n")))["mood"] == ["😀", "😀  "]


def test_a_line_of_units_below_the_names_is_left_out_and_said(written):
    rows = "".join(f"{2000 + i},{i / 7:.3f},{'ab'[i % 2]}\n" for i in range(12))

    def read(second):
        return read_table(written(f"year,height,kind\n{second}\n{rows}"), ReadingOptions(columns=("kind",)), ["kind"])

    table = read("when,in m,of plant")
    assert columns(table)["year"] == list(range(2000, 2012)) and table.frame["height"].dtype == "float64"
    assert table.last_lines == list(range(3, 15)) and columns(table)["kind"][0] == "a"
    (note,) = table.notes
    assert note == (
        "Line 2 of t.csv was left out: year has 'when' there and values in all other rows, and 1 other column has such "
        "a text too."
    )
    for second in (",in m,of plant", "when,1.5,of plant", "NA,in m,of plant"):  # one text alone may be wrong data
        assert len(read(second).frame) == 13
