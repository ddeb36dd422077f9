"""Small table files of every form, each with the columns that it was made from, or a word of its refusal."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import itertools
import lzma
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np

from support.odd_tables import Column, odd_texts

SEPARATORS = (",", ";", "\t", "|")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "cp1252")
WORDS = ("", "NA", "NaN", "null")
SIZES = (6, 13, 40)


@dataclass(frozen=True)
class TableFile:
    """A file, and either the columns that it was made from or a word of the message that refuses it.

    `words` are values of options that go with it: separator, encoding, decimal, header; None: found out.
    If `mentions_last`, the user mentions the name of the last column.
    """

    name: str
    data: bytes
    columns: dict[str, Column] | None = None
    refusal: str | None = None
    words: tuple[str | None, str | None, str | None, str | None] = (None, None, None, None)
    mentions_last: bool = False


def corpus() -> list[TableFile]:
    """About two hundred files, the same ones on every call."""
    return [*_grid(), *_odd_files(), *_refused_files()]


def _columns(rng: np.random.Generator, rows: int) -> dict[str, Column]:
    """One column of each kind."""

    def drawn(values: Sequence[Any]) -> Column:
        return [values[i] for i in rng.integers(0, len(values), rows)]

    def with_holes(column: Column) -> Column:
        return [None if i == rows // 2 else value for i, value in enumerate(column)]

    def number(i: int) -> float:
        return round(float(rng.normal() * 10.0 ** rng.integers(-2, 5)), int(rng.integers(2, 12)))

    quoted = ["plain", 'says "no"', "two\nlines", "a, b; c | d", "tab\there", "end\r\nof it", "'x'"]
    return {
        "whole": rng.integers(-50, 2000, rows).tolist(),
        "whole with holes": with_holes(rng.integers(0, 9, rows).tolist()),
        "long whole": (2**53 + rng.integers(1, 10**6, rows)).tolist(),
        "decimals": [number(i) for i in range(rows)],
        "tiny": with_holes([float(x) * 1e-12 for x in rng.normal(size=rows)]),
        "country": drawn(["NA", "ZA", "US"]),
        "alley": with_holes(drawn(["None", "Grvl", "nan", "null"])),
        "town": drawn(["Zürich", "Bern", "Genève", "Kraków".replace("ó", "o")]),
        "zip": [f"{i * 37 % 3000:05d}" for i in range(rows)],
        "flag": drawn([True, False]),
        "day": [date(2020, 1, 30) + timedelta(days=9 * i) for i in range(rows)],
        "quoted": drawn(quoted),
        "remark": with_holes([f"{i} remarks, one of which is long" for i in range(rows)]),
        "label": ["yes" if i % 3 else "no" for i in range(rows)],
    }


def _grid() -> Iterator[TableFile]:
    kinds = list(_columns(np.random.default_rng(0), 3))
    settings = itertools.product(SEPARATORS, ENCODINGS, (True, False), WORDS)
    for number, (separator, encoding, header, word) in enumerate(settings):
        rng = np.random.default_rng(number)
        every = _columns(rng, SIZES[number % len(SIZES)])
        chosen = [kinds[i] for i in sorted(rng.permutation(len(kinds))[: 3 + number % 8])]
        chosen += ["whole"] if "whole" not in chosen else []
        columns = {name: every[name] for name in chosen}
        decimal = "," if separator != "," and number % 2 else "."
        if decimal == ",":
            columns["decimals"] = every["decimals"]
        line_end = ("\n", "\r\n")[number // 3 % 2]
        text = table_text(columns, separator, header, word, decimal, line_end)
        if encoding == "cp1252":
            columns["town"] = every["town"]
            text = table_text(columns, separator, header, word, decimal, line_end)
        if not header:
            columns = {f"column_{i}": column for i, column in enumerate(columns.values(), 1)}
        yield TableFile(f"grid-{number}.csv", text.encode(encoding), columns)


def table_text(
    columns: dict[str, Column], separator: str, header: bool, word: str, decimal: str = ".", line_end: str = "\n"
) -> str:
    """The columns as text. A missing number is the word, every other missing cell is empty."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=separator, lineterminator=line_end)
    if header:
        writer.writerow(columns)
    cells = [
        [_cell(value, word if _is_numeric(column) else "", decimal) for value in column] for column in columns.values()
    ]
    writer.writerows(zip(*cells, strict=True))
    return file.getvalue()


def _is_numeric(column: Column) -> bool:
    return all(value is None or type(value) in (int, float) for value in column)


def _cell(value: Any, word: str, decimal: str) -> str:
    if value is None:
        return word
    return repr(value).replace(".", decimal) if isinstance(value, float) else str(value)


def _plain(rows: int = 12) -> dict[str, Column]:
    every = _columns(np.random.default_rng(99), rows)
    return {name: every[name] for name in ("whole", "decimals", "country", "label")}


