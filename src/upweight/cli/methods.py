"""upweight methods: the registered attribution methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from upweight.cli.app import app
from upweight.cli.options import AsJson
from upweight.cli.output import print_json

if TYPE_CHECKING:
    from upweight.core.attributor import Attributor


@app.command()
def methods(as_json: AsJson = False) -> None:
    """List the attribution methods: what they compute, the unit of their scores, their cost and what they need."""
    from upweight.methods.registry import methods as registered

    rows = [describe(name, recipe) for name, recipe in registered().items()]
    if as_json:
        print_json(rows)
        return
    from rich import print as print_rich
    from rich.table import Table
    from rich.text import Text

    columns = "method", "unit", "what it computes, what it costs, what it needs of a model"
    table = Table(*columns, box=None, header_style="dim", padding=(0, 3, 0, 0))
    for row in rows:
        cost = Text(f"\nCost: {row['cost']}." if row["cost"] else "", "dim")
        needs = Text(f"\nNeeds: {', '.join(row['needs'])}.", "dim")
        table.add_row(Text(row["name"]), row["unit"], Text.assemble(row["summary"], cost, needs))
    print_rich(table)


def describe(name: str, recipe: type[Attributor]) -> dict[str, Any]:
    """The facts of one method, as plain values for JSON."""
    return {
        "name": name,
        "summary": recipe.summary or _first_line(recipe),
        "unit": str(recipe.unit),
        "cost": recipe.cost,
        "paper": recipe.paper or None,
        "needs": [need.__name__ for need in recipe.needs],
    }


def _first_line(recipe: type[Attributor]) -> str:
    """The first line of the author's docstring; a dataclass without one gets its signature, which does not count."""
    docstring = (recipe.__doc__ or "").strip()
    return "" if docstring.startswith(f"{recipe.__name__}(") else docstring.partition("\n")[0]
