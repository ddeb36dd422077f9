"""A table with some cells of one column replaced and some rows left out, in the form in which it came."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upweight.cli.table_files.cell_spans import cell_spans, quoted_like
from upweight.cli.table_files.compression import contents_of
from upweight.cli.table_files.encodings import decode
from upweight.cli.table_files.read import Table
from upweight.cli.table_files.records import read_records
from upweight.cli.table_files.table_format import TableFormat

if TYPE_CHECKING:
    import pyarrow

MARKED = {  # UTF-32 stands first, because its mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
    codecs.BOM_UTF8: "utf-8",
}


def changed_table(
    path: Path, table: Table, column: str, values: Mapping[int, Any], dropped: Collection[int], out: Path
) -> bytes:
    """The bytes of the file with these changes. What is not changed stays as it is, in text files byte for byte.

    Args:
        path: the file that `table` was read from.
        table: the table. `values` and `dropped` count its rows from 0.
        column: the column whose values change.
        values: row → new value. In a text file it is written as the file writes it elsewhere.
        dropped: rows that are left out.
        out: the name of the new file, which says how it is compressed.

    Raises:
        ValueError: a value cannot be written in this form.
    """
    contents = contents_of(path.read_bytes(), path.name)
    place = list(table.frame.columns).index(column)
    match table.form.kind:
        case "text":
            data = _changed_text(contents.data, table, place, values, dropped, path.name)
        case "excel":
            data = _changed_workbook(contents.data, table, place, values, dropped)
        case _:
            data = _changed_arrow(contents.data, table.form, column, values, dropped)
    return _compressed(data, out)


def _changed_text(
    data: bytes, table: Table, place: int, values: Mapping[int, Any], dropped: Collection[int], name: str
) -> bytes:
    assert table.last_lines is not None
    form = table.form
    text, _, _ = decode(data, form.encoding, name)
    lines = list(io.StringIO(text, newline=""))
    records = read_records(text, form)
    first_lines = dict(zip(records.last_lines, [0, *records.last_lines[:-1]], strict=True))
    cells = dict(zip(records.last_lines, records.fields, strict=True))
    spellings = _spellings(table, place, [cells[line][place] for line in table.last_lines])
    for row in sorted({*values, *dropped}, reverse=True):
        last = table.last_lines[row]
        part = slice(first_lines[last], last)
        record = "".join(lines[part])
        lines[part] = [] if row in dropped else [_changed_record(record, place, spellings(values[row]), form)]
    changed = "".join(lines)
    if not text.endswith(form.line_end):
        changed = changed.removesuffix(form.line_end)
    return _encoded(changed, form.encoding, text, data)


def _spellings(table: Table, place: int, cells: list[str]) -> Any:
    """A function from a value to the text by which the column writes it."""
    written: dict[Any, str] = {}
    for value, cell in zip(table.frame.iloc[:, place].tolist(), cells, strict=True):
        written.setdefault(value, cell)

    def spelling(value: Any) -> str:
        if value in written:
            return written[value]
        return str(value).replace(".", table.form.decimal) if isinstance(value, float) else str(value)

    return spelling


def _changed_record(record: str, place: int, text: str, form: TableFormat) -> str:
    """The record with another text in one field. Raises ValueError if it would not be read as such."""
    start, end = cell_spans(record, form)[place]
    changed = record[:start] + quoted_like(record[start:end], text, form) + record[end:]
    expected = [text if number == place else field for number, field in enumerate(read_records(record, form).fields[0])]
    if read_records(changed, form).fields != [expected]:
        raise ValueError(f"the label {text!r} cannot be written into {record.strip()!r:.60}")
    return changed


def _encoded(text: str, encoding: str, original: str, data: bytes) -> bytes:
    """The text as bytes, with the byte order mark of the original file."""
    mark = next((mark for mark in MARKED if data.startswith(mark)), b"")
    codec = MARKED[mark] if mark and mark + original.encode(MARKED[mark], "replace") == data else None
    return text.encode(encoding) if codec is None else mark + text.encode(codec)


def _changed_workbook(
    data: bytes, table: Table, place: int, values: Mapping[int, Any], dropped: Collection[int]
) -> bytes:
    """With formulas and formats as they are. A value is written as the cell of another row that has it."""
    import openpyxl

    assert table.last_lines is not None
    workbook = openpyxl.load_workbook(io.BytesIO(data))
    sheet = workbook[table.form.sheet]
    columns = [number for number, column in enumerate(zip(*_filled(sheet), strict=True), 1) if any(column)]
    column = columns[place]
    cells = [sheet.cell(row, column).value for row in table.last_lines]
    written = dict(zip(table.frame.iloc[:, place].tolist(), cells, strict=True))
    for row, value in values.items():
        sheet.cell(table.last_lines[row], column).value = written.get(value, value)
    for row in sorted(dropped, reverse=True):
        sheet.delete_rows(table.last_lines[row])
    out = io.BytesIO()
    workbook.save(out)
    return out.getvalue()


def _filled(sheet: Any) -> list[list[bool]]:
    """Whether each cell has a value."""
    return [[value not in (None, "") for value in row] for row in sheet.iter_rows(values_only=True)]


def _changed_arrow(
    data: bytes, form: TableFormat, column: str, values: Mapping[int, Any], dropped: Collection[int]
) -> bytes:
    """With the schema of the file, which has the types of the columns and the index of pandas."""
    import pyarrow as pa
    from pyarrow import feather, parquet

    read = parquet.read_table if form.kind == "parquet" else feather.read_table
    table: pyarrow.Table = read(io.BytesIO(data))
    place = [str(name).strip() for name in table.column_names].index(column)
    cells = table.column(place).unify_dictionaries().combine_chunks()
    categories = cells.dictionary if pa.types.is_dictionary(cells.type) else None
    codes = (cells if categories is None else cells.indices).to_pylist()
    for row, value in values.items():
        codes[row] = value if categories is None else categories.to_pylist().index(value)
    array = pa.array(codes, type=cells.type if categories is None else cells.type.index_type)
    if categories is not None:
        array = pa.DictionaryArray.from_arrays(array, categories, ordered=cells.type.ordered)
    table = table.set_column(place, table.field(place), array)
    table = table.take([row for row in range(table.num_rows) if row not in dropped])
    out = io.BytesIO()
    write = parquet.write_table if form.kind == "parquet" else feather.write_feather
    write(table, out)
    return out.getvalue()


def _compressed(data: bytes, out: Path) -> bytes:
    """The data, compressed as the name of the file says."""
    match out.suffix.lower():
        case ".gz":
            return gzip.compress(data)
        case ".bz2":
            return bz2.compress(data)
        case ".xz":
            return lzma.compress(data)
        case ".zip":
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(out.stem, data)
            return packed.getvalue()
    return data
