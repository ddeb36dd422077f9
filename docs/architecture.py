"""Draw the rooms of the package and their imports: `python docs/architecture.py` writes docs/architecture.svg.

The imports are read from the source, the layers from the import rules in pyproject.toml, and the sentence about each
room from the table in docs/architecture.md. The drawing is layered after Sugiyama et al. (1981): an arrow across
several layers passes through one waypoint per layer; waypoints and rooms are ordered so that few arrows cross.
"""

from __future__ import annotations

import ast
import re
import textwrap
import tomllib
from html import escape
from itertools import combinations, pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "architecture.svg"

Edge = tuple[str, str]  # (importing room, imported room)

BOX_WIDTH, BOX_HEIGHT, ROW_HEIGHT, WAYPOINT_WIDTH, GAP, MARGIN = 270, 62, 100, 20, 28, 24  # pixels
CHARACTERS_PER_LINE = 40
WAYPOINT_WEIGHT = 8  # pull of one waypoint of an arrow on the next, so that long arrows are straight
ORDER_SWEEPS, PLACEMENT_SWEEPS = 24, 200
STYLE = """
  svg { --paper: #ffffff; --box: #f3f6fa; --edge: #5b6b7f; --border: #b4c0cf; --text: #17202b; --soft: #4b5867; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #12161c; --box: #1e2630; --edge: #9fb0c3; --border: #43515f; --text: #edf2f7; --soft: #b7c3cf; }
  }
  .paper { fill: var(--paper); }
  .box { fill: var(--box); stroke: var(--border); }
  .edge { fill: none; stroke: var(--edge); stroke-width: 1.5; marker-end: url(#arrow); }
  .arrow { fill: var(--edge); }
  text { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; text-anchor: middle; }
  .name { font-size: 15px; font-weight: 600; fill: var(--text); }
  .about { font-size: 11.5px; fill: var(--soft); }
"""


def layers() -> list[list[str]]:
    """The rooms of each layer, from the top: a room may import only from layers below its own."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (contract,) = (contract for contract in contracts if contract["type"] == "layers")
    rooms = [[room for room in layer.split(" | ") if not room.startswith("__")] for layer in contract["layers"]]
    return [layer for layer in rooms if layer]


def imports() -> set[Edge]:
    """Every (importing room, imported room), with the imports inside functions and those for type checkers."""
    edges: set[Edge] = set()
    for path in sorted((ROOT / "src" / "upweight").rglob("*.py")):
        room = path.relative_to(ROOT / "src" / "upweight").parts[0].removesuffix(".py")
        for module in imported_modules(ast.parse(path.read_text(encoding="utf-8"))):
            package, _, rest = module.partition(".")
            if package == "upweight" and rest and rest.split(".")[0] != room and not room.startswith("__"):
                edges.add((room, rest.split(".")[0]))
    return edges


def imported_modules(tree: ast.AST) -> list[str]:
    """The full name of every module that this source imports from."""
    modules: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            modules.append(node.module)
    return modules


def without_implied(edges: set[Edge]) -> list[Edge]:
    """The edges that no longer path of other edges implies (the transitive reduction)."""

    def reachable(start: str) -> set[str]:
        below = {imported for room, imported in edges if room == start}
        return below.union(*(reachable(room) for room in below))

    return sorted((a, b) for a, b in edges if not any(b in reachable(c) for d, c in edges if d == a and c != b))


def descriptions() -> dict[str, str]:
    """Room → what it holds, from the table in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| \[`(\w+?)(?:/|\.py)?`\]\([^)]*\) \| (.*?) \|$", text, re.MULTILINE))


def with_waypoints(rows: list[list[str]], edges: list[Edge]) -> tuple[list[list[str]], dict[Edge, list[str]]]:
    """(the rows with a waypoint wherever an arrow passes, arrow → the nodes on its way from start to end)."""
    row_of = {room: row for row, rooms in enumerate(rows) for room in rooms}
    rows, ways = [list(rooms) for rooms in rows], {}
    for start, end in edges:
        waypoints = {row: f"{start}>{end}:{row}" for row in range(row_of[start] + 1, row_of[end])}
        for row, name in waypoints.items():
            rows[row].append(name)
        ways[start, end] = [start, *waypoints.values(), end]
    return rows, ways


