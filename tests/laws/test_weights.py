"""A row of weight 0 is absent and a row of weight k is k copies, for every method on every model family.

Scores of a weighted row are those of its copies added up; its self-influence is what all its weight does to its own
measurement, which is the sum of what each copy does to its own. Where scores are effects of really removing (leverage,
Newton steps, real refits) the weighted row goes with all its weight: it is held against removing all copies together.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from test_laws import PAIRS

import upweight as uw
from upweight.core.attributor import Attributor
from weighted import Weighted, summed

CLOSE = 1e-6  # of the largest score
ABSENT, COPIES = np.ones(60), np.ones(60)
ABSENT[:4] = ABSENT[20:29] = 0.0
COPIES[7], COPIES[30] = 3.0, 10.0

# (method, problem, law) by their beginnings → why it cannot hold
WAIVERS = {
    ("", "sgd", ""): "SGD decays by its l2 with every row, whatever the row weighs",
    ("", "catboost", ""): "CatBoost scales its l2 by the mean weight over rows, those of weight 0 included",
    ("", "forest", ""): "a bootstrap draws positions: of other rows it is another forest",
    ("out of bag", "", ""): "a bootstrap draws positions",
    ("chance", "", "copies"): "scores are drawn by id, and copies have ids of their own",
    ("leaf influence, bags", "", "copies"): "halves of the rows are drawn at random",
    ("leave one out", "lightgbm", "absent"): "training again counts rows (min_child_samples), not their weights",
    ("metagradient", "", "copies of the unit"): "the gate removes random rows, of copies others",
}
SOLVED = {"rbf machine": 1e-3}  # what the family's own training, or Newton steps on a stiff loss, leave
LONG = ("trained transformer", "recorded transformer")  # half the time of all; an MLP goes the same way
REMOVES = ("influence", "leave one out", "leaf refit", "leaf weights", "default curvature")


def waived(method: str, problem: str, law: str) -> bool:
    return any(method.startswith(m) and problem.startswith(p) and law.startswith(w) for m, p, w in WAIVERS)


@cache
def weighted(name: str, law: str) -> Weighted:
    problem = next(problem for _, problem in PAIRS if problem.name == name)
    return Weighted(problem, ABSENT if law == "absent" else COPIES)


def pairs(law: str) -> list[Any]:
    made = [((name, recipe), problem.name) for (name, recipe), problem in PAIRS]
    return [
        pytest.param(name, recipe, problem, id=f"{name}-{problem}", marks=[pytest.mark.slow] * (problem in LONG))
        for (name, recipe), problem in made
        if not waived(name, problem, law)
    ]


def answers(recipe: Attributor, case: Weighted) -> tuple[Any, Any]:
    """The fits of the weighted and of the written set."""
    ours, theirs = case.models
    return recipe.fit(ours, case.train), recipe.fit(theirs, case.written)


def off(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def own_of(fitted: Any, case: Weighted) -> np.ndarray:
    """Self-influence added up over copies, (n,)."""
    rows = np.arange(len(case.train)) if fitted.train is case.train else case.rows
    return summed(fitted.self_influence().values, rows, len(case.train))[0]


def assert_same_facts(ours: uw.Scores, theirs: uw.Scores) -> None:
    """Unit, damping and where it came from."""
    assert ours.unit == theirs.unit
    assert ours.diagnostics.get("damping_from") == theirs.diagnostics.get("damping_from")
    for fact in ("damping", "gradient_norm", "faithful"):
        if theirs.diagnostics.get(fact) is not None:
            assert ours.diagnostics[fact] == pytest.approx(theirs.diagnostics[fact], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("name", "recipe", "problem"), pairs("absent"))
def test_a_row_of_weight_zero_is_absent(name: str, recipe: Attributor, problem: str) -> None:
    case, close = weighted(problem, "absent"), SOLVED.get(problem, CLOSE)
    ours, theirs = answers(recipe, case)
    scores, expected = ours.attribute(case.queries), theirs.attribute(case.queries)
    there = ABSENT > 0
    assert (scores.values[:, ~there] == 0).all() and np.isfinite(scores.values).all()
    assert off(scores.values[:, there], expected.values) < close
    own = own_of(ours, case)
    assert (own[~there] == 0).all()
    assert off(own[there], own_of(theirs, case)[there]) < close
    assert_same_facts(scores, expected)


@pytest.mark.parametrize(("name", "recipe", "problem"), pairs("copies"))
def test_a_row_of_weight_k_is_k_copies(name: str, recipe: Attributor, problem: str) -> None:
    case, close = weighted(problem, "copies"), SOLVED.get(problem, CLOSE)
    ours, theirs = answers(recipe, case)
    scores, written = ours.attribute(case.queries), theirs.attribute(case.queries)
    expected = summed(written.values, case.rows, len(case.train))
    many = COPIES > 1
    removes = (
        name.startswith(REMOVES) and scores.unit == uw.Unit.EFFECT and getattr(recipe, "correction", 1) is not None
    )
    same = ~many if removes else np.ones(len(many), dtype=bool)
    assert off(scores.values[:, same], expected[:, same]) < close
    assert off(own_of(ours, case)[same], own_of(theirs, case)[same]) < close
    if not waived(name, problem, "copies of the unit"):
        assert_same_facts(scores, written)
    if removes and hasattr(theirs, "remove") and getattr(theirs, "follows", True):
        ids = {str(i): case.written.ids[case.rows == i].tolist() for i in np.flatnonzero(many)}
        together = theirs.remove(ids, case.queries).values
        assert off(scores.values[:, many], together) < max(close, 1e-4)  # Newton steps stop at a small gradient
