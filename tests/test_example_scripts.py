"""The example scripts run, print their results, and write a report."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "examples"
OUTPUT = {
    "mlp": r"the strongest opponents:\n   #\d+ \((malignant|benign)\)  -0\.",
    "cnn": r"Helped: #\d+ \(a \d\)",
    "trainer": r"made likely by:\n   \+.*\n(.*\n)*Check\(6 removals",
    "lora_classifier": r"the strongest opponents:\n   -\d\.\d+  [\w.]+ \((files|numbers|network)\): \w",
    "causal_lm": r"made this likely:\n\w.*\n   \+\d+\.\d+  \w",
    "resnet": r"agreement of the scores with four retrainings: [01]\.\d\d\n",
    "transformer": r"the words that made '.*\[\w+\].*' likely:\n   \+",
}


def test_every_example_script_is_tested() -> None:
    assert sorted(OUTPUT) == sorted(path.stem for path in FOLDER.glob("*.py"))


LONG = ("lora_classifier", "causal_lm", "trainer", "resnet")  # they train for more than ten seconds


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LONG else ()) for n in OUTPUT])
def test_an_example_prints_and_writes_a_report(name: str, tmp_path: Path) -> None:
    command = [sys.executable, FOLDER / f"{name}.py", "page.html"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert re.search(OUTPUT[name], ran.stdout), ran.stdout
    assert "</html>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_training_of_a_resnet_needs_fewer_than_fifteen_more_lines() -> None:
    lines = (FOLDER / "resnet.py").read_text(encoding="utf-8").splitlines()
    added = [line for line in lines if "# added" in line]
    assert len(added) < 15
    calls = ("uw.indexed", "uw.Trajectory", "uw.Metagradient", "uw.verify", "uw.write_report", "start_step")
    assert all(any(call in line for line in added) for call in calls)
    assert all("# added" in line for line in lines if "uw." in line or "upweight" in line.split("import")[-1])
