"""One page per room of the package, with the public names that come from it, written from their docstrings."""

from __future__ import annotations

import inspect
import operator
import re
from collections import defaultdict

import upweight as uw

TITLES = {
    "applications": "Applications",
    "methods": "Methods",
    "models": "Models",
    "linear": "Models",
    "trees": "Models",
    "gradients": "Models",
    "curvature": "Curvature",
    "core": "Examples, scores, objectives",
    "evaluate": "Evaluation",
    "retraining": "Retraining",
    "training": "Recorded trainings",
    "store": "Stores",
    "report": "Pages and displays",
}
EVERYTHING_ELSE = "Further names"
DIRECTIVE = ".. {directive}:: upweight.{name}\n{options}"


def pages() -> dict[str, str]:
    """The Markdown of every page, by file name."""
    by_title: dict[str, list[str]] = defaultdict(list)
    for name, module in uw._MODULES.items():
        by_title[TITLES.get(module.split(".")[1], EVERYTHING_ELSE)].append(name)
    written = {f"{_file_name(title)}.md": _page(title, names) for title, names in by_title.items()}
    return {"index.md": _index(by_title)} | written


def _file_name(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower())


def _index(by_title: dict[str, list[str]]) -> str:
    titles = [title for title in dict.fromkeys([*TITLES.values(), EVERYTHING_ELSE]) if title in by_title]
    files = "\n".join(map(_file_name, titles))
    table = "\n".join(f"| [{title}]({_file_name(title)}.md) | {_links(sorted(by_title[title]))} |" for title in titles)
    return (
        "# Reference\n\nEvery public name, imported from `upweight` itself. What *public* means: "
        f"[stability](../stability.md). The commands: [command line](command-line.md).\n\n| | names |\n| --- | --- |\n"
        f"{table}\n\n```{{toctree}}\n:hidden:\n\ncommand-line\n{files}\n```\n"
    )


def _page(title: str, names: list[str]) -> str:
    functions = sorted(name for name in names if not inspect.isclass(getattr(uw, name)))
    classes = sorted(set(names) - set(functions))
    ordered = [*functions, *classes]
    entries = "\n".join(map(_entry, ordered))
    return f"# {title}\n\n{_links(ordered)}\n\n```{{eval-rst}}\n{entries}```\n"


def _links(names: list[str]) -> str:
    return ", ".join(f"{{py:obj}}`~upweight.{name}`" for name in names)


def _entry(name: str) -> str:
    value = operator.attrgetter(name)(uw)
    if inspect.isclass(value):
        return DIRECTIVE.format(directive="autoclass", name=name, options="   :members:\n")
    if not inspect.ismodule(value):
        return DIRECTIVE.format(directive="autofunction", name=name, options="")
    if callable(value):
        return DIRECTIVE.format(directive="py:function", name=f"{name}()", options=f"\n   {value.__call__.__doc__}\n")
    return "\n".join(_entry(f"{name}.{member}") for member in value.__all__)
