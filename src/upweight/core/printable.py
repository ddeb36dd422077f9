"""Texts of a data set as a terminal can print them: control characters are shown, not obeyed."""

from __future__ import annotations

import re

# Control characters (a terminal obeys them), directional overrides (they reorder what is read), and halves of
# surrogate pairs (they cannot be encoded).
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, keep: str = "\n\t") -> str:
    r"""The text with unprintable characters as Python writes them, such as \x1b.

    Args:
        text: may come from a data set or from the name of a file.
        keep: characters that stay; the empty text for a value that has to stay on one line.
    """
    return _UNPRINTABLE.sub(lambda match: match[0] if match[0] in keep else repr(match[0])[1:-1], text)
