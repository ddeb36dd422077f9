"""The page of an extracted tree: its questions below each other, and the training examples in every leaf."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from upweight.applications.extract_tree import ExtractedTree
from upweight.report.document import rendered
from upweight.report.wording import count, label_text, regression_text, significant

DEFINITION = (
    "Below each other are the questions that lead to a prediction, with the share of rows that come there, drawn like "
    "those of the training set. Leaves name the training examples in them."
)
IDS_LISTED = 12  # training examples of a leaf


def tree_page(result: ExtractedTree, description: Sequence[str] = ()) -> str:
    """The tree as nested questions, with how well it agrees with the model."""
    leaf_of = result.leaf_of(result.train)
    return rendered(
        "tree.html.j2",
        ("application.css", "tree.css"),
        (),
        None,
        description,
        title="Which small tree predicts what the model predicts?",
        facts=[
            f"{count(len(result.leaves), 'leaf').replace('leafs', 'leaves')}",
            *[f"fidelity on {name} {value:.3f}" for name, value in result.fidelity.items()],
            f"{len(result.train):,} training examples",
        ],
        definition=DEFINITION,
        warnings=result.diagnostics["warnings"],
        root=_node(result, 0, "", leaf_of),
        rows=[
            (
                name,
                f"{result.fidelity[name]:.3f}",
                f"{result.without_sampling[name]:.3f}",
                f"{result.constant[name]:.3f}",
            )
            for name in result.fidelity
        ],
        about=["Fidelity is the share of examples for which tree and model predict the same; for numbers, R²."],
    )


def _node(result: ExtractedTree, position: int, condition: str, leaf_of: Any) -> dict[str, Any]:
    node = result.nodes[position]
    shown: dict[str, Any] = {"condition": condition, "reach": f"{node.reach:.1%}", "children": [], "predicted": ""}
    if node.children is not None:
        shown["children"] = [
            _node(result, child, test, leaf_of) for child, test in zip(node.children, node.test, strict=True)
        ]
        return shown
    members = np.flatnonzero(leaf_of == position)
    is_number = isinstance(node.predicted, float)
    ids = [str(i) for i in result.train.ids[members[:IDS_LISTED]].tolist()]
    return {
        **shown,
        "predicted": regression_text(node.predicted) if is_number else label_text(node.predicted),
        "share": f"± {significant(node.share, 3)}"
        if is_number
        else f"{node.share:.0%} of the model’s predictions here",
        "members": count(len(members), "training example"),
        "labels": _labels(result, members),
        "ids": ", ".join(ids) + (" …" if len(members) > IDS_LISTED else ""),
    }


def _labels(result: ExtractedTree, members: Any) -> str:
    """The labels of the training examples in a leaf."""
    y = result.train.y
    if y is None or y.ndim > 1 or not len(members):
        return ""
    if y.dtype.kind == "f":
        return f"targets {significant(y[members].mean(), 3)} on average"
    counts = Counter(result.train.labels.get(label, label) for label in y[members].tolist())
    return ", ".join(f"{number:,} {label_text(label)}" for label, number in counts.most_common(3))
