"""The page of forget: whether it is a deletion, what each step remembers, and what the losses still tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from upweight.applications.forgotten import Forgotten
from upweight.report.effect_tables import EffectRow, application_page, effect_table, signed, text_table
from upweight.report.wording import count, significant

DEFINITION = (
    "A deletion is an estimator that training without these examples could have given: nothing in it depends on them. "
    "An approximation of a deletion is not a deletion, however close it is."
)
MEMBERSHIP = (
    "How often a forgotten example has a smaller loss than an unseen one: 0.5 if losses tell nothing. Compare the new "
    "model with the retrained one, because forgotten examples may also be easier or harder than the unseen ones. "
    "The gap is the mean loss of the unseen examples minus that of the forgotten ones."
)
STATES = {"before": "before", "after": "without them", "retrained": "trained again without them"}
PARTS = {"forgotten": "forgotten examples", "remaining": "remaining examples", "unseen": "unseen examples"}


def forget_page(result: Forgotten, description: Sequence[str] = ()) -> str:
    """One table of the steps, one of membership, one of distances to retraining, and the digests."""
    sections = [_steps(result)]
    if result.membership:
        sections.append(_membership(result))
    if result.distances:
        sections.append(_distances(result))
    sections.append(_digests(result))
    return application_page(
        "Deleted" if result.is_deletion else "This is not a deletion",
        [
            f"{len(result.ids):,} of {count(len(result.train), 'training example')} forgotten",
            result.route.value,
            result.measurement,
        ],
        f"{result.sentence} {DEFINITION}",
        sections,
        result.diagnostics["warnings"],
        list(result.diagnostics["notes"]),
        description,
    )


def _steps(result: Forgotten) -> dict[str, Any]:
    rows = []
    for step in result.steps:
        remembers = step.remembers or "nothing of these examples"
        kind = "" if step.kind == step.name else step.kind
        rows.append((step.name, [kind, step.how, f"{remembers[0].upper()}{remembers[1:]}."]))
    return text_table("What was done to each step", "step", ["class", "what was done", "what it remembers"], rows)


def _membership(result: Forgotten) -> dict[str, Any]:
    rows = []
    for check in result.membership:
        low, high = check.interval
        cells = [
            f"{check.auc:.3f}",
            f"{low:.2f} to {high:.2f}",
            signed(check.gap),
            f"{signed(check.gap_interval[0])} to {signed(check.gap_interval[1])}",
        ]
        rows.append(EffectRow(STATES[check.model], cells, check.auc - 0.5, (low - 0.5, high - 0.5)))
    columns = ["AUC", "95 %", "loss gap", "95 %"]
    return effect_table("What losses tell about membership", "model", columns, "AUC above 0.5", rows, MEMBERSHIP)


def _distances(result: Forgotten) -> dict[str, Any]:
    rows = [
        EffectRow(
            f"{PARTS[distance.part]} ({distance.examples:,})",
            [significant(distance.before, 3), significant(distance.after, 3)],
            distance.after,
            None,
            distance.before,
        )
        for distance in result.distances
    ]
    trees = result.facts.get("trees_split_otherwise")
    text = "Root mean square difference of measurements from those of a model that was trained again without them."
    if trees is not None:
        text += f" {trees:,} of {result.facts['trees']:,} trees have other splits there."
    return effect_table(
        "Distance to retraining", "examples", ["before", "without them"], "without them; the mark is before", rows, text
    )


def _digests(result: Forgotten) -> dict[str, Any]:
    names = {
        "estimator_before": "estimator before",
        "estimator_after": "estimator without them",
        "train": "training set",
        "ids": "forgotten ids",
    }
    rows = [(names[name], [value or "has no comparable contents"]) for name, value in result.digests.items()]
    text = "The certificate holds these digests: uw.digest(estimator) gives the same in another process."
    return text_table("Digests", "of the", ["digest"], rows, text)
