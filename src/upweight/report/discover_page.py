"""The page of discover: which groups of training examples nobody named harm the queries, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from upweight.applications.discovery import DiscoveredGroup, Discovery
from upweight.core.examples import Id
from upweight.report.document import rendered
from upweight.report.effect_tables import EffectRow, effect_table, signed
from upweight.report.previews import Album, example_card
from upweight.report.wording import count, label_text, significant

DEFINITION = (
    "Half of the queries were searched for groups; effects are those on the other half. The bar is the rise of the "
    "mean measurement without the group by retraining, after the groups above it were removed; the line is its 90 % "
    "interval, the mark what the method predicted."
)
SHOWN = {"image": 8, "text": 4, "row": 4}  # training examples of one group


def discover_page(result: Discovery, description: Sequence[str] = ()) -> str:
    """A table of groups, examples of each group, and the queries with few supporters."""
    album = Album(result.train, result.queries)
    return rendered(
        "discover.html.j2",
        ("application.css", "audit.css"),
        (),
        None,
        description,
        title="Which training examples harm these queries?",
        facts=[
            count(len(result.queries), "query"),
            count(len(result.groups), "group"),
            result.measurement,
            f"{count(result.trainings, 'model')} trained",
        ],
        definition=f"{result.sentence} {DEFINITION}",
        warnings=result.diagnostics["warnings"],
        sections=_sections(result),
        groups=[_card(result, album, group) for group in result.groups],
        far=_far(result, album),
        about=[*result.diagnostics["notes"], *album.remarks()],
    )


def _sections(result: Discovery) -> list[dict[str, Any]]:
    sections = []
    if result.groups:
        sections.append(_table("Groups, in the order of their removal", result.groups))
    if result.rejected:
        sections.append(_table("Proposed, and not confirmed by retraining", result.rejected))
    return sections


def _table(title: str, groups: Sequence[DiscoveredGroup]) -> dict[str, Any]:
    rows = []
    for group in groups:
        is_measured = group.effect == group.effect
        shown = group.effect if is_measured else group.predicted
        interval = group.interval if is_measured else None
        cells = [f"{len(group.ids):,}", signed(group.predicted), signed(group.effect), _p(group.p)]
        labels = ", ".join(f"{label}: {number:,}" for label, number in group.labels.items())
        rows.append(EffectRow(group.name, cells, shown, interval, group.predicted, labels and f"labels {labels}"))
    return effect_table(title, "group", ["examples", "predicted", "retrained", "p"], "rise without the group", rows)


def _card(result: Discovery, album: Album, group: DiscoveredGroup) -> dict[str, Any]:
    kind = result.train.preview(group.typical[0]).kind
    shown = SHOWN[kind]
    return {
        "name": group.name,
        "examples": _cards(album, "train", group.typical[:shown]),
        "queries": _cards(album, "query", group.helped[:shown]),
    }


def _cards(album: Album, side: str, ids: Sequence[Id]) -> list[dict[str, Any]]:
    """The examples with their labels."""
    labels = {i: label_text(album.sides[side].label(i)) for i in ids}
    return [{**example_card(album, side, i), "notes": [] if labels[i] is None else [f"label {labels[i]}"]} for i in ids]


def _far(result: Discovery, album: Album) -> dict[str, Any] | None:
    region = result.unsupported
    if region is None:
        return None
    common = f": {region.condition}" if region.condition else ""
    kind = result.queries.preview(region.ids[0]).kind
    return {
        "title": f"{count(len(region.ids), 'query')} with few training examples near them{common}",
        "text": f"By chance there would be {significant(region.expected, 2)}.",
        "queries": _cards(album, "query", region.ids[: SHOWN[kind]]),
    }


def _p(p: float) -> str:
    return "–" if p != p else significant(p, 2)  # noqa: PLR0124 - NaN differs from itself
