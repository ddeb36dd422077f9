"""Links of the pages as the site has them: the pages read well in the repository, where links lead to files."""

from __future__ import annotations

import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COPIES = {  # pages of the repository outside docs/, and where they stand on the site
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "CODE_OF_CONDUCT.md": "project/code-of-conduct.md",
    "benchmarks/RESULTS.md": "project/benchmarks.md",
    "experiments/RESULTS.md": "project/experiments.md",
    "README.md": "index.md",
}
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")


def for_site(text: str, source: Path, page: Path) -> str:
    """The Markdown of `source` with links as they are on the site's `page` (both absolute).

    Links into docs/ and to the copied pages lead to pages. A link to another file of the repository becomes its text.
    """

    def link(match: re.Match[str]) -> str:
        words, path, anchor = match[1], match[2], match[3] or ""
        if re.match(r"[a-z]+:", path):
            return match[0]
        target = Path(os.path.normpath(source.parent / path))
        copy = COPIES.get(str(target.relative_to(ROOT))) if target.is_relative_to(ROOT) else None
        if copy is not None:
            target = DOCS / copy
        elif not (target.is_relative_to(DOCS) and target.suffix):
            return words
        return f"[{words}]({os.path.relpath(target, page.parent)}{anchor})"

    def picture(match: re.Match[str]) -> str:
        if re.match(r"[a-z]+:", match[2]):
            return match[0]
        return f"![{match[1]}]({os.path.relpath(source.parent / match[2], page.parent)})"

    parts = re.split(r"(^```.*?^```[ \t]*$)", text, flags=re.MULTILINE | re.DOTALL)  # code stays as it is
    parts[::2] = [PICTURE.sub(picture, LINK.sub(link, part)) for part in parts[::2]]
    return "".join(parts)
