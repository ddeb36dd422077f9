"""Which training examples matter over all queries, on the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from upweight.applications.overview import Overview
from upweight.core.examples import Examples
from upweight.core.printable import printable
from upweight.report.wording import count, label_text, significant

KINDS_SHOWN = 6


def overview_summary(overview: Overview, train: Examples, k: int) -> Group:
    """The k training examples that matter most, and the kinds of mistakes with the examples behind them."""
    parts: list[RenderableType] = [
        Text.assemble(("Over all queries ", "bold"), f"(mean scores of {count(overview.queries, 'query')})")
    ]
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("training example")
    table.add_column("label")
    for name in ("mean score", "mean size", "behind mistakes"):
        table.add_column(name, justify="right")
    for row in overview.as_dict(k)["strongest"]:
        label = printable(label_text(train.label(row["id"])) or "")
        numbers = significant(row["mean"], 3, "+"), significant(row["strength"], 3), str(row["mistakes"])
        table.add_row(Text(printable(f"#{row['id']}")), Text(label), *numbers)
    parts.append(table)
    for group in overview.groups[:KINDS_SHOWN]:
        behind = ", ".join(f"#{a.id} ({significant(a.score, 3, '+')})" for a in group.opponents[:k]) or "none"
        parts.append(
            Text(printable(f"{group.name}: {count(len(group.query_ids), 'query')}; strongest opponents {behind}"))
        )
    parts += [Text(printable(note), "dim") for note in overview.notes]
    return Group(*(Padding(part, (int(i in (0, 2)), 0, 0, 2), expand=False) for i, part in enumerate(parts)))
