"""Model extraction: a small decision tree that predicts what the model predicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from upweight.applications.row_sampler import RowSampler
from upweight.applications.tree_growth import Split, TreeGrowth, TreeNode, leaf_of
from upweight.core.blocks import require_count
from upweight.core.capability_checks import require
from upweight.core.examples import Examples, Id
from upweight.core.model import Measurable
from upweight.core.tabular import Tabular

COMPONENTS = 10  # of the mixture that new rows are drawn from


@dataclass(frozen=True, eq=False)
class ExtractedTree(Tabular):
    """A decision tree that imitates a model.

    Attributes:
        nodes: the root first.
        train: the training set.
        fidelity: how well it predicts what the model predicts, by data set ("train", "queries"): the share of equal
            predictions, or R² of numbers.
        without_sampling: the same of a tree with as many leaves that was fitted to the model's predictions on the
            training set alone.
        constant: the same of the most frequent prediction; 0 for numbers.
        diagnostics: `warnings`.
    """

    _table: ClassVar = "nodes"
    nodes: tuple[TreeNode, ...]
    train: Examples
    fidelity: Mapping[str, float]
    without_sampling: Mapping[str, float]
    constant: Mapping[str, float]
    diagnostics: Mapping[str, Any]
    _sampler: Any = field(repr=False)  # a RowSampler
    _splits: tuple[Split | None, ...] = field(repr=False)

    @property
    def leaves(self) -> list[int]:
        """The positions of the leaves."""
        return [position for position, node in enumerate(self.nodes) if node.children is None]

    def leaf_of(self, examples: Examples) -> NDArray[np.intp]:
        """The position of the leaf of every example, (n,)."""
        return leaf_of(self.nodes, self._splits, self._sampler.encode(examples))

    def predict(self, examples: Examples) -> tuple[Any, ...]:
        """The prediction of the tree for every example."""
        return tuple(self.nodes[position].predicted for position in self.leaf_of(examples).tolist())

    def examples_of(self, leaf: int) -> list[Id]:
        """The ids of the training examples in a leaf."""
        ids: list[Id] = self.train.ids[self.leaf_of(self.train) == leaf].tolist()
        return ids

    def rules(self) -> list[tuple[tuple[str, ...], Any]]:
        """(conditions, prediction) of every leaf."""
        rules: list[tuple[tuple[str, ...], Any]] = []

        def walk(position: int, conditions: tuple[str, ...]) -> None:
            node = self.nodes[position]
            if node.children is None:
                rules.append((conditions, node.predicted))
                return
            for child, condition in zip(node.children, node.test, strict=True):
                walk(child, (*conditions, condition))

        walk(0, ())
        return rules

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the nodes, and how well they agree with the model."""
        counts = np.bincount(self.leaf_of(self.train), minlength=len(self.nodes)).tolist()
        return {
            "nodes": [
                {
                    **node._asdict(),
                    "predicted": _plain(node.predicted),
                    "category": _plain(node.category),
                    "train": count,
                }
                for node, count in zip(self.nodes, counts, strict=True)
            ],
            "fidelity": dict(self.fidelity),
            "without_sampling": dict(self.without_sampling),
            "constant": dict(self.constant),
            "warnings": list(self.diagnostics["warnings"]),
        }

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in self.fidelity.items())
        return f"ExtractedTree({len(self.leaves)} leaves, fidelity: {numbers})"


def extract_tree(
    model: Measurable,
    train: Examples,
    queries: Examples | None = None,
    *,
    leaves: int = 16,
    samples: int = 2000,
    seed: int = 0,
) -> ExtractedTree:
    """A decision tree that predicts what the model predicts (Bastani et al. 2017).

    A mixture of distributions with independent columns is fitted to the training rows. The leaf whose split gains most
    is split first; for every node, new rows are drawn from the mixture inside the node's box and labelled by the model,
    so that deep nodes see as many rows as the root.

    Args:
        model: any model of a table that predicts classes or numbers.
        train: the training set: an array (n, columns) or a data frame.
        queries: examples on which the fidelity is measured too.
        leaves: the largest number of leaves.
        samples: new rows per node.
        seed: of the mixture and of the draws.

    Raises:
        TypeError: pictures, texts or sparse rows, or a model that predicts neither classes nor numbers.
        ValueError: leaves below 2, fewer than 100 samples, numbers that are missing, columns of ids.
    """
    require_count("leaves", leaves, least=2)
    require_count("samples", samples, least=100)
    require(model, [Measurable], "extract_tree", *([train] if queries is None else [train, queries]))
    sampler = RowSampler(train, COMPONENTS, seed)
    predictions = model.predict(train)
    if any(not isinstance(p, str | int | float | bool | np.generic) for p in predictions.predicted):
        raise TypeError("expected a model that predicts a class or a number per example, got neither")
    growth = TreeGrowth(model, sampler, train, bool(predictions.classes), samples, np.random.default_rng(seed))
    nodes, splits = growth.grow(leaves)
    sets = {"train": train} if queries is None else {"train": train, "queries": queries}
    fidelity, plain, constant = {}, {}, {}
    baseline = growth.fit(sampler.encode(train), predictions.predicted, sum(node.children is None for node in nodes))
    for name, examples in sets.items():
        truth = model.predict(examples).predicted
        encoded = sampler.encode(examples)
        ours = [nodes[position].predicted for position in leaf_of(nodes, splits, encoded).tolist()]
        fidelity[name] = growth.agreement(truth, ours)
        plain[name] = growth.agreement(truth, baseline.predict(encoded).tolist())
        constant[name] = growth.agreement(truth, [nodes[0].predicted] * len(truth)) if predictions.classes else 0.0
    return ExtractedTree(
        nodes, train, fidelity, plain, constant, {"warnings": _warnings(fidelity, constant)}, sampler, splits
    )


def _warnings(fidelity: Mapping[str, float], constant: Mapping[str, float]) -> list[str]:
    name = "queries" if "queries" in fidelity else "train"
    if fidelity[name] > constant[name] or fidelity[name] == 1:
        return []
    return [
        f"The tree agrees with the model on {name} no better than its most frequent prediction ({fidelity[name]:.3f}); "
        "do not read it as the model. Raise leaves=."
    ]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
