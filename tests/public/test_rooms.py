"""The map of CONTRIBUTING, the architecture page and the import contracts speak of the rooms that the package has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import upweight as uw

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(uw.__file__).parent
ROOMS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} | {"demo"}


def first_column(page: str) -> list[str]:
    """What stands in backquotes in the first column of the rows of tables."""
    rows = re.findall(r"^\|([^|]*)\|", (ROOT / page).read_text(encoding="utf-8"), flags=re.M)
    return [name.rstrip("/").removesuffix(".py") for row in rows for name in re.findall(r"`(\w+(?:/|\.py))`", row)]


def layers() -> list[set[str]]:
    """The rooms of every layer of the import contracts, from the top."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    return [set(re.findall(r"\w+", layer)) for layer in settings["contracts"][0]["layers"] if layer != "__main__"]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_a_page_lists_every_room_once(page: str) -> None:
    assert sorted(first_column(page)) == sorted(ROOMS)


def test_the_layers_of_the_contracts_are_the_rooms() -> None:
    assert set().union(*layers()) == ROOMS


def test_the_layers_that_the_architecture_page_names_are_those_of_the_contracts() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    sentence = " ".join(re.search(r"The layers, from the top: (.*?)\. Rooms of", page, flags=re.S)[1].split())
    assert [set(re.findall(r"`(\w+)`", layer)) for layer in sentence.split(" · ")] == layers()
