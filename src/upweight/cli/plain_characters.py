"""Characters for terminals that have only those of a small encoding: a minus stays a minus, and is no question mark."""

from __future__ import annotations

import codecs

PLAIN = "upweight.plain"  # the name for `errors=` of a stream
_SPELLINGS = {
    **{"−": "-", "–": "-", "·": "-", "…": "...", "✓": "+", "×": "x", "±": "+-", "→": "->", "≤": "<=", "≥": ">="},
    **{"“": '"', "”": '"', "‘": "'", "’": "'"},
}


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_SPELLINGS.get(character, "?") for character in error.object[error.start : error.end]), error.end


codecs.register_error(PLAIN, _plain)
