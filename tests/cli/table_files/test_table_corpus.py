from dataclasses import replace
from datetime import date

import pytest

pd = pytest.importorskip("pandas")

from support.table_corpus import corpus  # noqa: E402
from upweight.cli.table_files.read import read_table  # noqa: E402
from upweight.cli.table_files.table_format import ReadingOptions  # noqa: E402

FILES = corpus()


def kind_of(value):
    return date if isinstance(value, date) else type(value)


def values_of(column):
    """Plain values, with None where one is missing."""
    values = [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]
    return [value.date() if isinstance(value, pd.Timestamp) else value for value in values]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_is_read_to_the_frame_it_was_made_from_or_refused_by_a_sentence(file, tmp_path):
    path = tmp_path / file.name
    path.write_bytes(file.data)
    mentioned = tuple(file.columns)[-1:] if file.columns and file.mentions_last else ()
    options = replace(ReadingOptions.parsed(*file.words), columns=mentioned)
    if file.columns is None:
        with pytest.raises(ValueError) as refusal:
            read_table(path, options)
        message = str(refusal.value)
        assert file.refusal in message and file.name in message and "\n" not in message
        return
    frame = read_table(path, options).frame
    assert list(frame.columns) == list(file.columns)
    for name, expected in file.columns.items():
        values = values_of(frame[name])
        assert values == expected, name
        assert set(map(kind_of, values)) == set(map(kind_of, expected)), name


def test_there_are_about_two_hundred_files_of_different_names():
    assert len(FILES) >= 200 and len({file.name for file in FILES}) == len(FILES)
