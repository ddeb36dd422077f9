"""Queries of a domain that the training set does not have, and how well their outlier factors tell them from others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from experiments.discover import data
from experiments.koh_liang.data import enron
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

import upweight as uw
from upweight.applications.query_support import support_of

WORDS = 30  # of a mail, about as many as reviews have
FROM_DOMAIN = 50  # of 200 queries


def missing_table(seed: int) -> float:
    """The AUC of customers older than 66 with a low income, none of whom is in the training set."""
    planted = data.table(seed, False)
    outside = [~((part.x.age > 66) & (part.x.income < 13)).to_numpy() for part in (planted.train, planted.fresh)]
    train = planted.train.take(outside[0])
    model = uw.explainable(clone(planted.estimator).fit(train.x, train.y), train)
    return area(model, train, planted.fresh, ~outside[1])


def missing_pictures(seed: int, folder: Path) -> float:
    """The AUC of fours among threes and eights, if the training set has only these."""
    planted = data.pictures(seed, False, folder)
    with np.load(folder / "mnist.npz") as archive:
        fours = archive["xtr"].reshape(-1, 28, 28)[archive["ytr"] == 4][:FROM_DOMAIN] / 255.0
    x = fours.reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(len(fours), -1)
    others = planted.fresh.take(np.arange(200 - FROM_DOMAIN))
    queries = uw.Examples(np.concatenate([x, others.x]), np.concatenate([np.ones(len(x), dtype=int), others.y]))
    model = uw.explainable(planted.estimator, planted.train)
    return area(model, planted.train, queries, np.arange(len(queries)) < len(x))


def missing_texts(seed: int, folder: Path) -> float:
    """The AUC of e-mails (Enron) among film reviews, if the training set has only reviews."""
    planted = data.text(seed, False, folder)
    mails, is_spam = enron(folder)
    chosen = np.random.default_rng(seed).choice(np.flatnonzero(is_spam == 0), FROM_DOMAIN, replace=False)
    bodies = [" ".join(mails[i].partition("\n")[2].lower().split()[:WORDS]) for i in chosen]
    others = planted.fresh.take(np.arange(200 - FROM_DOMAIN))
    labels = np.concatenate([np.ones(len(bodies), dtype=int), others.y])
    queries = uw.Examples([*bodies, *others.x], labels)
    model = uw.explainable(planted.estimator, planted.train)
    return area(model, planted.train, queries, np.arange(len(queries)) < len(bodies))


def area(model: uw.Measurable, train: uw.Examples, queries: uw.Examples, is_missing: np.ndarray) -> float:
    """The AUC of the outlier factors of `discover`, for 200 queries of which a quarter is missing in training."""
    rng = np.random.default_rng(0)
    chosen = np.concatenate(
        [
            rng.choice(np.flatnonzero(is_missing), FROM_DOMAIN, replace=False),
            rng.choice(np.flatnonzero(~is_missing), 200 - FROM_DOMAIN, replace=False),
        ]
    )
    support = support_of(model, train, queries.take(chosen))
    assert support is not None
    return float(roc_auc_score(is_missing[chosen], support.factor))
