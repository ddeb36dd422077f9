"""The example scripts run, print their results, and write a report."""

from __future__ import annotations

import re
import subprocess
import sys
import time
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


TASKS = ("cnn_task", "transformer_task")


def test_every_example_script_is_tested() -> None:
    assert sorted([*OUTPUT, *TASKS]) == sorted(path.stem for path in FOLDER.glob("*.py"))


LONG = {*OUTPUT} - {"mlp"}  # they train for ten seconds and more


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


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_store_of_a_task_file_that_was_killed_is_finished_and_explains(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "upweight", "store", "build", str(FOLDER / f"{name}.py"), "-o", "store"]
    killed = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    manifest = tmp_path / "store" / "manifest.0.jsonl"
    while killed.poll() is None and not manifest.exists():
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    lines = manifest.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = "".join(line for line in lines if line.endswith("\n"))

    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    assert manifest.read_text(encoding="utf-8").startswith(kept)
    explain = [*command[:3], "explain", command[5], "--store", "store", "--out", "page.html"]
    ran = subprocess.run(explain, check=True, cwd=tmp_path, capture_output=True, text=True)
    assert "Training examples that helped" in ran.stdout
    assert "</html>" in (tmp_path / "page.html").read_text(encoding="utf-8")
