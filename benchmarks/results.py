"""Results: tables with figures, their targets, and whether these are met."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ORDER = (
    "networks",
    "published",
    "metagradients",
    "batch norm",
    "layer costs",
    "eigenvalue part",
    "retraining",
    "accuracy",
    "refit agreement",
    "peers",
    "coming_from",
    "speed",
    "memory",
    "dataset rows",
    "sequence memory",
    "trees",
    "stores",
    "tokens",
    "recorded trainer",
    "language models",
    "viewer",
    "mislabeled",
    "tables",
    "forgetting",
)
MET, MISSED, NO_TARGET = "met", "missed", ""


@dataclass
class Table:
    """A table of figures; a row may end in a verdict."""

    title: str
    target: str
    columns: list[str]
    rows: list[list[Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: Any) -> None:
        assert len(cells) == len(self.columns), (cells, self.columns)
        self.rows.append(list(cells))

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", f"Target: {self.target}", ""]
        lines += [_line(self.columns), _line(["---"] * len(self.columns))]
        lines += [_line(row) for row in self.rows]
        lines += ["", *[f"- {note}" for note in self.notes]]
        return "\n".join(lines).rstrip() + "\n"


@dataclass
class Section:
    """The tables of one benchmark, with the command that made them, and the versions and machine it ran on."""

    name: str
    title: str
    command: str
    tables: list[Table]
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = ""

    def __post_init__(self) -> None:
        self.versions = self.versions or versions(["numpy", "scipy", "scikit-learn", "upweight"])
        self.machine = self.machine or machine()

    def markdown(self) -> str:
        named = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        head = f"## {self.title}\n\n`{self.command}`\n\n{self.machine}; {named}.\n"
        return "\n".join([head, *[table.markdown() for table in self.tables]])

    def keep(self, folder: Path = HERE) -> None:
        """Save this section beside the others, and write RESULTS.md from all of them."""
        path = folder / "results.json"
        saved = json.loads(path.read_text()) if path.exists() else {}
        saved[self.name] = asdict(self)
        path.write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n")
        names = [*(name for name in ORDER if name in saved), *(name for name in saved if name not in ORDER)]
        sections = [_read(saved[name]) for name in names]
        (folder / "RESULTS.md").write_text("\n".join([HEAD, *[section.markdown() for section in sections]]))


def kept_section(name: str, folder: Path = HERE) -> Section | None:
    """A section as earlier runs left it; None if there is none."""
    path = folder / "results.json"
    saved = json.loads(path.read_text()) if path.exists() else {}
    return _read(saved[name]) if name in saved else None


def keep_table(table: Table, folder: Path = HERE) -> None:
    """Put a table into the section of stores, in place of one with the same title."""
    path = folder / "results.json"
    saved = json.loads(path.read_text()) if path.exists() else {}
    before = _read(saved["stores"]).tables if "stores" in saved else []
    tables = [*(other for other in before if other.title != table.title), table]
    command = (
        "python -m benchmarks.store_quality, .million_rows, .store_survival, .store_engines, .forecasts: --data DIR; "
        ".store_peers: --data DIR --peers DIR; .store_tasks"
    )
    Section("stores", "Stores", command, tables, versions(["numpy", "torch", "safetensors", "upweight"])).keep(folder)


def replace_rows(table: Table, keys: int, name: str = "stores") -> None:
    """Put rows in place of those that have the same first `keys` cells in the kept table of this title."""
    section = kept_section(name)
    before = next((other for other in section.tables if other.title == table.title), None) if section else None
    if before is None or before.columns != table.columns:
        raise ValueError(f"expected a table {table.title!r} of earlier runs with the same columns; run all rows first")
    new = {tuple(row[:keys]): row for row in table.rows}
    rows = [new.pop(tuple(row[:keys]), row) for row in before.rows]
    keep_table(Table(table.title, table.target, table.columns, [*rows, *new.values()], before.notes))


HEAD = """# Results

Written by `python -m benchmarks`; see README.md for how to run it and what is measured. Times are ratios within
one run, with the contenders in turn; they are medians over the rounds. Seconds are given for orientation only.
"""


def verdict(met: bool) -> str:
    return MET if met else f"**{MISSED}**"


def versions(names: Sequence[str]) -> dict[str, str]:
    numbers = {"Python": platform.python_version()}
    for name in names:
        try:
            numbers[name] = version(name)
        except PackageNotFoundError:
            continue
    return numbers


def machine() -> str:
    """Describe the machine without its name."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.system()} on {platform.machine()}, {cores} cores (shared with other work), one thread used"


def _line(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(cell: Any) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def _read(saved: dict[str, Any]) -> Section:
    return Section(**{**saved, "tables": [Table(**table) for table in saved["tables"]]})
