"""What a stranger looks for in a repository is there, and says the same as the package; the wheel runs alone."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import upweight as uw

ROOT = Path(__file__).resolve().parents[2]
YAML = [*sorted((ROOT / ".github").rglob("*.yml")), ROOT / "CITATION.cff", ROOT / ".pre-commit-config.yaml"]


def test_the_citation_has_the_version_and_the_licence_of_the_package() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    licence = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["license"]
    assert f"\nversion: {uw.__version__}\n" in text and f"\nlicense: {licence}\n" in text


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_every_form_and_workflow_is_a_mapping(path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_no_two_test_files_have_one_name() -> None:
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))  # pytest imports them by name alone
    assert [name for name, count in names.items() if count > 1] == []


def test_the_commands_of_the_workflow_are_those_of_the_project() -> None:
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert ".ci/run" in text and (ROOT / ".ci" / "run").exists()
    lowest = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    assert f'"{lowest.removeprefix(">=")}"' in text


@pytest.mark.slow
def test_the_wheel_alone_in_an_empty_environment_runs_the_demo(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "LANG": "C", "TERM": "dumb"}
    environment.pop("PYTHONPATH", None)

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        parts = [str(part) for part in command]
        return subprocess.run(parts, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    built = run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path / "dist", ROOT)
    if built.returncode:
        pytest.skip(
            f"the wheel could not be built, perhaps because no package index can be reached: {built.stderr[-300:]}"
        )
    assert run(sys.executable, "-m", "venv", tmp_path / "alone").returncode == 0
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    scripts = tmp_path / "alone" / ("Scripts" if os.name == "nt" else "bin")
    assert run(scripts / "pip", "install", "-q", wheel).returncode == 0
    demo = run(scripts / "upweight", "demo")
    assert demo.returncode == 0 and (tmp_path / "report.html").stat().st_size > 50_000
    assert "Verdict: agrees" in demo.stdout


def test_the_page_of_licences_has_every_dependency() -> None:
    needed_by = runpy.run_path(str(ROOT / "docs" / "licences.py"))["needed_by"]()
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = {tuple(cell.strip() for cell in line.split("|")[1:4]) for line in page.splitlines() if line.startswith("| ")}
    assert {(name, ", ".join(extras)) for name, extras in needed_by.items()} <= {(row[0], row[2]) for row in rows}
    assert all(licence not in ("", "not stated") for _, licence, _ in rows)
