"""Document: one self-contained HTML file from a template, styles, scripts and data; it fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from upweight.core.files import open_atomically


def rendered(
    template: str, styles: Sequence[str], scripts: Sequence[str], data: Mapping[str, Any] | None, **facts: Any
) -> str:
    """The page as text. Styles, scripts and template are this package's own; everything else is escaped."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    style, script = ("\n".join(_read(name) for name in names) for names in (styles, scripts))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(_read)
    )
    return environment.get_template(template).render(
        style=Markup(style),
        script=Markup(script),
        data=Markup(_safe_json(data or {})),
        policy=_policy(style, script),
        **facts,
    )


def written(path: Path, text: str) -> Path:
    """A reader finds the old page or the whole new one."""
    with open_atomically(path) as file:
        # A text may hold half a surrogate pair, which has no UTF-8 form; it becomes a question mark.
        file.write(text.encode("utf-8", errors="replace"))
    return path


def _safe_json(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in, whatever the data says."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"the page's data holds a {type(value).__name__}, which is no JSON")


def _policy(style: str, script: str) -> str:
    """A content security policy under which nothing runs but this package's own script, and nothing is fetched."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _read(name: str) -> str:
    # Universal newlines: the browser hashes what it parsed, and it parses CRLF as LF.
    return files("upweight.report").joinpath(name).read_text(encoding="utf-8")
