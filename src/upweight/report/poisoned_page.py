"""The page of a search for poison: the suspected targets with their attackers, before and after removal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from upweight.applications.poisoned import Poisoned, SuspectedTarget
from upweight.applications.target_search import rough
from upweight.core.examples import Id
from upweight.report.document import rendered
from upweight.report.previews import Album, example_card
from upweight.report.wording import count, label_text, significant

MAX_CARDS = 40  # queries with their attackers
MAX_ROWS = 300  # of the table
ATTACKERS = {"image": 16, "text": 6, "row": 6}  # shown of one query
DEFINITION = (
    "A query is heavy if a few training examples of its predicted label have far more influence on the prediction than "
    "the others: z is their distance from the median in units of the spread (Qn). What removing them does is measured "
    "by retraining. A flag is a reason to look: an honest query that rests on a few training examples is heavy too."
)


def poisoned_page(result: Poisoned, description: Sequence[str] = ()) -> str:
    """Flagged and tried queries as cards, heaviest first, and a table of all."""
    album = Album(result.train, result.queries)
    shown = [suspect for suspect in result.suspects if suspect.flagged or suspect.mitigation is not None]
    filtered = set() if result.neighbours is None else set(result.neighbours.flagged.tolist())
    return rendered(
        "poisoned.html.j2",
        ("application.css", "audit.css"),
        (),
        None,
        description,
        title="Are these predictions targets of poisoned training examples?",
        facts=_facts(result),
        definition=DEFINITION,
        warnings=result.diagnostics["warnings"],
        notes=result.diagnostics["notes"],
        cards=[_card(result, album, suspect, filtered) for suspect in shown[:MAX_CARDS]],
        left_out=max(0, len(shown) - MAX_CARDS),
        rows=[_row(suspect) for suspect in result.suspects[:MAX_ROWS]],
        rows_left_out=max(0, len(result.suspects) - MAX_ROWS),
        about=album.remarks(),
    )


def _facts(result: Poisoned) -> list[str]:
    tried = sum(suspect.mitigation is not None for suspect in result.suspects)
    chance = "" if result.by_chance is None else f", about {rough(result.by_chance)} to be expected by chance"
    facts = [f"{len(result.flagged):,} of {len(result.suspects):,} queries flagged{chance}"]
    if tried:
        facts.append(f"{len(result.targets):,} of {tried:,} confirmed by retraining")
    if result.removed:
        facts.append(f"{len(result.removed):,} of {count(len(result.train), 'training example')} removed")
    before, after = result.accuracy
    if before is not None and after is not None and result.removed:
        facts.append(f"accuracy on queries that are not flagged {before:.1%} before, {after:.1%} after")
    if result.neighbours is not None:
        facts.append(f"{len(result.neighbours.flagged):,} training examples flagged by Deep k-NN")
    return facts


def _card(result: Poisoned, album: Album, suspect: SuspectedTarget, filtered: set[Id]) -> dict[str, Any]:
    kind = result.train.preview(result.train.ids[0].item()).kind
    removed = dict.fromkeys(result.removed, "removed for another query") | dict.fromkeys(suspect.removed, "removed")
    marks = {
        a.id: [f"z {significant(a.score, 3)}", *filter(None, [removed.get(a.id)]), *["Deep k-NN"] * (a.id in filtered)]
        for a in suspect.attackers
    }
    shown = suspect.attackers[: ATTACKERS[kind]]
    return {
        "query": example_card(album, "query", suspect.id),
        "predicted": label_text(suspect.predicted),
        "label": None if suspect.label == suspect.predicted else label_text(suspect.label),
        "sentence": suspect.sentence,
        "change": _change(suspect),
        "facts": [
            (f"z of the {_ordinal(result.fit.k)} strongest training example", significant(suspect.heaviness, 3)),
            ("of clean queries are as heavy", _share(suspect.p)),
            *_probability(suspect.predicted, suspect.probability, "before"),
            *_after(suspect),
        ],
        "attackers": [{**example_card(album, "train", a.id), "notes": marks[a.id]} for a in shown],
        "count": len(suspect.attackers),
    }


def _after(suspect: SuspectedTarget) -> list[tuple[str, str]]:
    tried = suspect.mitigation
    if tried is None:
        return []
    return [*_probability(tried.label, tried.probability, "after"), ("trainings", f"{tried.trainings:,}")]


def _probability(label: Any, probability: float | None, when: str) -> list[tuple[str, str]]:
    """The probability of the label that is predicted before or after removal, if the model has one."""
    return [] if probability is None else [(f"probability of {label_text(label)} {when}", f"{probability:.3f}")]


def _change(suspect: SuspectedTarget) -> list[tuple[str, str]]:
    """The predicted label with everything, without the attackers, and without random examples."""
    tried = suspect.mitigation
    if tried is None or not tried.reproduced:
        return []
    states = [("with all training examples", tried.base), ("without attackers", tried.label)]
    if tried.changed:
        states.append(("without random examples", tried.control))
    return [(name, label_text(label) or "–") for name, label in states]


def _row(suspect: SuspectedTarget) -> dict[str, Any]:
    tried = suspect.mitigation
    return {
        "id": str(suspect.id),
        "flagged": suspect.flagged,
        "cells": [
            label_text(suspect.label) or "–",
            label_text(suspect.predicted) or "–",
            "–" if tried is None else label_text(tried.label) or "–",
            "–" if tried is None else f"{len(suspect.removed):,}",
            significant(suspect.heaviness, 3),
            _share(suspect.p),
        ],
    }


def _share(p: float) -> str:
    return "–" if p != p else "1" if p == 1 else significant(p, 2)  # noqa: PLR0124 - NaN differs from itself


def _ordinal(k: int) -> str:
    ending = "th" if 10 <= k % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(k % 10, "th")
    return f"{k}{ending}"
