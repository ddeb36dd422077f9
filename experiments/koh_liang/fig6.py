"""Fig. 6: which labels of a spam filter to check? Those that influence themselves most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from experiments.koh_liang import data
from experiments.koh_liang.pictures import panels, save
from experiments.koh_liang.spam import bags, lemmas
from experiments.results import Result, Row
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

import upweight as uw

Array = NDArray[Any]
L2 = 1e-4
CHECKED = np.arange(1, 7)  # twentieths of the training set
FLIPPED = 2  # twentieths of the labels
METHODS = ("influence", "as drawn in 2017", "loss", "random")
BAND = 0.02
COMBINED = 4  # seeds with which uw.mislabeled is asked too: it trains ten times for each
PAPER = {  # at 10 % flips: accuracy after repair, share of the flips that were found
    "as drawn in 2017": ((0.939, 0.955, 0.963, 0.967, 0.970, 0.972), (0.41, 0.62, 0.72, 0.785, 0.83, 0.855)),
    "loss": ((0.911, 0.932, 0.942, 0.950, 0.955, 0.960), (0.345, 0.51, 0.62, 0.69, 0.75, 0.795)),
    "random": ((0.893, 0.898, 0.902, 0.907, 0.911, 0.916), (0.05, 0.10, 0.15, 0.20, 0.25, 0.30)),
}


def fitted(x: Any, y: Array) -> LogisticRegression:
    """Logistic regression without bias."""
    return LogisticRegression(C=1 / (L2 * len(y)), fit_intercept=False, solver="newton-cg", tol=1e-4).fit(x, y)


def orders(x: Any, y: Array, machine: LogisticRegression, rng: np.random.RandomState) -> dict[str, Array]:
    """What to check first, by each method."""
    train = uw.Examples(x, y)
    model = uw.explainable(machine, train)
    influence = uw.Influence(correction=None).fit(model, train).self_influence().values[0]
    log_p = model.measure(train)
    sigma = np.maximum(-np.expm1(log_p), np.finfo(float).tiny)  # 1 − p(label)
    drawn = influence / sigma  # σ xᵀH⁻¹x: the paper's code had lost the square of σ
    keys = (influence, drawn, -log_p, rng.permutation(len(y)))
    return {name: np.argsort(-key, kind="stable") for name, key in zip(METHODS, keys, strict=True)}


def flip(seed: int, y: Array) -> tuple[Array, Array, np.random.RandomState]:
    """(Labels with flips, where those are, the random numbers that follow)."""
    rng = np.random.RandomState(seed)
    flips = rng.choice(len(y), size=FLIPPED * (len(y) // 20), replace=False)
    wrong = y.copy()
    wrong[flips] = 1 - wrong[flips]
    return wrong, flips, rng


def suspected(seed: int, train: tuple[Any, Array]) -> float:
    """Share of the flips that `uw.mislabeled` finds where a tenth is checked."""
    x, y = train
    wrong, flips, _ = flip(seed, y)
    mails = uw.Examples(x, wrong)
    suspects = uw.mislabeled(uw.explainable(fitted(x, wrong), mails), mails, budget=2 * (len(y) // 20))
    return float(np.isin(flips, mails.positions(suspects.ids.tolist())).mean())


def one(seed: int, train: tuple[Any, Array], test: tuple[Any, Array]) -> tuple[float, Array]:
    """Flip, check, repair, fit again: (accuracy with the flips, (method, accuracy or share found, checked))."""
    x, y = train
    step = len(y) // 20
    wrong, flips, rng = flip(seed, y)
    machine = fitted(x, wrong)
    shares = np.empty((len(METHODS), 2, len(CHECKED)))
    for order, out in zip(orders(x, wrong, machine, rng).values(), shares, strict=True):
        for place, twentieths in enumerate(CHECKED):
            checked = order[: twentieths * step]
            repaired = wrong.copy()
            repaired[checked] = y[checked]
            out[:, place] = fitted(x, repaired).score(*test), np.isin(flips, checked).mean()
    return machine.score(*test), shares


def reproduce(folder: Path, fast: bool, path: Path) -> Result:
    """The table at 10 % flips."""
    mails, y = data.enron(folder)
    train, test = bags(lemmas(mails), y, 0.8)
    clean = fitted(*train).score(*test)
    seeds = [120 + 2 * k for k in range(2 if fast else 40)]  # the release's
    accuracies, shares = zip(*(one(seed, train, test) for seed in seeds), strict=True)
    flipped, table = float(np.mean(accuracies)), np.mean(shares, axis=0)
    draw(path, np.array(shares), flipped, clean)
    combined = np.mean([suspected(seed, train) for seed in seeds[:COMBINED]])
    alone = np.mean(shares[:COMBINED], axis=0)[[METHODS.index("influence"), METHODS.index("loss")], 1, 1]
    rows = [
        Row("influence finds at least what the loss finds", "yes", *_answer((table[0, 1] >= table[2, 1]).all())),
        _row("accuracy, clean labels", (0.976,), [clean]),
        _row("accuracy, 10 % flipped", (0.888,), [flipped]),
    ]
    for name, ours in zip(METHODS, table, strict=True):
        rows += [
            _row(f"{name}: accuracy after checking 5 … 30 %", PAPER.get(name, (None, None))[0], ours[0]),
            _row(f"{name}: share of flips found", PAPER.get(name, (None, None))[1], ours[1]),
        ]
    rows.append(
        Row(
            f"10 % checked by uw.mislabeled: share of flips found (influence, loss; {min(COMBINED, len(seeds))} seeds)",
            "–",
            f"{combined:.3f} ({alone[0]:.3f}, {alone[1]:.3f})",
            bool(combined >= alone.max()),
        )
    )
    return Result(
        title="Fig. 6: fixing mislabeled mails",
        claim="Checking the mails with the largest self-influence repairs a spam filter faster than checking those "
        "with the largest loss; both are far better than checking at random.",
        rows=rows,
        settings=f"Enron1, {len(train[1]):,} training and {len(test[1]):,} test mails, {train[0].shape[1]:,} lemmas, "
        f"logistic regression without bias, l2 {L2:g}, {FLIPPED * 5} % of the labels flipped, {len(seeds)} seeds; "
        f"a row is met when all its numbers are within ±{BAND}.",
        notes=[
            "Lemmas are made by a dozen suffix rules and the stop words are scikit-learn's; the paper used spaCy 1.8, "
            "which also leaves out unknown words, and another random split.",
            "The paper's curve does not show self-influence. For a logistic regression self-influence is σ² xᵀH⁻¹x, "
            "σ = 1 − p(label); "
            "the code released with the paper returned σ xᵀH⁻¹x, and its authors restored the square in December "
            "2020. The rows «as drawn in 2017» are ranked by what that code returned and compared with the paper's "
            "numbers; the rows «influence» are ranked by the formula of the text. The formula without the square "
            "finds a few more flips and repairs the filter faster at first, and finds fewer later.",
        ],
        numbers={"found": np.array(shares).round(4).tolist(), "methods": METHODS},
    )


def _answer(yes: bool) -> tuple[str, bool]:
    return "yes" if yes else "no", bool(yes)


def _row(what: str, paper: tuple[float, ...] | None, ours: Any) -> Row:
    numbers = _numbers(ours)
    if paper is None:
        return Row(what, "–", numbers)
    return Row(what, _numbers(paper), numbers, bool((np.abs(np.subtract(ours, paper)) <= BAND + 5e-4).all()))


def _numbers(values: Any) -> str:
    return " ".join(f"{v:.3f}"[1:] for v in values)


def draw(path: Path, shares: Array, flipped: float, clean: float) -> None:
    """Means with standard errors, as in the paper; the paper's own numbers as crosses."""
    figure, axes = panels(2, size=(4.2, 3.4))
    share = np.concatenate([[0], CHECKED * 5])
    mean, error = shares.mean(axis=0), shares.std(axis=0) / np.sqrt(len(shares))
    for m, name in enumerate(METHODS):
        for which, ax, start in ((0, axes[0], flipped), (1, axes[1], 0.0)):
            bars = ax.errorbar(share, [start, *mean[m, which]], [0, *error[m, which]], label=name, capsize=2)
            if name in PAPER:
                ax.plot(share[1:], PAPER[name][which], "x", color=bars[0].get_color(), markersize=5)
    axes[0].axhline(clean, color="k", linestyle="--", linewidth=1, label="clean labels")
    axes[0].plot([], [], "kx", label="the paper's")
    axes[1].legend(*axes[0].get_legend_handles_labels(), fontsize=6, loc=(0.62, 0.37))
    axes[0].set(xlabel="% of the training set checked", ylabel="test accuracy")
    axes[1].set(xlabel="% of the training set checked", ylabel="share of flipped labels found")
    save(figure, path)
