"""Accuracy: scores compared with real retraining, for single examples and for groups.

python -m benchmarks --only accuracy
"""

from __future__ import annotations

import argparse

import numpy as np
from benchmarks.problems import SETS, Problem, small
from benchmarks.results import Section, Table, verdict
from numpy.typing import NDArray
from sklearn.base import clone

import upweight as uw
from upweight.evaluate.agreement import agreement, rank_correlations
from upweight.linear.model import LinearModel
from upweight.retraining.engine import retrain_without
from upweight.retraining.retraining import Retraining

Array = NDArray[np.float64]
RECIPES = {
    "full": uw.Influence(),
    "polish=0": uw.Influence(polish=0),
    "correction=None": uw.Influence(correction=None),
}
SUBSETS = 40
LEAST_LDS = {0.1: 0.995, 0.5: 0.99}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    chosen = parser.parse_args(arguments)
    single, groups = _single_table(), _group_table()
    for name in chosen.sets:
        for scaled in (True, False):
            problem = small(name, scaled)
            label = f"{name}{', standardised' if scaled else ''}"
            print(label, flush=True)
            model = uw.explainable(problem.estimator, problem.train)
            _add_single(single, label, problem, model)
            _add_groups(groups, label, problem, model)
    Section(
        "accuracy", "Accuracy: compared with retraining", "python -m benchmarks --only accuracy", [single, groups]
    ).keep()


def _single_table() -> Table:
    return Table(
        "Leaving out every training example",
        "full method: Pearson ≥ 0.9999 and slope within 1 ± 0.005, compared with the change by retraining without "
        "the example",
        ["set", "train × queries", "method", "Pearson", "slope", "Spearman", "verdict"],
        notes=[
            "LogisticRegression(C=1); all training examples × all held-out queries (at most 100); −loss is measured.",
            "Truth: `model.retrain` without each example, to a gradient of 1e-11. 'sklearn' is the largest difference "
            "of that truth to `clone(estimator).fit` at tol=1e-10 on the reduced data, for the 5 examples with the "
            "largest effects, relative to the largest effect.",
        ],
    )


def _add_single(table: Table, label: str, problem: Problem, model: LinearModel) -> None:
    train, queries = problem.train, problem.queries
    removals = [np.array([i]) for i in range(len(train))]
    base, after = retrain_without(Retraining(processes=1), model, train, queries, removals)
    actual = base[:, None] - after
    size = f"{len(train)} × {len(queries)}"
    for method, recipe in RECIPES.items():
        fitted = recipe.fit(model, train)
        result = agreement(fitted.attribute(queries).values, actual)
        met = result.pearson >= 0.9999 and abs(result.slope - 1) <= 0.005
        mark = verdict(met) if method == "full" else ""
        table.add(label, size, method, f"{result.pearson:.6f}", f"{result.slope:.4f}", f"{result.spearman:.6f}", mark)
    most = np.argsort(-np.abs(actual).max(axis=0))[:5]
    table.notes.append(f"{label}: sklearn {_disagreement(problem, [removals[i] for i in most], actual[:, most]):.1e}")


def _disagreement(problem: Problem, removals: list[NDArray[np.intp]], actual: Array) -> float:
    """Largest difference between the retrained truth and the estimator refitted without these examples, relative."""
    whole, worst = _measured(problem, np.ones(len(problem.y), dtype=bool)), 0.0
    for removed, effect in zip(removals, actual.T, strict=True):
        present = np.ones(len(problem.y), dtype=bool)
        present[removed] = False
        worst = max(worst, float(np.abs(whole - _measured(problem, present) - effect).max()))
    return worst / float(np.abs(actual).max())


def _measured(problem: Problem, present: NDArray[np.bool_]) -> Array:
    estimator = clone(problem.estimator).set_params(tol=1e-10).fit(problem.x[present], problem.y[present])
    places = np.searchsorted(estimator.classes_, problem.y_queries)
    logp = estimator.predict_log_proba(problem.x_queries)
    return np.asarray(logp[np.arange(len(places)), places])


def _group_table() -> Table:
    return Table(
        f"Leaving out random groups ({SUBSETS} of each size)",
        "LDS ≥ 0.995 at 10 % and ≥ 0.99 at 50 % with form='newton', slope 1 ± 0.1",
        ["set", "removed", "form", "LDS", "slope", "Pearson", "verdict"],
        notes=[
            "LDS: mean over queries of Spearman's correlation over the groups, predicted against retrained −loss.",
            "Truth and 'sklearn' as above, for 3 groups of each size.",
            "'sum' adds up the single scores of the full method; first, second and newton are `fitted.remove(form=…)`, "
            "newton with its default number of steps if none is named.",
        ],
    )


def _add_groups(table: Table, label: str, problem: Problem, model: LinearModel) -> None:
    train, queries = problem.train, problem.queries
    rng = np.random.default_rng(0)
    fitted = uw.Influence().fit(model, train)
    single = fitted.attribute(queries).values
    for share in (0.1, 0.5):
        size = round(share * len(train))
        groups = [np.sort(rng.choice(len(train), size, replace=False)) for _ in range(SUBSETS)]
        base, after = retrain_without(Retraining(processes=1), model, train, queries, groups)
        actual = base[:, None] - after
        named = {str(i): train.ids[group].tolist() for i, group in enumerate(groups)}
        forms = {"sum": np.stack([single[:, g].sum(axis=1) for g in groups], axis=1)}
        for form in ("first", "second", "newton"):
            forms[form] = fitted.remove(named, queries, form=form).values
        for steps in (1, 10):
            name = f"newton, {steps} step{'s' if steps > 1 else ''}"
            forms[name] = fitted.remove(named, queries, form="newton", steps=steps).values
        for form, predicted in forms.items():
            result, rank = agreement(predicted, actual), float(np.mean(rank_correlations(predicted, actual)))
            met = rank >= LEAST_LDS[share] and abs(result.slope - 1) <= 0.1
            mark = verdict(met) if form == "newton" else ""
            table.add(label, f"{share:.0%}", form, f"{rank:.4f}", f"{result.slope:.3f}", f"{result.pearson:.4f}", mark)
        table.notes.append(f"{label}, {share:.0%}: sklearn {_disagreement(problem, groups[:3], actual[:, :3]):.1e}")


if __name__ == "__main__":
    main()