def ordered(rows: list[list[str]], ways: dict[Edge, list[str]]) -> list[list[str]]:
    """The rows reordered for few crossings: each node is moved to the mean position of its neighbours, in sweeps."""
    best = rows
    for sweep in range(ORDER_SWEEPS):
        position = {name: place - len(row) / 2 for row in rows for place, name in enumerate(row)}
        above, below = neighbours(ways)
        towards = below if sweep % 2 else above
        order = reversed(range(len(rows))) if sweep % 2 else range(len(rows))
        rows = [list(row) for row in rows]
        for index in order:
            rows[index].sort(key=lambda name: mean([position[n] for n in towards.get(name, [])], position[name]))
            position |= {name: place - len(rows[index]) / 2 for place, name in enumerate(rows[index])}
        if crossings(rows, ways) < crossings(best, ways):
            best = rows
    return best


def neighbours(ways: dict[Edge, list[str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """(node → its neighbours in the row above, node → its neighbours in the row below)."""
    above: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for way in ways.values():
        for upper, lower in pairwise(way):
            above.setdefault(lower, []).append(upper)
            below.setdefault(upper, []).append(lower)
    return above, below


def mean(values: list[float], default: float) -> float:
    """The mean, or the default if there are no values."""
    return sum(values) / len(values) if values else default


def crossings(rows: list[list[str]], ways: dict[Edge, list[str]]) -> int:
    """The number of pairs of arrows that cross between two rows."""
    place = {name: place for row in rows for place, name in enumerate(row)}
    row_of = {name: index for index, row in enumerate(rows) for name in row}
    segments = [segment for way in ways.values() for segment in pairwise(way)]
    return sum(
        row_of[a] == row_of[c] and (place[a] - place[c]) * (place[b] - place[d]) < 0
        for (a, b), (c, d) in combinations(segments, 2)
    )


def placed(rows: list[list[str]], ways: dict[Edge, list[str]]) -> dict[str, int]:
    """Node → x of its centre: near the mean of its neighbours, without overlaps in its row."""
    above, below = neighbours(ways)
    x = {name: float(place * BOX_WIDTH) for row in rows for place, name in enumerate(row)}
    for sweep in range(PLACEMENT_SWEEPS):
        for row in rows if sweep % 2 else reversed(rows):
            wanted = []
            for name in row:
                around = [*above.get(name, []), *below.get(name, [])]
                pulls = [x[n] for n in around for _ in range(WAYPOINT_WEIGHT if ">" in name and ">" in n else 1)]
                wanted.append(mean(pulls, x[name]))
            x |= dict(zip(row, separated(wanted, [width(name) for name in row]), strict=True))
    left = min(x[name] - width(name) / 2 for name in x)
    return {name: round(value - left + MARGIN) for name, value in x.items()}


def width(name: str) -> int:
    """The width of a room's box, or of a waypoint."""
    return WAYPOINT_WIDTH if ">" in name else BOX_WIDTH


def separated(wanted: list[float], widths: list[int]) -> list[float]:
    """The positions nearest to the wanted ones (least squares) at which nodes of these widths do not overlap."""
    offsets = [0.0]
    for left, right in pairwise(widths):
        offsets.append(offsets[-1] + (left + right) / 2 + GAP)
    pools: list[tuple[float, int]] = []  # (mean, size): pool adjacent violators
    for value in (position - offset for position, offset in zip(wanted, offsets, strict=True)):
        pool = (value, 1)
        while pools and pools[-1][0] > pool[0]:
            (mean_left, size_left), (mean_right, size_right) = pools.pop(), pool
            size = size_left + size_right
            pool = ((mean_left * size_left + mean_right * size_right) / size, size)
        pools.append(pool)
    flat = [value for value, size in pools for _ in range(size)]
    return [value + offset for value, offset in zip(flat, offsets, strict=True)]


def draw() -> str:
    """The picture as SVG text."""
    about = descriptions()
    edges = without_implied(imports())
    rows, ways = with_waypoints(layers(), edges)
    rows = ordered(rows, ways)
    x = placed(rows, ways)
    y = {name: MARGIN + index * ROW_HEIGHT for index, row in enumerate(rows) for name in row}
    total_width = max(x[name] + width(name) // 2 for name in x) + MARGIN
    total_height = 2 * MARGIN + (len(rows) - 1) * ROW_HEIGHT + BOX_HEIGHT
    rooms = [name for row in rows for name in row if ">" not in name]
    missing = sorted(set(rooms) - set(about))
    if missing:
        raise SystemExit(f"expected a line for every room in the table of docs/architecture.md, none for {missing}")
    ports = {edge: (port(edge, x, ways, 0), port(edge, x, ways, -1)) for edge in edges}
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_width} {total_height}" '
            f'width="{total_width}" height="{total_height}" role="img" aria-label="The rooms of upweight">',
            f"<style>{STYLE}</style>",
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path class="arrow" d="M0 0 L8 4 L0 8 z"/></marker></defs>',
            f'<rect class="paper" width="{total_width}" height="{total_height}"/>',
            *(arrow(ways[edge], ports[edge], x, y, f"{edge[0]} imports {edge[1]}") for edge in edges),
            *(box(name, about[name], x[name], y[name]) for name in rooms),
            "</svg>\n",
        ]
    )


def port(edge: Edge, x: dict[str, int], ways: dict[Edge, list[str]], end: int) -> int:
    """The x at which an arrow leaves (end 0) or enters (end −1) its box, so that arrows of one side do not cross."""
    room, inner = ways[edge][end], 1 if end == 0 else -2
    sharing = sorted((x[way[inner]], other) for other, way in ways.items() if way[end] == room)
    place = next(place for place, (_, other) in enumerate(sharing) if other == edge)
    spread = min(40, (BOX_WIDTH - 40) // len(sharing))
    return x[room] + round((place - (len(sharing) - 1) / 2) * spread)


def arrow(way: list[str], ports: tuple[int, int], x: dict[str, int], y: dict[str, int], title: str) -> str:
    """One arrow: curves between rows, straight lines past the boxes of a row."""
    start, end = ports
    parts, current = [f"M{start} {y[way[0]] + BOX_HEIGHT}"], (start, y[way[0]] + BOX_HEIGHT)
    for name in way[1:]:
        target = (end if name == way[-1] else x[name], y[name])
        middle = (current[1] + target[1]) // 2
        parts.append(f"C{current[0]} {middle} {target[0]} {middle} {target[0]} {target[1]}")
        current = target
        if name != way[-1]:
            current = (x[name], y[name] + BOX_HEIGHT)
            parts.append(f"L{current[0]} {current[1]}")
    return f'<path class="edge" d="{" ".join(parts)}"><title>{escape(title)}</title></path>'


def box(name: str, about: str, x: int, y: int) -> str:
    """One room: its name and what it holds, in at most two lines."""
    lines = textwrap.wrap(about.replace("`", ""), CHARACTERS_PER_LINE, break_on_hyphens=False)
    if len(lines) > 2:
        raise SystemExit(f"expected at most {2 * CHARACTERS_PER_LINE} characters about {name}, got {about!r}")
    first = 40 if len(lines) == 2 else 44
    texts = [
        f'<text class="about" x="{x}" y="{y + first + 14 * i}">{escape(line)}</text>' for i, line in enumerate(lines)
    ]
    return "\n".join(
        [
            f'<rect class="box" x="{x - BOX_WIDTH // 2}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="7"/>',
            f'<text class="name" x="{x}" y="{y + 22}">{escape(name)}</text>',
            *texts,
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8", newline="\n")
    print(f"wrote {PICTURE.relative_to(ROOT)}")
