"""What the site does beyond Sphinx: pages that come from the code, and links to files that become links to pages."""

from __future__ import annotations

import re

from docutils import nodes

from site_pages import api_reference, command_reference
from site_pages.links import COPIES, DOCS, ROOT, for_site

NAVIGATION: dict[int, str] = {}  # of source files, by the depth of their folder


def write_pages(_app) -> None:
    """Write reference/ and project/, which are not kept in the repository."""
    reference = {f"reference/{name}": text for name, text in api_reference.pages().items()}
    reference["reference/command-line.md"] = command_reference.page()
    copies = {page: (ROOT / source).read_text(encoding="utf-8") for source, page in COPIES.items() if "/" in page}
    for name, text in (reference | copies).items():
        path = DOCS / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # an unchanged page is not built again
            path.write_text(text, encoding="utf-8")


def turn_links(_app, name: str, source: list[str]) -> None:
    """Sphinx's `source-read`: links as the site has them."""
    page = DOCS / f"{name}.md"
    original = {DOCS / copy: ROOT / path for path, copy in COPIES.items() if "/" in copy}.get(page, page)
    source[0] = for_site(source[0], original, page)


# A line, an empty line, and lines indented below it: code or a formula. Sections ("Args:") have no empty line there.
INDENTED = re.compile(r"^(?P<indent> *)(?P<line>\S.*)\n\n(?P<block>(?:(?P=indent)    +\S.*\n|\n)+)", re.MULTILINE)


def as_restructured_text(_app, _what, _name, _value, _options, lines: list[str]) -> None:
    """autodoc's `autodoc-process-docstring`: what is indented is code, and |x| is an absolute value."""
    text, written, end = "\n".join(lines) + "\n", [], 0
    for match in INDENTED.finditer(text):
        written += [_escape_bars(text[end : match.start("block")]), f"{match['indent']}::\n\n", match["block"]]
        end = match.end()
    lines[:] = "".join([*written, _escape_bars(text[end:])]).split("\n")


def _escape_bars(text: str) -> str:
    text_and_code = re.split(r"(``?[^`]*``?)", text)
    text_and_code[::2] = [part.replace("|", "\\|") for part in text_and_code[::2]]
    return "".join(text_and_code)


def whole_first_lines(_app, _what, _name, _value, _options, lines: list[str]) -> None:
    """autodoc's `autodoc-process-docstring`: napoleon takes what stands before a colon in a property for its type."""
    kind = next((number for number, line in enumerate(lines) if line.startswith(":type: ")), None)
    if kind is not None:
        lines[0] = f"{lines.pop(kind).removeprefix(':type: ')}: {lines[0]}"


def skip_requests(_app, _what, name: str, _value, skip: bool, _options) -> bool:
    """autodoc's `autodoc-skip-member`: the metadata routing that scikit-learn adds to estimators is not ours."""
    return skip or bool(re.fullmatch(r"set_\w+_request", name))


def dashes(_app, tree: nodes.document) -> None:
    """Sphinx's `doctree-read`: a dash between parameter and description, for the two hyphens that napoleon writes."""
    for text in list(tree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def navigation_once(_app, page: str, _template: str, context: dict, _tree) -> None:
    """Sphinx's `html-page-context`: source files that lie equally deep have one navigation, which is made once."""
    if page.startswith("_modules/"):
        make = context["toctree"]

        def kept(**options) -> str:
            depth = page.count("/")
            if depth not in NAVIGATION:
                NAVIGATION[depth] = make(**options)
            return NAVIGATION[depth]

        context["toctree"] = kept


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)  # before napoleon's
    app.connect("autodoc-process-docstring", whole_first_lines, priority=600)  # after napoleon's
    app.connect("autodoc-skip-member", skip_requests)
    app.connect("builder-inited", write_pages)
    app.connect("source-read", turn_links)
    app.connect("doctree-read", dashes)
    app.connect("html-page-context", navigation_once, priority=400)  # before the theme's
    return {"parallel_read_safe": True, "parallel_write_safe": True}
