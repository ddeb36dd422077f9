"""The growth of a decision tree from rows that are drawn for every node and labelled by the model."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.applications.row_sampler import Box, RowSampler
from upweight.core.examples import Examples
from upweight.core.model import Measurable

Array = NDArray[np.float64]
Split = tuple[int, float]  # an encoded feature, and the threshold up to which rows go left
MIN_SHARE = 0.01  # of the samples of a node that each side of a split has at least


class TreeNode(NamedTuple):
    """One node of the tree.

    Attributes:
        column: the column that is tested; None for a leaf.
        threshold: of a number: the left child has values up to it.
        category: of a category: the right child has it.
        children: the positions of (left, right); None for a leaf.
        predicted: the most frequent prediction of the model in the node, or the mean.
        share: how many of the model's predictions in the node are that; of numbers, their standard deviation.
        reach: the share of drawn rows that reach the node.
    """

    column: str | None
    threshold: float | None
    category: Any
    children: tuple[int, int] | None
    predicted: Any
    share: float
    reach: float

    @property
    def test(self) -> tuple[str, str]:
        """The conditions of the left and of the right child."""
        if self.threshold is not None:
            return f"{self.column} ≤ {self.threshold:.4g}", f"{self.column} > {self.threshold:.4g}"
        return f"{self.column} ≠ {self.category}", f"{self.column} = {self.category}"


@dataclass(frozen=True, eq=False)
class TreeGrowth:
    """The growth of a tree: what new rows are drawn from, the model that labels them, and how splits are chosen."""

    model: Measurable
    sampler: RowSampler
    train: Examples
    is_classifier: bool
    samples: int
    rng: np.random.Generator

    def grow(self, leaves: int) -> tuple[tuple[TreeNode, ...], tuple[Split | None, ...]]:
        """Split the leaf with the largest gain until there are enough; (nodes, splits on encoded features)."""
        root = self.sampler.everywhere
        whole = self.sampler.mass(root)
        nodes: list[TreeNode] = []
        splits: list[Split | None] = []
        waiting: list[tuple[float, int, Split, Box]] = []

        def add(box: Box) -> bool:
            drawn = self.sampler.sample(box, self.samples, self.rng)
            if drawn is None:
                return False
            x, encoded = drawn
            predicted = self._predict(x)
            reach = self.sampler.mass(box) / whole
            value, share = self._summary(predicted)
            nodes.append(TreeNode(None, None, None, None, value, share, reach))
            splits.append(None)
            split = self._best_split(encoded, predicted)
            if split is not None:
                gain, feature, threshold = split
                heapq.heappush(waiting, (-gain * reach, len(nodes) - 1, (feature, threshold), box))
            return True

        add(root)
        count = 1
        while waiting and count < leaves:
            _, position, (feature, threshold), box = heapq.heappop(waiting)
            left, right = box.halves(feature, threshold)
            if min(self.sampler.mass(left), self.sampler.mass(right)) <= 0:
                continue
            first = len(nodes)
            if not (add(left) and add(right)):
                del nodes[first:], splits[first:]
                waiting[:] = [entry for entry in waiting if entry[1] < first]
                heapq.heapify(waiting)
                continue
            column, cut, category = self.sampler.test(feature, threshold)
            nodes[position] = nodes[position]._replace(
                column=column, threshold=cut, category=category, children=(first, first + 1)
            )
            splits[position] = feature, threshold
            count += 1
        return tuple(nodes), tuple(splits)

    def fit(self, encoded: Array, predicted: Any, leaves: int) -> Any:
        """A tree of scikit-learn with at most this many leaves; with one leaf, a stump."""
        from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

        kind = DecisionTreeClassifier if self.is_classifier else DecisionTreeRegressor
        return kind(max_leaf_nodes=max(2, leaves), random_state=0).fit(encoded, np.asarray(predicted))

    def agreement(self, truth: Any, predicted: Any) -> float:
        """The share of equal predictions; R² of numbers."""
        if self.is_classifier:
            return float(np.mean([a == b for a, b in zip(truth, predicted, strict=True)]))
        target, ours = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
        spread = float(((target - target.mean()) ** 2).sum())
        error = float(((target - ours) ** 2).sum())
        return 1 - error / spread if spread > 0 else float(error == 0)

    def _predict(self, x: Any) -> NDArray[Any]:
        y = None if self.train.y is None else np.repeat(self.train.y[:1], self.samples, axis=0)
        rows = Examples(x, y, names=self.train.names, labels=self.train.labels)
        return np.asarray(self.model.predict(rows).predicted)

    def _summary(self, predicted: NDArray[Any]) -> tuple[Any, float]:
        if not self.is_classifier:
            return float(predicted.mean()), float(predicted.std())
        values, counts = np.unique(predicted, return_counts=True)
        return values[counts.argmax()].item(), float(counts.max() / len(predicted))

    def _best_split(self, encoded: Array, predicted: NDArray[Any]) -> tuple[float, int, float] | None:
        """(gain, feature, threshold) of the best split by impurity; None if no split gains anything."""
        from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

        kind = DecisionTreeClassifier if self.is_classifier else DecisionTreeRegressor
        stump = kind(max_depth=1, min_samples_leaf=max(1, int(MIN_SHARE * len(encoded))), random_state=0)
        tree = stump.fit(encoded, predicted).tree_
        if tree.node_count == 1:
            return None
        shares = tree.n_node_samples[1:] / len(encoded)
        gain = float(tree.impurity[0] - shares @ tree.impurity[1:])
        return (gain, int(tree.feature[0]), float(tree.threshold[0])) if gain > 0 else None


def leaf_of(nodes: tuple[TreeNode, ...], splits: tuple[Split | None, ...], encoded: Array) -> NDArray[np.intp]:
    """The leaf of every encoded row."""
    at = np.zeros(len(encoded), dtype=np.intp)
    for position, (node, split) in enumerate(zip(nodes, splits, strict=True)):  # children come after their parents
        if node.children is not None and split is not None:
            where = np.flatnonzero(at == position)
            at[where] = np.where(encoded[where, split[0]] <= split[1], *node.children)
    return at
