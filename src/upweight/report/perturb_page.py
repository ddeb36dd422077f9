"""The page of perturb: one table of features per training example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from upweight.applications.perturb import Perturbation
from upweight.report.effect_tables import MAX_TABLES, EffectRow, application_page, effect_table, signed, unit_text
from upweight.report.heatmap import contribution_pictures
from upweight.report.wording import cell_text, count, label_text

FEATURES_SHOWN = 12  # of one training example


def perturb_page(perturbation: Perturbation, description: Sequence[str] = ()) -> str:
    """One table of features per training example, for the query on which it has the largest contributions."""
    shown = range(min(len(perturbation.example_ids), MAX_TABLES))
    return application_page(
        "Which features of which training examples would move these predictions?",
        [
            count(len(perturbation.query_ids), "query"),
            f"{len(perturbation.example_ids)} of {len(perturbation.train):,} training examples",
            perturbation.measurement,
            unit_text(perturbation.unit),
        ],
        "A contribution is, to first order, the measurement of the query with this number in the training example "
        "minus with the baseline in its place, after retraining.",
        [_section(perturbation, i) for i in shown],
        perturbation.diagnostics["warnings"],
        [
            f"Numbers are {perturbation.described}. “Per unit” is the gradient; it is also given for numbers that are "
            "0 in the example."
        ],
        description,
    )


def _section(perturbation: Perturbation, i: int) -> dict[str, Any]:
    example = perturbation.example_ids[i].item()
    sizes = np.abs(perturbation.contributions[:, i]).reshape(len(perturbation.query_ids), -1).sum(axis=1)
    q = int(sizes.argmax())
    query = perturbation.query_ids[q].item()
    rows = [
        EffectRow(
            feature.name,
            [cell_text(feature.value), signed(feature.contribution), signed(feature.gradient)],
            feature.contribution,
        )
        for feature in perturbation.features(query, example, FEATURES_SHOWN)
    ]
    table = effect_table(
        f"Training example {example} (label {label_text(perturbation.train.label(example))}) and query {query}",
        "feature",
        ["value", "contribution", "per unit"],
        "contribution",
        rows,
        f"Moving every number by one unit in its worst direction would change the measurement by "
        f"{perturbation.reach[q, i]:.3g}.",
    )
    return {**table, "pictures": contribution_pictures(perturbation, q, i)}
