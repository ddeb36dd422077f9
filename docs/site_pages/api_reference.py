"""One page per room of the package, with the public names that come from it, written from their docstrings."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from pathlib import Path

import upweight as uw

LIST = Path(__file__).resolve().parents[2] / "src" / "upweight" / "__init__.pyi"
IMPORT = re.compile(r"^from upweight\.(\S+) import (\w+) as \w+$", re.MULTILINE)
TITLES = {
    "applications": "Applications",
    "methods": "Methods",
    "models": "Models",
    "curvature": "Curvature",
    "core": "Examples, scores, objectives",
    "evaluate": "Evaluation",
    "retraining": "Retraining",
    "training": "Recorded trainings",
    "store": "Stores",
    "report": "Pages and displays",
}
EVERYTHING_ELSE = "Further names"
DIRECTIVE = "```{{eval-rst}}\n.. {directive}:: upweight.{name}\n{options}```\n"


def pages() -> dict[str, str]:
    """The Markdown of every page, by file name."""
    by_title: dict[str, list[str]] = defaultdict(list)
    for module, name in IMPORT.findall(LIST.read_text(encoding="utf-8")):
        by_title[TITLES.get(module.split(".")[0], EVERYTHING_ELSE)].append(name)
    written = {f"{_file_name(title)}.md": _page(title, names) for title, names in by_title.items()}
    return {"index.md": _index(by_title)} | written


def _file_name(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower())


def _index(by_title: dict[str, list[str]]) -> str:
    titles = [title for title in (*TITLES.values(), EVERYTHING_ELSE) if title in by_title]
    files = "\n".join(map(_file_name, titles))
    table = "\n".join(
        f"| [{title}]({_file_name(title)}.md) | {', '.join(f'`{name}`' for name in sorted(by_title[title]))} |"
        for title in titles
    )
    return (
        "# Reference\n\nEvery public name, imported from `upweight` itself. What *public* means: "
        f"[stability](../stability.md). The commands: [command line](command-line.md).\n\n| | names |\n| --- | --- |\n"
        f"{table}\n\n```{{toctree}}\n:hidden:\n\ncommand-line\n{files}\n```\n"
    )


def _page(title: str, names: list[str]) -> str:
    functions = sorted(name for name in names if not inspect.isclass(getattr(uw, name)))
    classes = sorted(set(names) - set(functions))
    return f"# {title}\n\n" + "\n".join(_entry(name) for name in (*functions, *classes))


def _entry(name: str) -> str:
    value = getattr(uw, name)
    if inspect.isclass(value):
        return DIRECTIVE.format(directive="autoclass", name=name, options="   :members:\n")
    directive = "autofunction" if inspect.isroutine(value) else "autodata"
    return DIRECTIVE.format(directive=directive, name=name, options="")