def _odd_files() -> Iterator[TableFile]:
    """Files that are odd in one way, and have one meaning."""
    columns = _plain()
    text = table_text(columns, ",", True, "")
    packed: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zip": _zipped,
    }  # fmt: skip
    for suffix, pack in packed.items():
        yield TableFile(f"packed.csv.{suffix}", pack(text.encode()), columns)
        yield TableFile(f"packed-{suffix}.csv", pack(text.encode()), columns)
        yield TableFile(f"not-packed.csv.{suffix}", text.encode(), columns)
    for name, (content, made_from) in odd_texts(text, columns).items():
        yield TableFile(f"{name}.csv", content.encode(), made_from, mentions_last=True)
    yield TableFile("utf-16-without-mark.csv", text.encode("utf-16-le"), columns)
    yield TableFile("utf-16-big.csv", text.encode("utf-16-be"), columns)
    yield TableFile("utf-32.csv", text.encode("utf-32"), columns)
    greek: dict[str, Column] = {"n": [1, 2, 3], "word": ["άλφα", "βήτα", "άλφα"]}
    yield TableFile("utf-8-greek.csv", table_text(greek, ",", True, "").encode(), greek)
    greek_bytes = table_text(greek, ",", True, "").encode("cp1253")
    yield TableFile("named-encoding.csv", greek_bytes, greek, words=(None, "cp1253", None, None))
    control: dict[str, Column] = {"n": [1, 2, 3], "word": ["Zürich", "caf\xe9 \x9d", "Bern"]}  # 0x9d is none of cp1252
    yield TableFile("latin-1-beyond-cp1252.csv", table_text(control, ",", True, "").encode("latin-1"), control)
    mails: dict[str, Column] = {"n": [1, 2], "text": ["one\x00letter" + " and so on" * 2000, "more"]}
    yield TableFile("one-nul-in-a-long-text.csv", table_text(mails, ",", True, "").encode(), mails)
    years: dict[str, Column] = {"country": ["A", "B"], "2019": [5, 6], "2020": [7, 8]}
    yield TableFile("named-header.csv", table_text(years, ",", True, "").encode(), years, words=(None, None, None, "1"))
    yield TableFile(
        "named-decimal.csv", b"a;b\n1,234;2,345\n5,678;7,890\n", {"a": [1.234, 5.678], "b": [2.345, 7.89]},
        words=(None, None, ",", None),
    )  # fmt: skip
    colons: dict[str, Column] = {"a": [1, 2], "b": ["x, y", "z, w"]}
    yield TableFile("named-separator.csv", b"a:b\n1:x, y\n2:z, w\n", colons, words=("colon", None, None, None))
    yield TableFile("title.csv", f"A title\n\n{text}".encode(), columns, words=(None, None, None, "3"))
    yield TableFile(
        "no-names.csv",
        b"x,y\nz,w\n",
        {"column_1": ["x", "z"], "column_2": ["y", "w"]},
        words=(None, None, None, "none"),
    )


def _zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("table.csv", data)
    return file.getvalue()


def _refused_files() -> Iterator[TableFile]:
    """Files that cannot be read, or that can be read in several ways, with a word of the message."""
    text = table_text(_plain(), ",", True, "")
    refused = {
        "empty": (b"", "empty"),
        "empty-lines": (b"\n\n\n", "empty"),
        "only-a-mark": ("".encode("utf-8-sig"), "empty"),
        "broken-marks": (b'a,b,label\n1,"x" y,p\n2,"z, w",q\n3,v,p\n4,6" s, t,q\n', "line "),
        "ragged": (text.replace("yes", "yes,more", 1).encode(), "--sep"),
        "short-row": (b"a,b,c\n1,2,x\n3,4\n5,6,y\n7,8,z\n", "--sep"),
        "title": (f"A title\n\n{text}".encode(), "--header"),
        "open-mark": (b'a,b\n1,"x\n2,y\n3,z\n' + b"4,w,w\n", "--sep"),
        "nul": (b"a,b\n1,x\x00y\n2,z\n", "--encoding"),
        "greek": (table_text({"n": [1, 2], "w": ["άλφα", "βήτα"]}, ",", True, "").encode("cp1253"), "--encoding"),
        "chinese": (
            table_text({"n": [1, 2], "w": ["中国人民", "你好世界"]}, ",", True, "").encode("gbk"),
            "--encoding",
        ),
        "damaged-utf-8": ("a,b\n1,Zürich\n2,Genève\n".encode() + b"3,\xfc\n", "--encoding"),
        "two-separators": (b"a,b;c\n1,x;y\n2,x;z\n", "--sep"),
        "two-decimal-marks": (b"a;b\n1,5;2.5\n0,25;0.75\n", "--decimal"),
        "thousand-or-decimal": (b"a;b\n1,234;x\n5,678;y\n", "--decimal"),
        "names-or-values": (b"x,y\nz,w\nv,u\n", "--header"),
        "years-or-values": (b"country,2019,2020\nA,5,6\nB,7,8\n", "--header"),
        "cut-gzip": (gzip.compress(text.encode())[:-20], "complete"),
        "two-members": (_two_members(), "unpack"),
        "old-excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "Excel"),
        "web-page": (b"<html><table><tr><td>a</td></tr></table></html>", "web page"),
        "json-lines": (b'{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n', "JSON"),
        "pdf": (b"%PDF-1.4 and so on", "PDF"),
    }
    for name, (data, word) in refused.items():
        yield TableFile(f"refused-{name}.csv", data, refusal=word)
    wrong_encoding = (None, "ascii", None, None)
    yield TableFile(
        "refused-named-encoding.csv", "a,b\n1,ü\n2,x\n".encode(), refusal="--encoding", words=wrong_encoding
    )
    yield TableFile("refused-header-line.csv", text.encode(), refusal="--header", words=(None, None, None, "99"))


def _two_members() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.csv", "a,b\n1,2\n")
        archive.writestr("b.csv", "a,b\n1,2\n")
    return file.getvalue()
