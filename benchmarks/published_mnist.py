"""MNIST by quanda's metrics; digits and intervals for dattri's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.results import Table
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.utils.data import TensorDataset

import upweight as uw

Array = NDArray[np.float64]
DRAWS = 500
FLIPPED, SMALL = 0.1, 1500


def digits(data: Path, train: int, queries: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Train and queries as dattri normalises them."""
    with np.load(data / "mnist.npz") as file:
        parts = [file["xtr"][:train], file["ytr"][:train], file["xte"][:queries], file["yte"][:queries]]
    x, y, xq, yq = (torch.from_numpy(np.asarray(part)) for part in parts)
    return ((x / 255 - 0.1307) / 0.3081)[:, None], y.long(), ((xq / 255 - 0.1307) / 0.3081)[:, None], yq.long()


def interval(values: Array) -> tuple[float, float]:
    """The middle 95 % of the mean over queries drawn with replacement."""
    known = values[np.isfinite(values)]
    draws = np.random.default_rng(0).choice(known, (DRAWS, len(known))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def labels(peers: Any, data: Path) -> Table | None:
    """Wrong labels and shared classes, by quanda's metrics."""
    if "quanda" not in peers.present:
        return None
    x, y, xq, yq = (part.numpy() for part in digits(data, SMALL, 200))
    rng = np.random.default_rng(0)
    flipped = rng.choice(SMALL, int(FLIPPED * SMALL), replace=False)
    wrong = y.copy()
    wrong[flipped] = (y[flipped] + rng.integers(1, 10, len(flipped))) % 10
    train, queries = uw.Examples(x.reshape(SMALL, -1), wrong), uw.Examples(xq.reshape(len(xq), -1), yq)
    estimator = LogisticRegression(C=1 / (1e-2 * SMALL), max_iter=2000).fit(train.x, train.y)
    model = uw.explainable(estimator, train)
    data_set, net = TensorDataset(torch.as_tensor(x), torch.as_tensor(wrong)), torch.nn.Identity()
    detection = peers.module("quanda.metrics.downstream_eval.mislabeling_detection").MislabelingDetectionMetric
    shared = peers.module("quanda.metrics.downstream_eval.class_detection").ClassDetectionMetric
    predicted = torch.as_tensor(np.asarray(model.predict(queries).predicted))
    table = Table(
        "Wrong labels and shared classes, by quanda's metrics",
        "none: quanda has no figures for this data",
        ["method", "MislabelingDetection", "ClassDetection, top 5"],
    )
    methods = {
        "Influence()": uw.Influence(),
        "RelatIF": uw.RelatIF(),
        "GradDot": uw.GradDot(),
        "loss": None,
        "chance": None,
    }
    for name, method in methods.items():
        if method is None:
            own = -model.measure(train) if name == "loss" else rng.normal(size=SMALL)
            values = np.tile(own, (len(xq), 1))
        else:
            fitted = method.fit(model, train)
            own, values = fitted.self_influence().values[0], fitted.attribute(queries).values
        large = torch.as_tensor(own / np.abs(own).max() * 1e6)  # quanda adds position · 1e-4 against ties
        found = detection(net, data_set, flipped.tolist(), precomputed_self_influence=large)
        classes = shared(net, data_set)
        classes.update(torch.as_tensor(np.ascontiguousarray(values)), predicted)
        table.add(name, found.compute()["score"], classes.compute()["score"])
    table.notes.append(
        f"{SMALL:,} digits, a tenth with a random wrong label; logistic regression; 200 queries, predicted labels."
    )
    return table
