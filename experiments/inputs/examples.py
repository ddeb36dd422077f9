"""Necessity and sufficiency of the strongest training examples, with retraining, for several methods."""

from __future__ import annotations

import numpy as np
from experiments.results import Result, Row
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import upweight as uw

TRAIN, QUERIES = 300, 12
SHARES = (0.05, 0.1, 0.2, 0.4)
METHODS = {
    "Influence": uw.Influence(),
    "LeaveOneOut": uw.LeaveOneOut(),
    "RelatIF": uw.RelatIF(),
    "GradCos": uw.GradCos(),
    "KNNShapley": uw.KNNShapley(),
}


def run() -> Result:
    """Areas of both criteria for every method and baseline of the comparison."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order] / 16, y[order]
    train, held_out = uw.Examples(x[:TRAIN], y[:TRAIN]), uw.Examples(x[TRAIN:], y[TRAIN:], ids=range(TRAIN, len(x)))
    model = uw.explainable(LogisticRegression(C=1.0, tol=1e-8, max_iter=2000).fit(train.x, train.y), train)
    unsure = np.argsort(model.measure(held_out))[:: len(held_out) // QUERIES][:QUERIES]  # from the worst to the best
    queries = held_out.take(np.sort(unsure))
    retraining = uw.Retraining(processes=1)
    truth = uw.retrain_truth(model, train, queries, uw.subsets(train, 30), retraining=retraining)
    comparison = uw.compare(METHODS, model, train, queries, truth)
    criteria = uw.example_criteria(model, train, queries, comparison, SHARES, retraining=retraining)
    print(criteria, flush=True)
    areas = {name: criteria.areas(name) for name in criteria.necessity}
    random = areas["random"]
    rows = [
        Row(
            "Influence against random examples: necessity, sufficiency",
            "–",
            f"{areas['Influence'][0]:.3f} / {random[0]:.3f}, {areas['Influence'][1]:+.3f} / {random[1]:+.3f}",
            areas["Influence"][0] > random[0] and areas["Influence"][1] > random[1],
        )
    ]
    lds = {entry.name: f"{entry.lds.mean:.2f}" for entry in comparison.entries if entry.lds}
    rows += [
        Row(f"{name}: necessity, sufficiency (LDS)", "–", f"{need:.3f}, {enough:+.3f} ({lds.get(name, '–')})")
        for name, (need, enough) in sorted(areas.items(), key=lambda pair: -pair[1][0])
    ]
    return Result(
        title="Necessary and sufficient training examples",
        claim="Removing the strongest proponents of a good method changes a prediction most, and training on "
        "them alone "
        "loses least.",
        rows=rows,
        settings=f"Digits (UCI, 8 × 8), {TRAIN} training examples, softmax regression, {QUERIES} queries from the "
        "worst to the "
        f"best predicted; {', '.join(f'{share:.0%}' for share in SHARES)} removed, and kept; "
        f"{criteria.trainings:,} trainings. "
        "Nats of log-probability; high is good for both.",
        notes=["There is no paper: the counterpart for training examples of the orderings of Wang et al. (2020)."],
        numbers={name: list(pair) for name, pair in areas.items()},
    )
