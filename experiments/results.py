"""Results: one JSON file per figure or table of a paper; RESULTS.md is assembled from all of them.

python -m experiments.results                         writes experiments/RESULTS.md
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.results import machine, verdict, versions

HERE = Path(__file__).parent
HEAD = """# Results

Figures and tables of papers, reproduced from their data. `python -m experiments.results` writes this page from the JSON
files beside the pictures. Seconds are processor seconds on one thread. A number that is missed stays in the table, with
the reason that was found.
"""


@dataclass(frozen=True)
class Row:
    """One number of the paper and its counterpart here; `met` is None if there is no target."""

    what: str
    paper: str
    ours: str
    met: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """One figure or table: its numbers beside those of the paper, and how they were made.

    Attributes:
        title, claim: the title, and the claim of the paper's figure.
        rows: the numbers, the most important one first.
        settings: data, model and method in a line or two.
        section: the paper, as its heading in RESULTS.md; the same for all results of a folder.
        name: the name of the files, e.g. `fig1`; results are ordered by name.
        command: the command that reproduces it.
        seconds: processor seconds; filled in by the command.
        notes: differences from the paper, and their reasons.
        pictures: file names beside the JSON.
        numbers: the data of the picture, from which other pictures can be drawn.
    """

    title: str
    claim: str
    rows: Sequence[Row]
    settings: str
    section: str = ""
    name: str = ""
    command: str = ""
    seconds: float = 0.0
    notes: Sequence[str] = ()
    pictures: Sequence[str] = ()
    numbers: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = ""

    def keep(self, folder: Path) -> Path:
        """Write `folder/name.json`, whole or not at all."""
        stored = replace(
            self,
            versions=self.versions or versions(["numpy", "scipy", "scikit-learn", "torch", "upweight"]),
            machine=self.machine or machine(),
        )
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        part = path.with_suffix(".part")
        part.write_text(
            json.dumps(asdict(stored), indent=1, ensure_ascii=False, default=float) + "\n", encoding="utf-8"
        )
        os.replace(part, path)
        return path

    def line(self) -> str:
        """The row of the overview: its first number and the time."""
        first = self.rows[0]
        return _line(
            [
                f"[{self.title}](#{_anchor(self.title)})",
                first.what,
                first.paper,
                first.ours,
                _verdict(first),
                _time(self),
            ]
        )

    def markdown(self, folder: str) -> str:
        """The part of RESULTS.md about this result; `folder` is the folder of its pictures, relative to RESULTS.md."""
        table = [_line(["", "paper", "here", ""]), _line(["---"] * 4)]
        table += [_line([r.what, r.paper, r.ours, _verdict(r)]) for r in self.rows]
        named = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return "\n".join(
            [
                f"### {self.title}",
                "",
                self.claim,
                "",
                *[f"![{self.title}]({folder}/{picture})" for picture in self.pictures],
                "",
                *table,
                "",
                f"Settings: {self.settings}",
                "",
                *[f"- {note}" for note in self.notes],
                *([""] if self.notes else []),
                f"`{self.command}`: {_time(self)} on {self.machine}; {named}.",
                "",
            ]
        )


def read(path: Path) -> Result:
    """Read a result that `keep` wrote."""
    parts = json.loads(path.read_text(encoding="utf-8"))
    return Result(**{**parts, "rows": [Row(**row) for row in parts["rows"]]})


def assemble(root: Path = HERE) -> Path:
    """Write `root/RESULTS.md` from `root/*/results/*.json`: one section per folder."""
    parts = [HEAD]
    for folder in sorted({path.parent for path in root.glob("*/results/*.json")}):
        results = [read(path) for path in sorted(folder.glob("*.json"))]
        overview = [_line(["", "", "paper", "here", "", "time"]), _line(["---"] * 6), *[r.line() for r in results], ""]
        parts += [f"## {results[0].section}\n", "\n".join(overview)]
        parts += [result.markdown(folder.relative_to(root).as_posix()) for result in results]
    path = root / "RESULTS.md"
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def _verdict(row: Row) -> str:
    return "" if row.met is None else verdict(row.met)


def _time(result: Result) -> str:
    return f"{result.seconds:.0f} s" if result.seconds >= 10 else f"{result.seconds:.1f} s"


def _anchor(title: str) -> str:
    """The anchor of a heading, as GitHub makes it: lower case, words joined by hyphens, no punctuation."""
    return "".join(c if c.isalnum() or c in "-_" else "-" if c == " " else "" for c in title.lower())


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(assemble())
