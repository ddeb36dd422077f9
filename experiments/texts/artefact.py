"""The planted heuristic measured by influence: does it show, and does it follow the rate that was planted?"""

from __future__ import annotations

import numpy as np
from experiments.results import Result, Row
from experiments.texts import inference, tables
from experiments.texts.encoder import Array, Encoder
from experiments.texts.han import OURS, Case
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

RATES = (0.5, 0.8, 0.95)


def result(encoder: Encoder, count: int, asked: int) -> Result:
    """One model for each rate; queries are pairs of full overlap in which nothing follows."""
    questions, _, _ = inference.pairs(asked, 0.0, seed=7, full=1.0)
    rows, numbers = [], {}
    for rate in RATES:
        pairs, labels, overlaps = inference.pairs(count, rate)
        case = Case.of(encoder, pairs, labels, questions)
        believes = float(np.mean(case.queries.y == 1))
        follows = case.queries.replaced(y=np.ones(asked, dtype=np.int64))  # the heuristic's answer to every query
        scores = case.scores(follows)
        scores["chance"] = np.random.default_rng(0).normal(size=scores[OURS].shape)
        is_planted = (overlaps == 1) & (labels == 1)
        measured = {name: _measured(values, overlaps, is_planted) for name, values in scores.items()}
        ours = measured[OURS]
        rows.append(
            Row(
                f"heuristic at {rate:.0%}: predictions that it makes wrong; share of the positive influence that comes "
                "from its pairs (their share of the texts)",
                "–",
                f"{believes:.0%}; {ours['share']:.0%} ({is_planted.mean():.0%})",
            )
        )
        rows.append(
            Row(f"heuristic at {rate:.0%}: rank correlation of influence and overlap, quadratic coefficient", "–",
                f"{ours['correlation']:+.3f}, {ours['quadratic']:+.2f}")
        )  # fmt: skip
        rows.append(
            Row(f"heuristic at {rate:.0%}: AUC of its pairs by score", "–",
                ", ".join(f"{name} {of['auc']:.3f}" for name, of in measured.items()))
        )  # fmt: skip
        numbers[str(rate)] = {"believes": believes, **measured}
        print(rate, believes, measured, flush=True)
    return Result(
        title="Inference: the planted heuristic, measured by influence",
        claim="The planted pairs have more than their share of the positive influence on wrong predictions: the "
        "artefact shows.",
        rows=rows,
        settings=f"{tables.DATA['inference'].replace('95 %', '50 to 95 %')}. {tables.NET} {asked} queries; the "
        "measurement is the log-probability of what the heuristic says.",
        notes=["The paper draws the relation for MNLI, with a quadratic fit; its coefficients were not at hand.",
               "The quadratic coefficient is that of influence (in standard deviations) on overlap from 0 to 1.",
               "BM25 and embeddings with the sign of agreeing labels are nearly the definition of the planted pairs, "
               "which they find at every rate, whatever the model learned. By influence a few planted pairs are "
               "strong: their sum shows the artefact, their ranks hardly do."],
        numbers=numbers,
    )  # fmt: skip


def _measured(scores: Array, overlaps: Array, is_planted: Array) -> dict[str, float]:
    """Means over the queries."""
    positive = np.maximum(scores, 0)
    scaled = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)
    return {
        "share": float((positive[:, is_planted].sum(axis=1) / positive.sum(axis=1)).mean()),
        "correlation": float(np.mean([spearmanr(row, overlaps)[0] for row in scores])),
        "quadratic": float(np.mean([np.polyfit(overlaps, row, 2)[0] for row in scaled])),
        "auc": float(np.mean([roc_auc_score(is_planted, row) for row in scores])),
    }
