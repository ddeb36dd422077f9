"""Two moons with 10 labels and 1,000 unlabelled points, by `uw.reweight`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from experiments.results import Result, Row
from sklearn.base import clone
from sklearn.datasets import make_moons
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

import upweight as uw

SEEDS = 10
LABELLED, VALIDATION, UNLABELLED, TEST = 10, 30, 1_000, 2_000
NOISE, WIDTH, COMPONENTS, PENALTY = 0.15, 2.0, 60, 10.0  # WIDTH is γ of the kernel, PENALTY its C
NEAR = 0.2  # share of the points that count as near to the boundary


def outcome(folder: Path | None) -> dict[str, Any]:
    """Accuracies, and where the weights are low."""
    rows = []
    for seed in range(SEEDS):
        total = LABELLED + VALIDATION + UNLABELLED + TEST
        x, y = make_moons(total, noise=NOISE, random_state=seed)
        ends = np.cumsum([LABELLED, VALIDATION, UNLABELLED])
        (lx, vx, ux, tx), (ly, vy, uy, ty) = (np.split(part, ends) for part in (x, y))
        kernel = Nystroem(gamma=WIDTH, n_components=COMPONENTS, random_state=0).fit(ux)
        train = uw.Examples(kernel.transform(lx), ly)
        model = uw.explainable(LogisticRegression(C=PENALTY, tol=1e-8, max_iter=1000).fit(train.x, ly), train)
        unlabelled = uw.Examples(kernel.transform(ux))
        result = uw.reweight(
            model,
            train,
            uw.Examples(kernel.transform(vx), vy),
            held_out=uw.Examples(kernel.transform(tx), ty),
            unlabelled=unlabelled,
        )
        pseudo = result.train.y[LABELLED:]
        labelled = kernel.transform(np.concatenate([lx, vx])), np.concatenate([ly, vy])
        both = LogisticRegression(C=PENALTY, max_iter=1000).fit(*labelled)
        truth = make_pipeline(clone(kernel), LogisticRegression(C=PENALTY, max_iter=1000)).fit(
            tx, ty
        )  # on 2,000 labels
        distance = np.abs(truth.decision_function(ux))
        is_near = distance <= np.quantile(distance, NEAR)
        predicted = model.estimator.predict(kernel.transform(tx))
        row = {
            "supervised": float(np.mean(predicted == ty)),
            "validation too": float(np.mean(both.predict(kernel.transform(tx)) == ty)),
            "learned": result.accuracy,
            **{gain.weights: gain.accuracy for gain in result.gains},
            "gain": result.gain_beside("one weight").gain,
            "wrong": float((pseudo != uy).mean()),
            "area": float(roc_auc_score(pseudo != uy, -result.weights)) if (pseudo != uy).any() else np.nan,
            "near": float(result.weights[is_near].mean()),
            "far": float(result.weights[~is_near].mean()),
        }
        rows.append(row)
        print(row, flush=True)
    return {"rows": rows}


def result(numbers: dict[str, Any]) -> Result:
    """The table."""
    rows = numbers["rows"]
    mean = {key: float(np.nanmean([row.get(key, np.nan) for row in rows])) for key in rows[0]}
    better = sum(row["learned"] >= row["one weight"] for row in rows)
    return Result(
        title="Two moons with 10 labels",
        claim="Weights that are learned move the boundary to where the moons part; points near it get low weights.",
        rows=[
            Row(
                "test accuracy, a weight per point beside weight 1 for all",
                "better",
                f"{mean['learned']:.3f} beside {mean['uniform']:.3f}",
                mean["learned"] > mean["uniform"],
            ),
            Row(
                "the same beside the best single weight",
                "better",
                f"{mean['learned']:.3f} beside {mean['one weight']:.3f} (no worse in {better} of {len(rows)} seeds)",
                mean["learned"] > mean["one weight"],
            ),
            Row(
                "mean weight of the fifth of the points nearest to the boundary, and of the others",
                "lower near it",
                f"{mean['near']:.2f} and {mean['far']:.2f}",
                mean["near"] < mean["far"],
            ),
            Row("AUC of low weights for wrong pseudo-labels", "above 0.5", f"{mean['area']:.3f}", mean["area"] > 0.5),
            Row("test accuracy with the 10 labels alone", "–", f"{mean['supervised']:.3f}"),
            Row(
                "test accuracy with the labels of the validation points as training labels",
                "–",
                f"{mean['validation too']:.3f}",
            ),
            Row("test accuracy with the learned weights at random places", "–", f"{mean['random']:.3f}"),
            Row(
                "the same without the points of highest loss",
                "–",
                f"{mean['highest losses dropped']:.3f}",
            ),
            Row("wrong pseudo-labels", "–", f"{mean['wrong']:.1%}"),
        ],
        settings=f"{LABELLED} labelled, {VALIDATION} validation, {UNLABELLED:,} unlabelled and {TEST:,} test points, "
        f"noise {NOISE}; logistic regression on {COMPONENTS} Nyström features (γ = {WIDTH:g}, C = {PENALTY:g}); "
        f"`uw.reweight` with its defaults, {SEEDS} seeds.",
        section="Learned weights: Ren, Yeh & Schwing (2020)",
        name="moons",
        command="PYTHONPATH=. python -m experiments.reweighting moons",
        notes=[
            "The paper trains a small net whose pseudo-labels change; here they are those of the model of 10 labels, "
            "and weights follow from influence at the optimum, beginning at the best single weight. The "
            "boundary is that of the same model on 2,000 labels.",
        ],
        numbers=numbers,
    )
