from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from upweight.cli.option_groups import expand_options


@dataclass(frozen=True, kw_only=True)
class Size:
    width: Annotated[int, typer.Option(help="How wide.")] = 1
    height: Annotated[int | None, typer.Option("--tall")] = None


def test_every_field_of_a_group_is_an_option_and_the_command_gets_the_group():
    given = []
    app = typer.Typer()

    @app.command()
    @expand_options
    def draw(name: Annotated[str, typer.Argument()], *, size: Size, colour: str = "red") -> None:
        given.append((name, size, colour))

    for words in (["box"], ["box", "--width", "3", "--tall", "4", "--colour", "blue"]):
        assert CliRunner().invoke(app, words).exit_code == 0
    assert given == [("box", Size(), "red"), ("box", Size(width=3, height=4), "blue")]
    assert "How wide." in CliRunner().invoke(app, ["--help"]).stdout


def test_two_options_of_one_name_are_refused():
    with pytest.raises(TypeError, match="width"):

        @expand_options
        def draw(*, size: Size, width: int = 1) -> None:
            pass
