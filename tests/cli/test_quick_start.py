"""The command line starts without the libraries that only its commands need."""

import subprocess
import sys


def test_the_command_line_is_read_without_numpy() -> None:
    code = "import sys, upweight.cli; print([name for name in ('numpy', 'pandas', 'torch') if name in sys.modules])"
    imported = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert imported.stdout.strip() == "[]"
