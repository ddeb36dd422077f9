"""No two files of the package import each other in a circle, be it lazily, inside a function, or only for types."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import upweight as uw

PACKAGE = Path(uw.__file__).parent
Graph = Mapping[str, set[str]]


def files() -> dict[str, Path]:
    """Module name → file."""
    named = {path: ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for path, name in named.items()}


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything that a file imports at any place; of `from a import b` it is a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def import_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Module name → modules that it imports, from module name → source; the package itself, which is lazy, aside."""
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        names = set(imported_names(ast.parse(source)))
        modules = {name if name in sources else name.rpartition(".")[0] for name in names}
        graph[module] = (modules & set(sources)) - {module, "upweight"}
    return graph


def circle_through(graph: Graph, start: str) -> list[str] | None:
    """The shortest way from a module back to itself; None if there is none."""
    ways, reached = [[start]], {start}
    for way in ways:
        for module in sorted(graph[way[-1]]):
            if module == start:
                return [*way, start]
            if module not in reached:
                reached.add(module)
                ways.append([*way, module])
    return None


def circles(graph: Graph) -> list[str]:
    """One sentence for each set of modules that import each other in a circle."""
    reported: set[str] = set()
    sentences = []
    for module in sorted(graph):
        circle = None if module in reported else circle_through(graph, module)
        if circle is not None:
            reported |= set(circle)
            sentences.append(" imports ".join(circle))
    return sentences


def test_no_files_import_each_other_in_a_circle() -> None:
    sentences = circles(import_graph({name: path.read_text(encoding="utf-8") for name, path in files().items()}))
    assert not sentences, "files that import each other in a circle:\n" + "\n".join(sentences)


def test_a_circle_through_a_lazy_import_and_an_import_for_types_is_reported() -> None:
    sources = {
        "a": "def f():\n    from b import g",
        "b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import c",
        "c": "import a",
        "d": "import a",
    }
    assert circles(import_graph(sources)) == ["a imports b imports c imports a"]
