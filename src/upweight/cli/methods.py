"""upweight methods."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from upweight.cli.app import AsJson, app

if TYPE_CHECKING:
    from upweight.core.attributor import Attributor


@app.command()
def methods(as_json: AsJson = False) -> None:
    """The methods there are: what they do, the unit of their scores, what they cost."""
    from upweight.methods.registry import methods as registered

    rows = [_described(name, recipe) for name, recipe in registered().items()]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    from rich import print as show
    from rich.table import Table
    from rich.text import Text

    table = Table("method", "unit", "what it does and costs", box=None, header_style="dim", padding=(0, 3, 0, 0))
    for row in rows:
        cost = Text(f"\nCost: {row['cost']}." if row["cost"] else "", "dim")
        table.add_row(row["name"], row["unit"], Text.assemble(row["summary"] or "", cost))
    show(table)


def _described(name: str, recipe: type[Attributor]) -> dict[str, str | None]:
    return {
        "name": name,
        "summary": recipe.summary,
        "unit": str(recipe.unit),
        "cost": recipe.cost,
        "paper": recipe.paper or None,
        "needs": ", ".join(need.__name__ for need in recipe.needs),
    }
