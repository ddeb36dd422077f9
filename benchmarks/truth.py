"""Truth: every net retrained on random halves of its training set, saved so that only the first run trains.

Two seeds for every half: the first is the seed of the checkpoint, the second shows how well another training predicts
the truth.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from benchmarks.encoder_nets import labelled_reviews
from benchmarks.nets import KINDS, Kind, Task, images, texts, train
from benchmarks.picture_nets import pictures
from benchmarks.problems import CACHE, digits
from benchmarks.small_nets import incomes, recordings
from sklearn.linear_model import LogisticRegression

FOLDER = CACHE / "networks"
PARTS = ("x", "y", "xq", "yq")
PICTURE_NETS = ("narrow", "resnet", "depthwise")
OTHER_RECORDINGS = 1500  # that the recurrent net has heard before


def prepare(name: str, data: Path) -> Path:
    """Return the folder with `name.npz` (data, halves, measurements) and `name.pt` (the checkpoint)."""
    path = FOLDER / f"{name}.npz"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(1)
        kind = KINDS[name]
        _network(kind, data, path) if kind.epochs else _linear(kind, data, path)
    return FOLDER


def _network(kind: Kind, data: Path, path: Path) -> None:
    start = None
    if kind.name == "gpt":
        *arrays, before, after = texts(data, kind)
        start = train(kind, before, after, None, 0, epochs=1).state_dict()
    elif kind.name in PICTURE_NETS:
        *arrays, before, after = pictures(data, kind.train, kind.queries)
        start = train(kind, before, after, None, 0, epochs=4).state_dict()
    elif kind.name == "lstm":
        x, y, *queries = recordings(data, kind.train + OTHER_RECORDINGS, kind.queries)
        arrays = [x[: kind.train], y[: kind.train], *queries]
        start = train(kind, x[kind.train :], y[kind.train :], None, 0, epochs=60).state_dict()
    elif kind.name == "lora":
        arrays = list(labelled_reviews(data, kind.train, kind.queries))
        start = kind.make().state_dict()  # seeds change the order alone
    else:
        loaders = {"spoken": recordings, "adult": incomes}
        load = loaders.get(kind.name)
        arrays = list(images(data, kind) if load is None else load(data, kind.train, kind.queries))
    x, y, xq, yq = arrays
    net = train(kind, x, y, start, 0)
    task = Task(kind, x, y, xq, yq, net)
    halves = _halves(kind)
    outputs = [[task.measured(train(kind, x[h], y[h], start, seed)) for h in halves] for seed in range(kind.seeds)]
    torch.save(net.state_dict(), path.with_suffix(".pt"))
    _save(path, arrays, halves, np.swapaxes(outputs, 1, 2))


def _linear(kind: Kind, data: Path, path: Path) -> None:
    """Fit a softmax regression on every half by scikit-learn's solver, to its optimum: one seed is enough."""
    if kind.name == "softmax":
        problem = digits(kind.l2)
        x, y, xq, yq = problem.x, problem.y, problem.x_queries, problem.y_queries
    else:
        x, y, xq, yq = (part.numpy() for part in images(data, kind))
    whole, halves = np.arange(len(x)), _halves(kind)
    fitted = [
        LogisticRegression(C=1 / (len(rows) * kind.l2), fit_intercept=False, tol=1e-8, max_iter=10_000).fit(
            x[rows].astype(np.float64), y[rows]
        )
        for rows in (whole, *halves)
    ]
    log_probabilities = [model.predict_log_proba(xq)[np.arange(len(yq)), yq] for model in fitted[1:]]
    net = kind.make()
    with torch.no_grad():
        net[0].weight.copy_(torch.from_numpy(fitted[0].coef_))
    torch.save(net.state_dict(), path.with_suffix(".pt"))
    tensors = [torch.from_numpy(part.astype(np.float32 if part.ndim == 2 else np.int64)) for part in (x, y, xq, yq)]
    _save(path, tensors, halves, np.stack([np.transpose(log_probabilities)] * 2))


def _halves(kind: Kind) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.sort(rng.choice(kind.train, kind.train // 2, replace=False)) for _ in range(kind.subsets)]


def _save(path: Path, arrays: list[torch.Tensor], halves: list[np.ndarray], measured: np.ndarray) -> None:
    """`member` (halves, train), `measured` (seeds, queries, halves); written whole or not at all."""
    member = np.zeros((len(halves), len(arrays[0])), dtype=bool)
    for row, half in zip(member, halves, strict=True):
        row[half] = True
    partial = path.with_suffix(".part.npz")
    np.savez(partial, member=member, measured=measured, **dict(zip(PARTS, (a.numpy() for a in arrays), strict=True)))
    partial.replace(path)
