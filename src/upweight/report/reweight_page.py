"""The page of reweight: what got weight and what lost it, and the gain on held-out data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from upweight.applications.reweighted import Reweighted
from upweight.core.examples import Id
from upweight.report.effect_tables import EffectRow, application_page, effect_table, signed, text_table
from upweight.report.previews import Album, excerpt
from upweight.report.wording import count, label_text, significant

SHOWN = 12  # examples with the lowest weights, and as many with the highest
MAX_GROUPS = 200
COURSE_ROWS = 6  # steps whose validation measurement is shown
DEFINITION = (
    "Weights begin at 1, those of unlabelled examples at the best single weight. They move along the derivative of the "
    "mean validation measurement in each of them; an example of weight 0 is as good as absent."
)
GAIN = (
    "Mean measurement of the held-out examples with the learned weights minus that with others, and its 90 % interval "
    "by a paired bootstrap over examples and trainings. Above 0: the learned weights are better."
)
WAYS = {
    "influence": "by influence at the retrained model",
    "metagradient": "by metagradients through training",
    "last layer": "by influence on the last layer during training",
    "retraining": "by retraining with each weight raised and lowered",
}


def reweight_page(result: Reweighted, description: Sequence[str] = ()) -> str:
    """Tables of gains, of what weights have in common, and of the lowest and highest weights."""
    sections = [_gains(result)] if result.gains else []
    if result.shifts:
        sections.append(_shifts(result))
    if result.of == "groups":
        sections.append(_groups(result))
    else:
        album = Album(result.train, result.train)
        sections.append(_examples("Lowest weights", album, result, result.lowest(SHOWN)))
        sections.append(_examples("Highest weights", album, result, result.highest(SHOWN)))
    sections.append(_course(result))
    return application_page(
        "Which training data should count more?",
        [
            f"{count(len(result.weights), 'weight')} of {result.of}",
            WAYS[result.slopes],
            result.measurement,
        ],
        f"{result.sentence} {DEFINITION}",
        sections,
        result.diagnostics["warnings"],
        list(result.diagnostics["notes"]),
        description,
    )


def _gains(result: Reweighted) -> dict[str, Any]:
    def share(accuracy: float | None) -> str:
        return "–" if accuracy is None else f"{accuracy:.1%}"

    rows = [EffectRow("the learned weights", [significant(result.measured, 4), share(result.accuracy), "–", "–"], 0.0)]
    for gain in result.gains:
        low, high = gain.interval
        cells = [
            significant(gain.measured, 4),
            share(gain.accuracy),
            signed(gain.gain),
            f"{signed(low)} to {signed(high)}",
        ]
        rows.append(EffectRow(gain.described, cells, gain.gain, gain.interval))
    columns = ["held-out", "correct", "gain", "90 %"]
    return effect_table("Gain on held-out data", "trained with", columns, "gain of the learned weights", rows, GAIN)


def _shifts(result: Reweighted) -> dict[str, Any]:
    rows = [
        EffectRow(
            shift.condition,
            [f"{shift.examples:,}", significant(shift.inside, 3), significant(shift.outside, 3)],
            shift.inside - shift.outside,
        )
        for shift in result.shifts
    ]
    text = "Conditions under which the mean weight differs most clearly from that of the other examples."
    columns = ["examples", "mean weight", "of the others"]
    return effect_table("What got weight, and what lost it", "condition", columns, "difference", rows, text)


def _groups(result: Reweighted) -> dict[str, Any]:
    rows = [EffectRow(str(name), [significant(weight, 3)], weight - 1.0) for name, weight in result.lowest(MAX_GROUPS)]
    return effect_table("Weights of the groups", "group", ["weight"], "above or below 1", rows)


def _examples(title: str, album: Album, result: Reweighted, listed: Sequence[tuple[Id, float]]) -> dict[str, Any]:
    rows, pictures = [], []
    for identifier, weight in listed:
        label = label_text(result.train.label(identifier))
        line = excerpt(result.train.preview(identifier))
        words = ", ".join(part for part in ("" if label is None else f"label {label}", line) if part)
        rows.append(EffectRow(str(identifier), [significant(weight, 3)], weight - 1.0, excerpt=words))
        entry = album.entries[album.add("train", identifier)]
        if entry["kind"] == "image" and "uri" in entry:
            pictures.append({"uri": entry["uri"], "text": f"{identifier}: {label}, weight {significant(weight, 2)}"})
    return {**effect_table(title, "id", ["weight"], "above or below 1", rows), "pictures": pictures}


def _course(result: Reweighted) -> dict[str, Any]:
    last = len(result.course) - 1
    shown = np.unique(np.linspace(0, last, COURSE_ROWS).round().astype(int)).tolist()
    rows = [
        (
            "the learned weights" if step == last else f"after {count(step, 'step')}",
            [significant(result.course[step], 4)],
        )
        for step in shown
    ]
    text = "On the way, and at the end. These examples gave the slopes, so that the rise on them is optimistic."
    return text_table("Mean measurement of the validation examples", "weights", ["validation"], rows, text)
