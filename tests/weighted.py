"""Training sets with weights, and the same sets written out: rows of weight 0 left out, of weight k there k times."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

import networks
import upweight as uw
from networks import NetworkProblem, RecordedProblem, TrainedProblem, cross_entropy, trained
from problems import Problem


def taken(x: Any, positions: NDArray[np.intp]) -> Any:
    """Rows of an array or a list, also several times."""
    return [x[i] for i in positions] if isinstance(x, list) else x[positions]


def written_out(train: uw.Examples, weights: NDArray[np.float64]) -> tuple[uw.Examples, NDArray[np.intp]]:
    """(every row so many times and without weights, which row each is); the first copy keeps the id of its row."""
    rows = np.repeat(np.arange(len(train)), weights.astype(int))
    first = np.diff(rows, prepend=-1) > 0
    ids = [f"{i}" if one else f"{i} copy {n}" for n, (i, one) in enumerate(zip(train.ids[rows], first, strict=True))]
    return uw.Examples(taken(train.x, rows), train.y[rows], ids=ids), rows


def summed(values: NDArray[np.float64], rows: NDArray[np.intp], n: int) -> NDArray[np.float64]:
    """Columns of copies added up, (m, n)."""
    return np.stack([values[:, rows == i].sum(axis=1) for i in range(n)], axis=1)


@dataclass
class Weighted:
    """One problem with weights beside the same problem written out, and the models that belong to both."""

    problem: Any
    weights: NDArray[np.float64]

    @cached_property
    def train(self) -> uw.Examples:
        whole, _ = self.problem.examples()
        return uw.Examples(whole.x, whole.y, ids=whole.ids, weights=self.weights)

    @property
    def queries(self) -> uw.Examples:
        return self.problem.examples()[1]

    @cached_property
    def written(self) -> uw.Examples:
        return written_out(self.train, self.weights)[0]

    @cached_property
    def rows(self) -> NDArray[np.intp]:
        return written_out(self.train, self.weights)[1]

    @cached_property
    def models(self) -> tuple[Any, Any]:
        """Of the weighted set and of the written one, at the same parameters up to what training leaves."""
        kind = type(self.problem)
        if kind is TrainedProblem or kind is RecordedProblem:
            make = _trained if kind is TrainedProblem else _recorded
            return make(self.problem, self.train), make(self.problem, self.written)
        if isinstance(self.problem, NetworkProblem):
            return self.problem.model(self.train), self.problem.model(self.written)
        fitted = _fitted(self.problem, self.train)
        again = _fitted(self.problem, self.written) if self.problem.name == "rbf machine" else fitted
        return uw.explainable(fitted, self.train), uw.explainable(again, self.written)


def _fitted(problem: Problem, train: uw.Examples) -> Any:
    """The estimator; of a pipeline the last step alone sees the weights, what comes before is held."""
    estimator, weights = problem.estimator(), train.weights
    if problem.name == "rbf machine":
        estimator.set_params(gamma=0.1)  # "scale" is the variance over all rows, whatever they weigh
    if not isinstance(estimator, Pipeline):
        return estimator.fit(train.x, train.y, sample_weight=weights)
    words = FrozenEstimator(TfidfVectorizer().fit(problem.data()[0]))
    pipeline = Pipeline([("words", words), estimator.steps[-1]])
    return pipeline.fit(train.x, train.y, **{f"{estimator.steps[-1][0]}__sample_weight": weights})


def _trained(problem: TrainedProblem, train: uw.Examples) -> Any:
    """In full batches whose mean is over the weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = problem.make().double()
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "epochs": 15, "denominator": "renormalised"}
    training = uw.Training(batch_size=len(train), **settings)
    return uw.TorchModel.trained(net, cross_entropy, train, training=training)


def _recorded(problem: RecordedProblem, train: uw.Examples) -> Any:
    """By a loop in full batches whose mean is over the weights."""
    folder = tempfile.TemporaryDirectory()
    networks.KEPT.append(folder)
    net, trajectory = problem.make().double(), uw.Trajectory(folder.name, every=15)
    net.load_state_dict(trained(problem.make)[0])
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    trajectory.save(net, optimiser)
    x, y = torch.as_tensor(train.x), torch.as_tensor(train.y)
    weights = torch.ones(len(train)) if train.weights is None else torch.as_tensor(train.weights)
    for _ in range(30):
        optimiser.zero_grad()
        losses = torch.nn.functional.cross_entropy(net(x), y, reduction="none")
        ((weights * losses).sum() / weights.sum()).backward()
        optimiser.step()
        trajectory.record(net, optimiser, batch=train.ids)
    return uw.TorchModel(net, cross_entropy, l2=0.01, trajectory=trajectory)
