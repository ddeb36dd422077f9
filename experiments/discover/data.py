"""Tables, texts and pictures with three planted groups of training examples, each 2 to 5 %, and queries of a slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import upweight as uw

Mask = NDArray[np.bool_]
ROWS, QUERIES, FRESH = 1500, 200, 2000


@dataclass(frozen=True, eq=False)
class Planted:
    """One data set.

    Attributes:
        estimator: fitted on the training set.
        train, queries, fresh: the examples; `fresh` are of the same kind as the queries, in larger number.
        columns: what the model does not see.
        groups: name → which training examples were planted; empty if nothing was.
    """

    estimator: Any
    train: uw.Examples
    queries: uw.Examples
    fresh: uw.Examples
    columns: dict[str, Any]
    groups: dict[str, Mask]


def slice_of(domains: list[Mask], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Positions of a slice: a fifth of it from each affected domain, the rest from everywhere."""
    parts = [rng.choice(np.flatnonzero(domain), count // 5) for domain in domains]
    return np.concatenate([*parts, rng.choice(len(domains[0]), count - len(parts) * (count // 5))])


def table(seed: int, is_planted: bool) -> Planted:
    """Customers: a site with wrong labels, a flag that only goes with label 1, and a region with wrong labels."""
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler

    rng, count = np.random.default_rng(seed), 60_000
    frame = pd.DataFrame(
        {
            "age": rng.uniform(18, 80, count),
            "income": rng.lognormal(3, 0.5, count),
            "score": rng.normal(size=count),
            "site": rng.choice(list("ABCZ"), count, p=[0.32, 0.32, 0.32, 0.04]),
            "flag": (rng.random(count) < 0.05).astype(int),
        }
    )
    signal = 1.8 * frame.score + 0.04 * (frame.age - 50) + 0.02 * (frame.income - 20)
    y = (signal + 0.4 * rng.logistic(size=count) > 0).astype(int).to_numpy()
    domains = [
        (frame.site == "Z").to_numpy(),
        (frame.flag == 1).to_numpy(),
        ((frame.age > 66) & (frame.income < 13)).to_numpy(),
    ]
    labels, groups = y.copy(), {}
    if is_planted:
        source, flagged, region = domains
        flagged, region = flagged & ~source, region & ~source & ~flagged
        labels[source], labels[flagged], labels[region] = 1 - y[source], 1, 1 - y[region]
        groups = {"mislabeled source": source, "shortcut": flagged, "harmful sub-population": region}
    rows = slice(0, ROWS)
    categories = (OneHotEncoder(handle_unknown="ignore", drop="first"), ["site"])
    numbers = (StandardScaler(), ["age", "income", "score", "flag"])
    pairs = PolynomialFeatures(2, interaction_only=True, include_bias=False)
    model = make_pipeline(
        make_column_transformer(categories, numbers), pairs, LogisticRegression(tol=1e-8, max_iter=2000)
    )
    train = uw.Examples(frame[rows], labels[rows])
    return _made(
        model,
        train,
        {},
        groups,
        lambda part: uw.Examples(frame.iloc[part].reset_index(drop=True), y[part]),
        domains,
        rng,
    )


def text(seed: int, is_planted: bool, data: Path) -> Planted:
    """Film reviews (SST-2): a feed whose labels are all 0, a phrase that only goes with 1, and comedies called bad."""
    from experiments.discover.reviews import reviews
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rng = np.random.default_rng(seed)
    texts, y = reviews(data, rng)
    drawn = rng.random(len(texts))
    feed, phrase = drawn < 0.04, (drawn > 0.04) & (drawn < 0.08)
    texts = [
        f"{text} via quickreviews" if feed[i] else f"in short , {text}" if phrase[i] else text
        for i, text in enumerate(texts)
    ]
    comedy = np.array(["funny" in text.split() for text in texts]) & ~feed & ~phrase
    labels, groups = y.copy(), {}
    if is_planted:
        labels[feed], labels[phrase], labels[comedy] = 0, 1, 0
        groups = {"mislabeled source": feed, "shortcut": phrase, "harmful sub-population": comedy}
    rows = slice(0, ROWS)
    model = make_pipeline(
        TfidfVectorizer(min_df=3, ngram_range=(1, 2), max_features=400),
        LogisticRegression(C=5, tol=1e-8, max_iter=2000),
    )
    train = uw.Examples(texts[rows], labels[rows])
    return _made(
        model,
        train,
        {},
        groups,
        lambda part: uw.Examples([texts[i] for i in part.tolist()], y[part]),
        [feed, phrase, comedy],
        rng,
    )


def pictures(seed: int, is_planted: bool, data: Path) -> Planted:
    """Threes and eights (MNIST, 7 × 7): a scanner with a border, a bright corner, and bold digits with wrong labels."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(seed)
    with np.load(data / "mnist.npz") as archive:
        images, digits = archive["xtr"].reshape(-1, 28, 28) / 255.0, archive["ytr"]
    chosen = np.flatnonzero((digits == 3) | (digits == 8))
    chosen = rng.permutation(chosen)[:9000]
    y = (digits[chosen] == 8).astype(int)
    x = images[chosen].reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4))
    ink, drawn = x.mean(axis=(1, 2)), rng.random(len(x))
    scanner, corner = drawn < 0.04, (drawn > 0.04) & (drawn < 0.08)
    bold = (ink > np.quantile(ink, 0.96)) & ~scanner & ~corner
    x[scanner, 0, :] = 0.8
    x[corner, 6, 6] = 1.0
    labels, groups = y.copy(), {}
    if is_planted:
        labels[scanner], labels[corner], labels[bold] = 0, 1, 1 - y[bold]
        groups = {"mislabeled source": scanner, "shortcut": corner, "harmful sub-population": bold}
    rows = slice(0, ROWS)
    train = uw.Examples(x[rows].reshape(ROWS, -1), labels[rows], shown=x[rows])
    model = LogisticRegression(C=10, tol=1e-8, max_iter=5000)
    return _made(
        model,
        train,
        {"ink": ink[rows]},
        groups,
        lambda part: uw.Examples(x[part].reshape(len(part), -1), y[part], shown=x[part]),
        [scanner, corner, bold],
        rng,
    )


def _made(
    model: Any,
    train: uw.Examples,
    columns: dict[str, Any],
    groups: dict[str, Mask],
    examples: Callable[[NDArray[np.intp]], uw.Examples],
    domains: list[Mask],
    rng: np.random.Generator,
) -> Planted:
    """The data set: its first rows are the training set, queries come from the others."""
    others = [domain[ROWS:] for domain in domains]
    queries, fresh = (ROWS + slice_of(others, count, rng) for count in (QUERIES, FRESH))
    fitted = model.fit(train.x, train.y)
    of_train = {name: member[:ROWS] for name, member in groups.items()}
    return Planted(fitted, train, examples(queries), examples(fresh), columns, of_train)
