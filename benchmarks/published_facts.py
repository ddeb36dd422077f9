"""Recall of facts by bergson's, DATE-LM's and quanda's own code; the facts are those of `experiments/texts`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.results import Table
from experiments.texts.recall import Asked

import upweight as uw

METHODS: dict[str, Any] = {
    "BM25": uw.BM25(),
    "GradDot": uw.GradDot(),
    "GradCos": uw.GradCos(),
    "Influence, empirical Fisher": uw.Influence(curvature=uw.EmpiricalFisher()),
    "Influence, EK-FAC": uw.Influence(curvature=uw.EKFAC()),
}
WITHIN = 10


def recall(peers: Any, data: Path) -> Table | None:
    present = [name for name in ("bergson", "date-lm", "quanda") if name in peers.present]
    if not present:
        return None
    asked = Asked.trained()
    table = Table(
        "Recall of facts whose names do not leak (questions by alias)",
        "the same mean reciprocal rank by every evaluation",
        [
            "method",
            *(f"MRR by {name}" for name in present),
            *([f"Recall@{WITHIN} by date-lm"] * ("date-lm" in present)),
        ],
    )
    rng = np.random.default_rng(0)
    count = len(asked.gold)
    for name, method in METHODS.items() | {"chance": None}.items():
        values = rng.normal(size=(count, len(asked.train))) if method is None else asked.scores(method)["alias"]
        table.add(name, *evaluated(peers, present, values, asked))
    table.rows.sort(key=lambda row: row[1])
    table.notes.append(
        f"{count} questions, {len(asked.train):,} sentences, two of which tell an answer; what the questions "
        "are: experiments/RESULTS.md."
    )
    return table


def evaluated(peers: Any, present: list[str], values: np.ndarray, asked: Asked) -> list[float]:
    """The figures of one method, in the order of the columns."""
    found, more = [], []
    if "bergson" in present:
        (gold_ranks,) = peers.functions("bergson", ["gold_ranks"], {})
        ranks = [gold_ranks(row, gold).min() for row, gold in zip(values, asked.gold, strict=True)]
        found.append(float(np.mean(1 / np.array(ranks))))
    if "date-lm" in present:
        evaluate = peers.functions("date-lm", ["evaluate_fact", "evaluate_fact_score_single"], {})[0]
        within, mean = evaluate(values, asked.gold, k=WITHIN)
        found.append(float(mean))
        more.append(float(within))
    if "quanda" in present:
        metric = peers.module("quanda.metrics.downstream_eval.mrr").MRRMetric(asked.model.network.net, None)
        entails = torch.zeros(values.shape)
        for row, gold in zip(entails, asked.gold, strict=True):
            row[torch.as_tensor(gold)] = 1
        metric.update(torch.as_tensor(np.ascontiguousarray(values)), entails)
        found.append(metric.compute()["score"])
    return found + more
