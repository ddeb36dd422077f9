"""What a user's type checker sees of the package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("user_program.py")
PAGES = ("stability.md", "adding-a-method.md")


@pytest.mark.timeout(600)
def test_a_strict_type_checker_passes_users_programs_and_finds_wrong_types(tmp_path):
    program = PROGRAM.read_text(encoding="utf-8")
    wrong = program.replace("uw.Top)", "uw.Scores)").replace("k=3", "k='3'")
    files = {PROGRAM: program, tmp_path / "wrong_types.py": wrong}
    for number, name in enumerate(PAGES):
        page = (ROOT / "docs" / name).read_text(encoding="utf-8")
        files[tmp_path / f"method_{number}.py"] = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    for path, text in files.items():
        if path != PROGRAM:
            path.write_text(text, encoding="utf-8")
    # The project's own settings (strict), so that its cache serves; one run, as every run reads all of the cache.
    command = [sys.executable, "-m", "mypy", "--no-error-summary", *map(str, files)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    says = ran.stdout + ran.stderr
    assert 'Expression is of type "Top", not "Scores"' in says and 'Argument "k" to "top" of "Fitted" has' in says
    assert [line for line in says.splitlines() if "wrong_types.py" not in line] == []
