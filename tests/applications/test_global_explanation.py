"""Global explanations: the importance of features and the submodular pick, against loops over all candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import upweight as uw
from upweight.applications.global_explanation import explanation_matrix, submodular_pick


def iris() -> tuple[Any, uw.Examples, uw.Examples]:
    x, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(150)
    names = ["sepal length", "sepal width", "petal length", "petal width"]
    train, queries = (uw.Examples(x[part], y[part], ids=part, names=names) for part in (order[:110], order[110:]))
    return uw.explainable(LogisticRegression(tol=1e-8, max_iter=1000).fit(train.x, train.y), train), train, queries


QUICK = uw.Neighbours(samples=100, influential=20)


@pytest.mark.parametrize("seed", range(5))
def test_each_pick_covers_the_most_importance_that_is_left(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.random((12, 20)) * (rng.random((12, 20)) < 0.2)
    importance = np.sqrt(sizes.sum(axis=0))
    picked, coverage = submodular_pick(sizes, importance, 6)
    chosen: list[int] = []
    for _ in range(6):
        values = {i: importance[(sizes[[*chosen, i]] > 0).any(axis=0)].sum() for i in range(12) if i not in chosen}
        chosen.append(max(values, key=lambda i: (round(values[i], 12), i)))
    assert chosen[: len(picked)] == picked
    shown = [importance[(sizes[picked[: m + 1]] > 0).any(axis=0)].sum() for m in range(len(picked))]
    np.testing.assert_allclose(coverage, np.array(shown) / importance.sum())
    assert len(picked) == 6 or coverage[-1] == pytest.approx(1.0)


def test_the_pick_is_that_of_lime_on_the_same_explanations() -> None:
    submodular = pytest.importorskip("lime.submodular_pick")
    model, train, queries = iris()
    pick = uw.Pick(k=3, candidates=40, features=2)
    result = uw.global_explanation(model, queries, train, pick=pick, neighbours=QUICK)

    class Explained:
        mode = "regression"
        available_labels = None

        def __init__(self, place: int) -> None:
            self.place = place

        def as_list(self, label: int = 1) -> list[tuple[str, float]]:
            return list(result.surrogates[self.place].effects.items())

    class Explainer:
        def explain_instance(self, place: int, *_: Any, **__: Any) -> Explained:
            return Explained(place)

    lime_pick = submodular.SubmodularPick(Explainer(), list(range(40)), None, method="full", num_exps_desired=3)
    theirs = [result.candidates[explained.place] for explained in lime_pick.sp_explanations]
    assert list(result.picked) == theirs[: len(result.picked)]


def test_candidates_are_queries_and_importance_is_the_root_of_the_summed_coefficients() -> None:
    model, train, queries = iris()
    result = uw.global_explanation(model, queries, train, pick=uw.Pick(k=2, candidates=15), neighbours=QUICK)
    assert len(result.candidates) == 15 and set(result.examples.ids) <= set(queries.ids) and result.scores is None
    assert all(candidate.influential is None for candidate in result.candidates)
    one = uw.local_model(model, result.candidates[4].query, train, neighbours=uw.Neighbours(samples=100, influential=0))
    assert one.random.effects == result.surrogates[4].effects
    name = next(iter(result.importance))
    expected = np.sqrt(sum(abs(surrogate.effects.get(name, 0.0)) for surrogate in result.surrogates))
    assert result.importance[name] == pytest.approx(expected)
    names, sizes = explanation_matrix(result.surrogates)
    assert sizes.shape == (15, len(names)) and set(names) == set(result.importance)
    assert len(result.as_dict()["picked"]) == len(result.picked) <= 2 and "local models" in repr(result)
    assert result.surrogate_of(result.picked[0]) in result.surrogates


def test_candidates_are_the_training_examples_with_the_largest_score_for_all_queries_together() -> None:
    model, train, queries = iris()
    stages = []
    pick = uw.Pick(k=2, candidates=6, of="influential", features=3)
    result = uw.global_explanation(
        model, queries, train, pick=pick, neighbours=QUICK, progress=lambda *stage: stages.append(stage)
    )
    total = uw.Influence().fit(model, train).attribute(queries).values.sum(axis=0)
    order = np.argsort(-np.abs(total), kind="stable")[:6]
    assert result.examples.ids.tolist() == train.ids[order].tolist()
    np.testing.assert_allclose(result.scores, total[order])
    assert [surrogate.effects for surrogate in result.surrogates] == [c.influential.effects for c in result.candidates]
    assert stages[-1] == ("explain", 6, 6)


def test_bad_input_is_refused_in_one_sentence() -> None:
    model, train, queries = iris()
    cases: list[tuple[type[Exception], str, Any]] = [
        (ValueError, "k of at most 3", lambda: uw.Pick(k=4, candidates=3)),
        (ValueError, "candidates of at least 1", lambda: uw.Pick(candidates=0)),
        (ValueError, "expected of=", lambda: uw.Pick(of="everything")),
        (TypeError, "Measurable", lambda: uw.global_explanation("model", queries, train)),
        (TypeError, "upweight.Examples", lambda: uw.global_explanation(model, queries.x, train)),
    ]
    for error, words, call in cases:
        with pytest.raises(error, match=words) as raised:
            call()
        assert "\n" not in str(raised.value)
