"""Distributions as an installer leaves them: a module and a dist-info folder beside it, in a folder on the path."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import upweight


def install(folder: Path, package: str, points: Mapping[str, Mapping[str, str]], code: str) -> None:
    """Put a package there whose one module is `code`; `points` maps groups to names and objects."""
    (folder / f"{package}.py").write_text(code, encoding="utf-8")
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    name = package.replace("_", "-")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    lines = [
        line
        for group, objects in points.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in objects.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A new interpreter that sees what was installed there, and the same upweight as this one."""
    path = os.pathsep.join([str(folder), str(Path(upweight.__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
