"""The bytes of a text file → its text and encoding."""

from __future__ import annotations

import codecs
import re

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, with whose mark it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WESTERN = ("cp1252", "latin-1")  # encodings in which every byte is some character
MARK = "\ufeff"
MAX_NUL_SHARE = 1e-4  # of the characters of a text
END_OF_FILE = "\x1a"  # the last character of text files of DOS
PROBED_BYTES = 4096  # bytes in which zeros are counted
MIN_ZERO_SHARE = 0.3  # of the bytes on one side of UTF-16 without a mark
# Four letters beyond ASCII in a row are rare in the languages of Western Europe, and usual in Greek, Russian, Chinese.
FOREIGN_RUN = re.compile(rb"[\xc0-\xff]{4,}")
MAX_FOREIGN_SHARE = 0.2  # of the letters beyond ASCII
WORD_BEYOND_ASCII = re.compile(r"\w*[^\W\x00-\x7f]\w*")


def decode(data: bytes, encoding: str | None, name: str) -> tuple[str, str, list[str]]:
    """(text without its mark, encoding, sentences: that the encoding is a guess, and that there are NUL characters).

    Raises:
        ValueError: the bytes are not text in this encoding, or in none of those that are tried; the message says where
            and names `--encoding`.
    """
    text, encoding, notes = _decoded(data, encoding, name)
    notes += _nul_note(text, encoding, name)
    return text.removeprefix(MARK).rstrip(END_OF_FILE), encoding, notes


def _decoded(data: bytes, encoding: str | None, name: str) -> tuple[str, str, list[str]]:
    if encoding is not None:
        return *_decode_as(data, encoding, name), []
    marked = next((each for mark, each in MARKS if data.startswith(mark)), None) or _utf_16_without_mark(data)
    if marked is not None:
        return *_decode_as(data, marked, name), []
    try:
        return data.decode("utf-8"), "utf-8", []
    except UnicodeDecodeError as error:
        _require_western(data, error, name)
    western = next(each for each in WESTERN if _has_all(each, data))
    text = data.decode(western)
    word = WORD_BEYOND_ASCII.search(text)
    example = f" (it has words like {word[0][:40]!r})" if word else ""
    return text, western, [f"{name} is not UTF-8 and was read as {western}{example}; --encoding names another."]


def _has_all(encoding: str, data: bytes) -> bool:
    """Whether all bytes have a meaning in this encoding."""
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _decode_as(data: bytes, encoding: str, name: str) -> tuple[str, str]:
    if codecs.lookup(encoding).name == "utf-8" and data.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeError as error:
        where = ""
        if isinstance(error, UnicodeDecodeError):
            line = data[: error.start].count(b"\n") + 1
            where = f": byte 0x{data[error.start]:02x} in line {line} has no meaning there"
        raise ValueError(
            f"{name} is not text in the encoding {encoding}{where}; name another with --encoding, or save it as UTF-8"
        ) from None
    except (LookupError, TypeError, AssertionError):  # codecs that are not of text, such as hex
        raise ValueError(f"{encoding} is not an encoding of text; say --encoding utf-8, cp1252, …") from None
    return text, encoding


def _nul_note(text: str, encoding: str, name: str) -> list[str]:
    """A sentence about a few NUL characters, as mails have. Raises ValueError for many, which no text has."""
    count = text.count("\0")
    if not count:
        return []
    line = text[: text.index("\0")].count("\n") + 1
    if count > MAX_NUL_SHARE * len(text):
        raise ValueError(
            f"expected {name} to be text, got a NUL character in line {line} as {encoding}: the file is damaged or "
            "binary, or its encoding is another, to be named with --encoding"
        )
    characters = "a NUL character, in" if count == 1 else f"{count:,} NUL characters, the first in"
    return [f"{name} has {characters} line {line}, which is read as a part of the text."]


def _utf_16_without_mark(data: bytes) -> str | None:
    """UTF-16 by its zero bytes: every other byte of ASCII text is one."""
    probe = data[:PROBED_BYTES]
    if len(probe) < 4:
        return None
    even, odd = probe[0::2], probe[1::2]
    zeros = even.count(0) / len(even), odd.count(0) / len(odd)
    if zeros[1] >= MIN_ZERO_SHARE and zeros[0] == 0:
        return "utf-16-le"
    if zeros[0] >= MIN_ZERO_SHARE and zeros[1] == 0:
        return "utf-16-be"
    return None


def _require_western(data: bytes, error: UnicodeDecodeError, name: str) -> None:
    """Raise ValueError for bytes that are more likely damaged UTF-8, or a script that cp1252 does not have."""
    line = data[: error.start].count(b"\n") + 1
    lenient = data.decode("utf-8", "surrogateescape")
    invalid = len(lenient) - len(lenient.encode("utf-8", "ignore").decode("utf-8"))
    valid = len(lenient) - len(lenient.encode("ascii", "ignore")) - invalid
    if valid >= invalid:
        raise ValueError(
            f"{name} is UTF-8 except for {invalid} bytes, the first 0x{data[error.start]:02x} in line {line}; correct "
            "the line, or name the encoding with --encoding"
        )
    letters = len(data.translate(None, bytes(range(0xC0))))
    foreign = sum(map(len, FOREIGN_RUN.findall(data)))
    if foreign > MAX_FOREIGN_SHARE * max(letters, 1):
        raise ValueError(
            f"{name} is not UTF-8 (byte 0x{data[error.start]:02x} in line {line}) and does not look like a language of "
            "Western Europe; say which encoding it is with --encoding, or save it as UTF-8"
        )
