"""upweight methods."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from upweight.cli.app import AsJson, app

if TYPE_CHECKING:
    from upweight.core.attributor import Attributor


@app.command()
def methods(as_json: AsJson = False) -> None:
    """The methods there are: what they do, the unit of their scores, what they cost and need of a model."""
    from upweight.methods.registry import methods as registered

    rows = [_described(name, recipe) for name, recipe in registered().items()]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    from rich import print as show
    from rich.table import Table
    from rich.text import Text

    columns = "method", "unit", "what it does, costs and needs of a model"
    table = Table(*columns, box=None, header_style="dim", padding=(0, 3, 0, 0))
    for row in rows:
        cost = Text(f"\nCost: {row['cost']}." if row["cost"] else "", "dim")
        needs = Text(f"\nNeeds: {', '.join(row['needs'])}.", "dim")
        table.add_row(row["name"], row["unit"], Text.assemble(row["summary"], cost, needs))
    show(table)


def _described(name: str, recipe: type[Attributor]) -> dict[str, Any]:
    return {
        "name": name,
        "summary": recipe.summary or _first_line(recipe),
        "unit": str(recipe.unit),
        "cost": recipe.cost,
        "paper": recipe.paper or None,
        "needs": [need.__name__ for need in recipe.needs],
    }


def _first_line(recipe: type[Attributor]) -> str:
    """The first line of the docstring that the author wrote; dataclass writes one of its own, the signature."""
    written = (recipe.__doc__ or "").strip()
    return "" if written.startswith(f"{recipe.__name__}(") else written.partition("\n")[0]
