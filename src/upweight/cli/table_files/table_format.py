"""`TableFormat`: how a table is written in its file. `ReadingOptions`: what a user says about it."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Literal

from upweight.cli.table_files.number_notation import THOUSANDS_MARKS

Kind = Literal["text", "excel", "parquet", "feather"]
Compression = Literal["gzip", "bz2", "xz", "zip"]
Quoting = Literal["doubled", "escaped", "none"]

SEPARATOR_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars", " ": "spaces", ":": "colons"}
SEPARATOR_WORDS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "space": " ", "colon": ":"}
THOUSANDS_WORDS = {"comma": ",", "point": ".", "space": " ", "apostrophe": "'"}
NO_HEADER_WORDS = ("none", "no", "false")
HEADER_WORDS = ("yes", "true")


@dataclass(frozen=True)
class ReadingOptions:
    """What a user states about a file; None for what is to be detected.

    Attributes:
        separator: one character between the fields of a text file.
        encoding: a name that Python knows.
        decimal: the decimal mark of numbers, "." or ",".
        thousands: the mark between groups of three digits.
        header: the line with the names of the columns, from 1; 0: the file has no names.
        columns: names of columns that the user mentions.
    """

    separator: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    header: int | None = None
    columns: tuple[str, ...] = ()
    thousands: str | None = None

    @classmethod
    def parsed(
        cls,
        sep: str | None,
        encoding: str | None,
        decimal: str | None,
        header: str | None,
        thousands: str | None = None,
    ) -> ReadingOptions:
        """Make the options from the texts of a command line. Raises ValueError(option, message)."""
        separator = None if sep is None else SEPARATOR_WORDS.get(sep.lower(), sep)
        if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
            words = ", ".join(word for word in SEPARATOR_WORDS if word.isalpha())
            raise ValueError("--sep", f"expected one character, or {words}, got {sep!r}")
        if encoding is not None:
            try:
                codecs.lookup(encoding)
            except LookupError:
                raise ValueError(
                    "--encoding", f"expected the name of an encoding, such as utf-8 or cp1252, got {encoding!r}"
                ) from None
        if decimal not in (None, ".", ","):
            raise ValueError("--decimal", f"expected . or , got {decimal!r}")
        if decimal is not None and decimal == separator:
            raise ValueError("--decimal", f"expected another character than the separator {separator!r}")
        mark = None if thousands is None else THOUSANDS_WORDS.get(thousands.lower(), thousands)
        if mark is not None and (mark not in THOUSANDS_MARKS or mark == decimal):
            raise ValueError("--thousands", f"expected comma, point, space or apostrophe, got {thousands!r}")
        return cls(separator, encoding, decimal, _header_line(header), thousands=mark)


def _header_line(text: str | None) -> int | None:
    if text is None:
        return None
    if text.lower() in NO_HEADER_WORDS:
        return 0
    if text.lower() in HEADER_WORDS:
        return 1
    if re.fullmatch(r"[1-9]\d{0,8}", text):
        return int(text)
    raise ValueError("--header", f"expected the line of the column names, counted from 1, or none, got {text!r}")


@dataclass(frozen=True)
class TableFormat:
    """How a table is written in its file: what has to be known to write another table in the same form.

    All fields after `compression` are of text files; `header` and `sheet` are of Excel files.

    Attributes:
        kind: the kind of the file, by its contents and not by its name.
        compression: of the whole file; None if it is not compressed.
        encoding: a name of Python's; "utf-8-sig", "utf-16" and "utf-32" write a byte order mark.
        separator: the character between fields; a space stands for any number of spaces and tabs.
        quoting: how a field holds a quotation mark: "doubled", "escaped" with a backslash, or "none" if quotation marks
            are ordinary characters.
        spaced: whether every separator is followed by a space that is not a part of the value.
        trailing: whether rows end with a separator.
        decimal: the decimal mark of numbers.
        header: the line with the names of the columns, from 1; 0 if the file has no names.
        line_end: what ends a line.
        sheet: the title of an Excel sheet.
    """

    kind: Kind = "text"
    compression: Compression | None = None
    encoding: str = "utf-8"
    separator: str = ","
    quoting: Quoting = "doubled"
    spaced: bool = False
    trailing: bool = False
    decimal: str = "."
    header: int = 1
    line_end: str = "\n"
    sheet: str | None = None

    def __str__(self) -> str:
        """How the file differs from plain CSV (commas, UTF-8, names in the first line), in words; empty if not."""
        if self.kind not in ("text", "excel"):
            return ""
        parts = []
        if self.separator != ",":
            parts.append(f"columns separated by {SEPARATOR_NAMES.get(self.separator, repr(self.separator))}")
        if self.decimal != ".":
            parts.append("decimal commas")
        if self.encoding != "utf-8":
            parts.append(f"encoding {self.encoding}")
        if self.quoting == "none":
            parts.append("quotation marks that are part of the text")
        if self.trailing:
            parts.append("a separator at the end of each row")
        if self.header == 0:
            parts.append("no line with column names")
        elif self.header > 1:
            parts.append(f"column names in line {self.header}")
        return ", ".join(parts)
