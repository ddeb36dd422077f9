"""The demo: scanned digits, a classifier, its most confident mistakes, and the training digits that caused them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from upweight.applications.explain import Explanation, confident_mistakes, explain
from upweight.core.examples import Examples
from upweight.core.model import Retrainable
from upweight.core.progress import Progress, no_progress
from upweight.core.threads import one_thread

MISTAKES = 8
REMOVALS = 24
HELD_OUT = 500
STAGES = {
    "train": f"Training logistic regression on {1797 - HELD_OUT:,} scanned digits",
    "fit": "Working out what each of them did to the model",
    "attribute": f"Tracing its {MISTAKES} most confident mistakes back to them",
    "retrain": f"Training it {REMOVALS} more times without some, to check",
    "report": "Writing the report",
}


@dataclass(frozen=True, eq=False)
class Digits:
    """A model that reads digits, what it was trained on, and digits it has not seen."""

    model: Retrainable
    train: Examples
    held_out: Examples


def digits() -> Digits:
    """scikit-learn's scanned digits (1,797 pictures, 8 × 8), a fixed split, logistic regression at its optimum."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    from upweight.models.registry import explainable

    data = load_digits()
    places = np.arange(len(data.target))
    split = train_test_split(places, test_size=HELD_OUT, random_state=1, stratify=data.target)
    train, held_out = (
        Examples(data.data[ids], data.target[ids], ids=ids, shown=data.images[ids]) for ids in map(np.sort, split)
    )
    # To the optimum: influence asks what the training objective says, not where a solver stopped.
    reader = make_pipeline(MinMaxScaler(), LogisticRegression(tol=1e-8, max_iter=10_000))
    with one_thread():
        reader.fit(train.x, train.y)
    return Digits(explainable(reader, train), train, held_out)


def demo(report: Path, progress: Progress | None = None) -> Explanation:
    """Explain the most confident mistakes on held-out digits, verify by real retraining, write the report.

    `progress` is called with the stages of `STAGES`. Raises OSError when the report cannot be written.
    """
    from upweight.methods.influence import Influence
    from upweight.report.page import write_report
    from upweight.retraining.retraining import Retraining

    start = time.perf_counter()
    tell = progress or no_progress
    tell("train", 0, 1)
    made = digits()
    tell("train", 1, 1)
    mistakes = made.held_out.select(confident_mistakes(made.model, made.held_out, MISTAKES))
    retraining = Retraining(progress=progress)
    explained = explain(made.model, made.train, mistakes, Influence(), removals=REMOVALS, retraining=retraining)
    tell("report", 0, 1)
    write_report(report, explained.scores, explained.train, explained.queries, explained.check)
    tell("report", 1, 1)
    return replace(explained, seconds=time.perf_counter() - start)
