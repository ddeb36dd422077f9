"""What a user's type checker sees of the package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("user_program.py")


def mypy(file):
    """The project's own settings (strict), so that its cache serves; on the path as a package that is installed."""
    command = [sys.executable, "-m", "mypy", "--no-error-summary", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return ran.stdout + ran.stderr


@pytest.mark.timeout(600)
def test_a_users_program_passes_a_strict_type_checker():
    assert mypy(PROGRAM) == ""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", ["stability.md", "adding-a-method.md"])
def test_the_methods_of_the_documentation_pass_a_strict_type_checker(page, tmp_path):
    page = (ROOT / "docs" / page).read_text(encoding="utf-8")
    module = tmp_path / "upweight_likeness.py"
    module.write_text(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], encoding="utf-8")
    assert mypy(module) == ""


@pytest.mark.timeout(600)
def test_a_wrong_type_is_an_error(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(PROGRAM.read_text(encoding="utf-8").replace("uw.Top)", "uw.Scores)").replace("k=3", "k='3'"))
    says = mypy(wrong)
    assert 'Expression is of type "Top", not "Scores"' in says and 'Argument "k" to "top" of "Fitted" has' in says
