"""Fig. 2, left: what influence predicts and what happens when a digit is really left out; exact, CG and LiSSA."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.koh_liang.digits import all_ten
from experiments.koh_liang.pictures import agree, panels, save
from experiments.results import Result, Row
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy

import upweight as uw

Array = NDArray[Any]
L2 = 0.01
QUERY = 8
REMOVED = 500
SERIES = {"depth": 5000, "repeats": 10, "scale": 25.0, "batch": 1}  # LiSSA as in the release
MINUTES = 5.0


def reproduce(folder: Path, fast: bool, path: Path) -> Result:
    """Softmax regression on 55,000 digits; the 500 most influential ones left out one by one."""
    train, test = all_ten(folder, fast)
    query = test.take([QUERY])
    machine = LogisticRegression(C=1 / (L2 * len(train)), fit_intercept=False, tol=1e-7, max_iter=3000)
    machine.fit(train.x, train.y)
    model = uw.explainable(machine, train, objective="mean")
    seconds, predicted = {}, {}
    start = time.process_time()
    exact = uw.Influence(correction=None).fit(model, train)
    predicted["exact"] = exact.attribute(query).values[0]
    seconds["exact"] = time.process_time() - start
    for name, other, curvature in (
        ("CG", model, uw.Hessian(solver=uw.CG(tolerance=1e-8))),
        ("LiSSA", softmax(machine), uw.Hessian(solver=uw.LiSSA(**series(fast, len(train))))),
    ):
        start = time.process_time()
        plain = uw.Influence(curvature=curvature, correction=None, damping=0.0)
        predicted[name] = plain.fit(other, train).attribute(query).values[0]
        seconds[name] = time.process_time() - start
    removed = np.argsort(-np.abs(predicted["exact"]), kind="stable")[: 50 if fast else REMOVED]
    actual, minutes = left_out(exact, removed, query)
    correlations = {name: float(np.corrcoef(values[removed], actual)[0, 1]) for name, values in predicted.items()}
    figure, axes = panels(3)
    for ax, (name, values) in zip(axes, predicted.items(), strict=True):
        agree(ax, actual, values[removed], f"{name}, R = {correlations[name]:.4f}")
    save(figure, path)
    slope = float(actual @ predicted["exact"][removed] / (predicted["exact"][removed] @ predicted["exact"][removed]))
    return Result(
        title="Fig. 2, left: leaving digits out of a linear model",
        claim="Predicted and actual changes of one test digit's loss lie on a line of slope 1, whether the Hessian is "
        "inverted exactly or approximately.",
        rows=[
            *[Row(f"Pearson, {name}", "≥ .99", f"{r:.4f}", r >= 0.99) for name, r in correlations.items()],
            Row("slope of actual on predicted, exact", "1", f"{slope:.3f}", abs(slope - 1) < 0.05),
            Row("same sign, exact", "1.0", f"{(np.sign(actual) == np.sign(predicted['exact'][removed])).mean():.3f}"),
            Row(f"{len(removed)} refits, minutes", f"< {MINUTES:.0f}", f"{minutes:.1f}", minutes < MINUTES),
            *([sanity(model, train, removed[:2], query, actual)] if fast else []),
            Row("seconds for all predictions", "–", ", ".join(f"{name} {s:.0f}" for name, s in seconds.items())),
        ],
        settings=f"MNIST, {len(train):,} digits, softmax regression without bias, l2 {L2:g}; test digit {QUERY} (a "
        f"{query.y[0]}, taken for a {machine.predict(query.x)[0]}); LiSSA with {series(fast, len(train))}; refits by "
        "Newton steps from the full model to a gradient of 1e-10, preconditioned with its factored Hessian.",
        numbers={
            "removed": removed.tolist(),
            "actual": actual.tolist(),
            "predicted": {name: values[removed].tolist() for name, values in predicted.items()},
        },
    )


def series(fast: bool, n: int) -> dict[str, Any]:
    """LiSSA's settings; the release's scale is that of the mean loss, the library's that of the sum."""
    less = {"depth": 1000, "repeats": 4} if fast else {}
    return {**SERIES, **less, "scale": SERIES["scale"] * n}


def softmax(machine: LogisticRegression) -> uw.TorchModel:
    """The same model as a net of one layer, for the solver that only networks have."""
    net = torch.nn.Linear(machine.coef_.shape[1], len(machine.classes_), bias=False, dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(torch.from_numpy(machine.coef_))
    return uw.TorchModel(
        net,
        lambda net, batch: cross_entropy(net(batch.x), batch.y, reduction="none"),
        objective=uw.Objective("mean", l2=L2),
    )


def left_out(fitted: Any, removed: Array, query: uw.Examples) -> tuple[Array, float]:
    """(change of the query's loss without each digit, minutes): trained to the optimum without it."""
    start = time.process_time()
    truth = fitted.remove({str(i): [i] for i in removed.tolist()}, query, form="newton")
    return truth.values[0], (time.process_time() - start) / 60


def sanity(model: Any, train: uw.Examples, removed: Array, query: uw.Examples, actual: Array) -> Row:
    """Some of them again, each by a training of its own: a second factorisation, so only where that is cheap."""
    weights = np.ones(len(train))
    whole = model.retrain(train, weights).measure(query)[0]
    again = []
    for place in removed:
        weights[place] = 0.0
        again.append(whole - model.retrain(train, weights).measure(query)[0])
        weights[place] = 1.0
    drift = np.abs(np.array(again) - actual[: len(removed)]).max() / np.abs(actual).max()
    return Row("two refits on their own: difference, of the largest effect", "0", f"{drift:.1e}", bool(drift < 1e-4))
