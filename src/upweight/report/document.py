"""One self-contained HTML file from a template, styles, scripts and data. It fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from upweight.core.files import PAGE, open_atomically

STYLES = ("page.css", "examples.css", "figures.css", "narrow.css", "print.css")  # of all pages


def rendered(
    template: str,
    styles: Sequence[str],
    scripts: Sequence[str],
    data: Mapping[str, Any] | None,
    description: Sequence[str] = (),
    connect: str = "",
    **facts: Any,
) -> str:
    """The page as text. Styles (after those of all pages), scripts and templates are files of this package.

    Everything else is escaped. `description` are sentences about the model, for the head of the page. `connect` is the
    source that the page may fetch data from; nothing, unless it is one of a server.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    style, script = ("\n".join(_read(name) for name in names) for names in ((*STYLES, *styles), scripts))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(_read)
    )
    return environment.get_template(template).render(
        style=Markup(style),
        script=Markup(script),
        data=Markup(safe_json(data or {})),
        policy=_policy(style, script, connect),
        description=description,
        **facts,
    )


def written(path: Path, text: str) -> Path:
    """Write the page atomically: a reader finds the old page or the complete new one. Returns the path."""
    with open_atomically(path, PAGE) as file:
        # Half a surrogate pair has no UTF-8 form; it becomes a question mark.
        file.write(text.encode("utf-8", errors="replace"))
    return path


def safe_json(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element that contains it, whatever the data."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"expected data for JSON, got a {type(value).__name__}")


def _policy(style: str, script: str, connect: str) -> str:
    """A content security policy that runs only this package's own script, and fetches nothing but from `connect`."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        "default-src 'none'; img-src data:; media-src data:; "
        f"style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        f"base-uri 'none'; form-action 'none'{'; connect-src ' + connect if connect else ''}"
    )


def _read(name: str) -> str:
    # Read with universal newlines: the browser parses CRLF as LF before it computes the hash.
    return files("upweight.report").joinpath(name).read_text(encoding="utf-8")
