"""The examples run, say what they found, and write a report."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "examples"
SAYS = {
    "mlp": r"what pulled it there:\n   #\d+ \((malignant|benign)\)  -0\.",
    "cnn": r"Helped: #\d+ \(a \d\)",
    "transformer": r"the words that made '.*\[\w+\].*' likely:\n   \+",
}


def test_every_example_is_run() -> None:
    assert sorted(SAYS) == sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("name", SAYS)
def test_an_example_prints_and_writes_a_report(name: str, tmp_path: Path) -> None:
    command = [sys.executable, FOLDER / f"{name}.py", "page.html"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert re.search(SAYS[name], ran.stdout), ran.stdout
    assert "</html>" in (tmp_path / "page.html").read_text(encoding="utf-8")
