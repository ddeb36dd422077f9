"""Results: one JSON file per figure or table of a paper; RESULTS.md is put together from all of them.

python -m experiments.results                         writes experiments/RESULTS.md anew
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
    """One number of the paper and its counterpart; `met` is None where there is nothing to be met."""

    what: str
    paper: str
    ours: str
    met: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """One figure or table: what it must show, number by number, and how it was made.

    Attributes:
        title, claim: what it is, and what the paper's says.
        rows: the numbers, the most telling one first.
        settings: data, model and method in a line or two.
        section: the paper, as its heading in RESULTS.md; the same for all results of a folder.
        name: of the files, e.g. `fig1`; results stand in the order of their names.
        command: what makes it again.
        seconds: processor seconds; filled in by whoever ran it.
        notes: what differs and why.
        pictures: file names beside the JSON.
        numbers: series behind the picture, for whoever wants to draw another.
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
        known = replace(
            self,
            versions=self.versions or versions(["numpy", "scipy", "scikit-learn", "torch", "upweight"]),
            machine=self.machine or machine(),
        )
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(known), indent=1, ensure_ascii=False, default=float) + "\n", encoding="utf-8")
        os.replace(part, path)
        return path

    def line(self) -> str:
        """The row of the overview: its first number, the settings and the time."""
        first = self.rows[0]
        said = "" if first.met is None else verdict(first.met)
        return _line(
            [f"[{self.title}](#{_anchor(self.title)})", first.what, first.paper, first.ours, said, _time(self)]
        )

    def markdown(self, folder: str) -> str:
        """Its part of RESULTS.md; pictures are in `folder`, as seen from there."""
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
    """What `keep` wrote."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    return Result(**{**kept, "rows": [Row(**row) for row in kept["rows"]]})


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
    """As GitHub makes them: lower case, words joined by hyphens, punctuation gone."""
    return "".join(c if c.isalnum() or c in "-_" else "-" if c == " " else "" for c in title.lower())


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(assemble())
