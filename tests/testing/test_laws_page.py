"""The page on testing names every law."""

from pathlib import Path

import pytest

from upweight.testing import Law, ModelLaw

PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing.md"


@pytest.mark.parametrize("law", [*Law, *ModelLaw], ids=lambda law: f"{type(law).__name__}.{law.name}")
def test_every_law_is_on_the_page(law):
    assert f"| `{type(law).__name__}.{law.name}` | {law} |" in PAGE.read_text(encoding="utf-8")
