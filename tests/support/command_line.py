"""The command line, run in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from upweight.cli import app


def written(path: Path, text: str) -> Path:
    """Write a file, and return its path."""
    path.write_text(text, encoding="utf-8")
    return path


def run(*arguments: Any, code: int = 0) -> Any:
    """The result of `upweight` with these arguments, which has to end with this exit code."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def words(text: str) -> str:
    """The text without the frame and the line breaks that the parser puts around an error."""
    return " ".join(text.replace("│", " ").split())
