"""The demo: the most confident mistakes of a digit classifier, and the training digits that caused them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from upweight.applications.explain import Explanation, explain
from upweight.applications.query_choice import confident_mistakes
from upweight.core.examples import Examples
from upweight.core.model import Retrainable
from upweight.core.progress import Progress, no_progress
from upweight.core.threads import one_thread

MISTAKES = 8
REMOVALS = 24
HELD_OUT = 500
STAGES = {
    "train": f"Training logistic regression on {1797 - HELD_OUT:,} scanned digits",
    "fit": "Computing the influence of each training digit",
    "attribute": f"Scoring them for the {MISTAKES} most confident mistakes",
    "retrain": f"Retraining {REMOVALS} times without some digits, to verify",
    "report": "Writing the report",
}


@dataclass(frozen=True, eq=False)
class Digits:
    """A model that reads digits, its training set, and digits that it has not seen."""

    model: Retrainable
    train: Examples
    held_out: Examples


def digits() -> Digits:
    """The 1,797 scanned digits (8 × 8) of scikit-learn in a fixed split, and logistic regression at its optimum."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    from upweight.models.registry import explainable

    data = load_digits()
    positions = np.arange(len(data.target))
    split = train_test_split(positions, test_size=HELD_OUT, random_state=1, stratify=data.target)
    train, held_out = (
        Examples(data.data[ids], data.target[ids], ids=ids, shown=data.images[ids]) for ids in map(np.sort, split)
    )
    # Trained to the optimum, because influence describes the training objective and not where a solver stopped.
    classifier = make_pipeline(MinMaxScaler(), LogisticRegression(tol=1e-8, max_iter=10_000))
    with one_thread():
        classifier.fit(train.x, train.y)
    return Digits(explainable(classifier, train), train, held_out)


def demo(report: Path, progress: Progress | None = None) -> Explanation:
    """Explain the most confident mistakes on held-out digits, verify by real retraining, write the report.

    `progress` is called with the stages of `STAGES`. Raises OSError if the report cannot be written.
    """
    from upweight.methods.influence import Influence
    from upweight.report.page import write_report
    from upweight.retraining.retraining import Retraining

    start = time.perf_counter()
    report_stage = progress or no_progress
    report_stage("train", 0, 1)
    data = digits()
    report_stage("train", 1, 1)
    mistakes = data.held_out.select(confident_mistakes(data.model, data.held_out, MISTAKES))
    retraining = Retraining(progress=progress)
    explained = explain(data.model, data.train, mistakes, Influence(), removals=REMOVALS, retraining=retraining)
    report_stage("report", 0, 1)
    write_report(report, explained.scores, explained.train, explained.queries, explained.check)
    report_stage("report", 1, 1)
    return replace(explained, seconds=time.perf_counter() - start)
