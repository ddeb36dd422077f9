"""Write docs/licences.md: `python docs/licences.py`, in an environment that has every extra.

Each direct dependency of pyproject.toml with its licence, as the installed package states it.
"""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "licences.md"
DEVELOPMENT = ("docs", "lint", "test")  # not needed by users
THE_SAME_PROJECT = {"xgboost": "xgboost-cpu"}  # one of the two is installed, by system
HEAD = """# Licences of dependencies

`upweight` itself is under Apache-2.0. It contains no code of other projects. These are its direct dependencies and what
their installed packages state as their licence; `python docs/licences.py` writes this page.

`pip check` finds versions that do not fit together, and `pip-audit --skip-editable` known vulnerabilities of what is
installed. The job `audit` of the workflow runs both with all extras, with every change and once a week.

| package | licence | needed by |
| --- | --- | --- |
"""


def needed_by() -> dict[str, list[str]]:
    """The extras that name each package; "always" for those without one. Extras for development come last."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    names: dict[str, list[str]] = {}
    order = ["always", *(e for e in extras if e not in DEVELOPMENT), *DEVELOPMENT]
    for extra in order:
        for requirement in project["dependencies"] if extra == "always" else extras[extra]:
            name = re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower()
            if name != project["name"]:
                names.setdefault(name, []).append(extra)
    return {name: [e for e in listed if e not in DEVELOPMENT] or listed for name, listed in names.items()}


def licence(name: str) -> str:
    """The licence that the installed package states: its expression, its classifiers, or its text's first line."""
    about = metadata.metadata(THE_SAME_PROJECT.get(name, name))
    classifiers = [c.split(" :: ")[-1] for c in about.get_all("Classifier", []) if c.startswith("License")]
    stated = about.get("License-Expression") or ", ".join(classifiers) or about.get("License", "")
    return stated.strip().splitlines()[0] if stated.strip() else "not stated"


def page() -> str:
    """The Markdown of the page."""
    rows = [f"| {name} | {licence(name)} | {', '.join(extras)} |" for name, extras in sorted(needed_by().items())]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
