"""Label flips: one mail is to pass as ham, by new labels of the training mails that are most like it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from experiments.poison.trial import Attack
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

import upweight as uw

TRAIN, QUERIES, TARGETS, FLIPS = 1000, 1000, 10, 12
HAM, SPAM = 0, 1
INERT = 0.1  # share of the mean poison's effect, below which a poison has no part in the attack


def mails(folder: Path) -> tuple[list[str], np.ndarray]:
    """(texts, labels: 1 for spam) of Enron-Spam, folder enron1, in the order of the files."""
    with zipfile.ZipFile(folder / "enron1.zip") as archive:
        texts = [name for name in archive.namelist() if name.endswith(".txt")]
        names = sorted(name for name in texts if "/ham/" in name or "/spam/" in name)
        texts = [archive.read(name).decode("latin-1") for name in names]
    return texts, np.array([int("/spam/" in name) for name in names])


def attacks(folder: Path, seed: int = 0) -> Iterator[Attack]:
    """One attack per target: a spam mail that the clean model recognises, and its twelve most similar spam mails."""
    texts, y = mails(folder)
    order = np.random.default_rng(seed).permutation(len(texts))
    rows, others = order[:TRAIN], order[TRAIN : TRAIN + 2 * QUERIES]
    words = TfidfVectorizer(max_features=3000, sublinear_tf=True, stop_words="english").fit([texts[i] for i in rows])
    x = words.transform([texts[i] for i in rows]).toarray()
    others_x = words.transform([texts[i] for i in others]).toarray()
    clean = LogisticRegression(C=10.0, max_iter=1000, tol=1e-6).fit(x, y[rows])
    recognised = np.flatnonzero((y[others] == SPAM) & (clean.predict(others_x) == SPAM))
    for target in recognised[:TARGETS]:
        spam = np.flatnonzero(y[rows] == SPAM)
        poisons = spam[np.argsort(-(x[spam] @ others_x[target]), kind="stable")[:FLIPS]]
        labels = y[rows].copy()
        labels[poisons] = HAM
        train = uw.Examples(x, labels)
        queries = np.concatenate([np.setdiff1d(np.arange(len(others)), [target])[:QUERIES], [target]])
        estimator = LogisticRegression(C=10.0, max_iter=1000, tol=1e-6).fit(x, labels)
        model = uw.explainable(estimator, train)
        effects = effects_of_removal(model, train, poisons, uw.Examples(others_x[[target]], [HAM]))
        yield Attack(
            model=model,
            train=train,
            poisons=np.isin(np.arange(TRAIN), poisons),
            inert=np.isin(np.arange(TRAIN), poisons[effects < INERT * effects.mean()]),
            queries=uw.Examples(others_x[queries], y[others][queries]),
            targets=np.array([QUERIES]),
            wanted=np.array([HAM]),
        )


def effects_of_removal(
    model: uw.LinearModel, train: uw.Examples, poisons: NDArray[np.intp], target: uw.Examples
) -> NDArray[np.float64]:
    """How much the log-odds of the target's label fall without each of these examples alone, by retraining."""
    without = np.ones((len(poisons), len(train)))
    without[np.arange(len(poisons)), poisons] = 0.0
    odds = [_log_odds(one, target) for one in (model, *(uw.retrain(model, train, weights) for weights in without))]
    return np.array(odds[0] - np.array(odds[1:]))


def _log_odds(model: uw.LinearModel, target: uw.Examples) -> float:
    loss = -float(model.measure(target)[0])
    return -loss - float(np.log(-np.expm1(-loss)))
