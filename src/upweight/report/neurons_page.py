"""The page of neurons: the training examples that activate each neuron most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from upweight.applications.neuron_examples import NeuronExamples
from upweight.core.examples import Id
from upweight.report.document import rendered
from upweight.report.previews import Album
from upweight.report.wording import cell_text, count, label_text, significant

MAX_NEURONS = 60
MAX_COLUMNS = 8  # of a row
DEFINITION = (
    "Every neuron with the training examples that activate it most. What they have in common is what the neuron looks "
    "for; a label that is among them far more often than in the training set says what it is used for."
)


def neurons_page(result: NeuronExamples, description: Sequence[str] = ()) -> str:
    """One section per neuron."""
    album = Album(result.train, result.train)
    neurons = result.neurons.tolist()
    return rendered(
        "prototypes.html.j2",
        ("application.css", "prototypes.css"),
        (),
        None,
        description,
        title="Which training examples activate which neuron?",
        facts=[
            count(len(neurons), "neuron"),
            "features of the last step" if result.layer is None else f"layer {result.layer}",
            f"{len(result.train):,} training examples",
        ],
        definition=DEFINITION,
        warnings=result.diagnostics["warnings"],
        sections=[_section(result, album, row, neuron) for row, neuron in enumerate(neurons[:MAX_NEURONS])],
        about=[
            *([f"and {len(neurons) - MAX_NEURONS} more neurons, in the result"] if len(neurons) > MAX_NEURONS else []),
            *album.remarks(),
        ],
    )


def _section(result: NeuronExamples, album: Album, row: int, neuron: int) -> dict[str, Any]:
    label = result.label(neuron)
    often = ""
    if label is not None:
        often = f"{label[1]:.0%} {label_text(label[0])} (training set {label[2]:.0%}), "
    usual = f"activation {significant(result.means[row], 3)} ± {significant(result.deviations[row], 3)} on average"
    cards = [_card(result, album, row, j, identifier) for j, (identifier, _) in enumerate(result.of(neuron))]
    return {
        "title": f"Neuron {neuron}",
        "rows": [{"title": "", "count": f"{often}{usual}", "left_out": 0, "cards": cards}],
    }


def _card(result: NeuronExamples, album: Album, row: int, j: int, identifier: Id) -> dict[str, Any]:
    note = significant(result.activations[row, j], 3)
    if result.map_shape:
        place = np.unravel_index(int(result.places[row, j]), result.map_shape)
        note += f" at {', '.join(str(int(i) + 1) for i in place)} of {' × '.join(map(str, result.map_shape))}"
    label = label_text(result.train.label(identifier))
    preview = album.sides["train"].preview(identifier)
    card: dict[str, Any] = {
        "id": str(identifier),
        "note": f"{f'label {label}, ' if label else ''}{note}",
        "kind": preview.kind,
    }
    if preview.kind == "row":
        card["pairs"] = [(str(name), cell_text(value)) for name, value in preview.value[:MAX_COLUMNS]]
        return card
    return {**card, **album.entries[album.add("train", identifier)]}
