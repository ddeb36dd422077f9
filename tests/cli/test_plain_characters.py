"""A terminal without a true minus prints the plain one."""

import os
import subprocess
import sys

import pytest

from upweight.cli.plain_characters import PLAIN


def test_signs_and_marks_are_spelt_in_ascii_and_the_rest_is_a_question_mark() -> None:
    assert "✓ “größe” −0.2 ± 3 … 日".encode("ascii", PLAIN) == b'+ "gr??e" -0.2 +- 3 ... ?'
    assert "é −1".encode("latin-1", PLAIN).decode("latin-1") == "é -1"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", PLAIN)


def test_the_command_line_prints_what_the_terminal_can_show() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "upweight", "explain", "a−b.csv", "--target", "y"]
    ran = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert ran.returncode == 2 and b"a-b.csv" in ran.stderr and b"?" not in ran.stderr
