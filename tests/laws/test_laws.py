"""The laws: every method on every model family, unless the method says which it waives and why."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest

import upweight as uw
from boosters import BOOSTERS, FORESTS
from networks import NETWORKS, RECORDED, TRAINED, NetworkProblem
from problems import PROBLEMS, Problem
from upweight.core.attributor import Attributor, Fitted
from upweight.core.model import Retrainable, can
from upweight.core.recipes import CG, Hessian

METHODS: dict[str, Attributor] = {
    "influence": uw.Influence(),
    "influence, first order": uw.Influence(correction=None),
    "influence by CG": uw.Influence(curvature=Hessian(solver=CG(tolerance=1e-10))),
    "leave one out": uw.LeaveOneOut(),
    "RelatIF": uw.RelatIF(),
    "RelatIF of parameters": uw.RelatIF(relative="parameters"),
    "GradDot": uw.GradDot(),
    "GradCos": uw.GradCos(),
    "chance": uw.Chance(),
}
CLOSE = 1e-6  # relative to the largest score: what two solvers of one convex problem may differ by


@dataclass
class Case:
    """One method on one problem, fitted once for all laws."""

    recipe: Attributor
    problem: Problem | NetworkProblem

    @cached_property
    def examples(self) -> tuple[uw.Examples, uw.Examples]:
        return self.problem.examples()

    @cached_property
    def model(self) -> Any:
        return self.problem.model(self.examples[0])

    @cached_property
    def fitted(self) -> Fitted:
        return self.recipe.fit(self.model, self.examples[0])

    @cached_property
    def scores(self) -> uw.Scores:
        return self.fitted.attribute(self.examples[1])

    def holds(self, law: str) -> bool:
        return law not in self.recipe.promises.waives


OF_NETWORKS: dict[str, Attributor] = {
    "default curvature": uw.Influence(),
    "gradient products": uw.Influence(curvature=uw.Identity()),
    "empirical Fisher": uw.Influence(curvature=uw.EmpiricalFisher()),
    "EK-FAC": uw.Influence(curvature=uw.EKFAC()),
    "DataInf": uw.Influence(curvature=uw.DataInf()),
    "RelatIF": uw.RelatIF(curvature=uw.EKFAC()),
    "GradDot": uw.GradDot(),
    "GradCos": uw.GradCos(),
    "TracIn": uw.TracIn(),
    "TracIn-last": uw.TracIn(layers="last"),
    "GAS": uw.GAS(),
    "GAS by layer": uw.GAS(by="layer"),
    "SOURCE": uw.SOURCE(segments=2),
    "SOURCE, EK-FAC": uw.SOURCE(curvature=uw.EKFAC(), segments=2),
    "chance": uw.Chance(),
}
OF_TRAININGS: dict[str, Attributor] = {
    "metagradient": uw.Metagradient(at="full", keep=0.9, removals=4),
    "metagradient at the centre": uw.Metagradient(keep=0.5, removals=4),
    "leave one out": uw.LeaveOneOut(),
}
OF_BOOSTERS: dict[str, Attributor] = {
    "leaf refit": uw.LeafRefit(),
    "leaf influence": uw.LeafInfluence(),
    "leaf influence, single": uw.LeafInfluence(update="single"),
    "leaf influence, top leaves": uw.LeafInfluence(update=2),
    "boostin": uw.BoostIn(),
    "trex": uw.TREX(),
    "tree similarity": uw.TreeSim(),
    "leaf similarity": uw.TreeSim(kernel="leaves"),
}
OF_FORESTS: dict[str, Attributor] = {
    "leaf weights": uw.ForestWeights(),
    "trex": uw.TREX(),
    "tree similarity": uw.TreeSim(),
}
PAIRS = [(method, problem) for method in METHODS.items() for problem in PROBLEMS]
PAIRS += [(method, problem) for method in OF_NETWORKS.items() for problem in NETWORKS]
PAIRS += [(("SOURCE by steps", uw.SOURCE()), problem) for problem in RECORDED]
PAIRS += [(method, problem) for method in OF_TRAININGS.items() for problem in TRAINED]
PAIRS += [(method, problem) for method in OF_BOOSTERS.items() for problem in BOOSTERS]
PAIRS += [(method, problem) for method in OF_FORESTS.items() for problem in FORESTS]
PAIRS += [(("out of bag", uw.ForestWeights(removal="trees")), FORESTS[0])]
PAIRS += [(("leave one out", uw.LeaveOneOut()), problem) for problem in BOOSTERS[:1]]
PAIRS += [(("leaf influence, bags", uw.LeafInfluence(bags=12)), problem) for problem in BOOSTERS[2:4]]
CASES = [Case(recipe, problem) for (_, recipe), problem in PAIRS]
NAMES = [f"{method}-{problem.name}" for (method, _), problem in PAIRS]


@pytest.fixture(params=CASES, ids=NAMES, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return request.param  # type: ignore[no-any-return]


def assert_close(a: np.ndarray, b: np.ndarray, relative: float) -> None:
    assert np.abs(a - b).max() <= relative * np.abs(b).max()


def with_copies(case: Case) -> tuple[uw.Examples, uw.Examples, Any]:
    """The training set with a copy of one query and one with another label, and the model trained on it."""
    train, queries = case.examples
    hardest = queries.take([int(np.argmin(case.model.measure(queries)))])
    label = hardest.y[0]
    if case.problem.regression:
        predicted = float(case.model.predict(hardest).predicted[0])
        other = max(label + 2 * (predicted - label), 0.1) if abs(predicted - label) > 0.3 else label + 1.0
    else:
        other = strongest_other_class(case, hardest)
    one = hardest.take([0])
    x = [*train.x, one.x[0], one.x[0]] if isinstance(train.x, list) else np.vstack([train.x, one.x, one.x])
    y = np.append(train.y, [label, other])
    bigger = uw.Examples(x, y, ids=[*train.ids.tolist(), "copy", "flipped"])
    return bigger, hardest, case.problem.model(bigger)


def strongest_other_class(case: Case, query: uw.Examples) -> Any:
    """The label that the model itself would confuse this one with."""
    classes, label = np.unique(case.examples[0].y), query.y[0]
    outputs = case.problem.outputs(case.model, query.x)
    ranked = classes if outputs.ndim == 1 else classes[np.argsort(-outputs[0])]
    return next(c for c in ranked if c != label)


def test_a_copy_helps_and_its_flipped_copy_harms(case: Case) -> None:
    if not case.holds("a copy helps, its flipped copy harms"):
        return
    train, query, model = with_copies(case)
    row = case.recipe.fit(model, train).attribute(query).values[0]
    place = {i: p for p, i in enumerate(train.ids.tolist())}
    assert row[place["copy"]] > 0 > row[place["flipped"]]


def test_rows_are_queries_and_columns_train_examples_by_id(case: Case) -> None:
    train, queries = case.examples
    assert case.scores.values.shape == (len(queries), len(train))
    assert case.scores.query_ids.tolist() == queries.ids.tolist()
    assert case.scores.train_ids.tolist() == train.ids.tolist()
    assert np.isfinite(case.scores.values).all()


def test_permuting_examples_permutes_scores(case: Case) -> None:
    train, queries = case.examples
    rng = np.random.default_rng(1)
    there, here = rng.permutation(len(train)), rng.permutation(len(queries))
    shuffled = train.take(there)
    scores = case.recipe.fit(case.problem.model(shuffled), shuffled).attribute(queries.take(here))
    # The estimator's own training may depend on the order (SGD's does, a kernel machine's to its tolerance), and what
    # starts at its parameters with it. A forest draws positions: permuted, it is another forest.
    tolerance = {"sgd": 0.3, "rbf machine": 1e-3, "forest": np.inf}.get(case.problem.name, 1e-4)
    assert_close(scores.values, case.scores.values[np.ix_(here, there)], tolerance)


def test_queries_can_come_together_or_alone(case: Case) -> None:
    _, queries = case.examples
    alone = np.vstack([case.fitted.attribute(one).values for one in queries.batches(1)])
    assert_close(alone, case.scores.values, CLOSE)


def test_top_is_the_ends_of_the_matrix(case: Case) -> None:
    _, queries = case.examples
    top = case.fitted.top(queries, k=3)
    for query in queries.ids.tolist():
        found, expected = top.proponents(query), case.scores.proponents(query, 3)
        assert [a.id for a in found] == [a.id for a in expected]
        assert [a.id for a in top.opponents(query)] == [a.id for a in case.scores.opponents(query, 3)]


def test_the_same_seed_gives_the_same_bits(case: Case) -> None:
    train, queries = case.examples
    again = case.recipe.fit(case.model, train).attribute(queries)
    assert np.array_equal(again.values, case.scores.values)
    assert np.array_equal(case.fitted.attribute(queries).values, case.scores.values)


def test_saved_and_loaded_it_gives_the_same_answers(case: Case, tmp_path: Any) -> None:
    train, queries = case.examples
    case.fitted.save(tmp_path / "fit")
    loaded = case.recipe.load(tmp_path / "fit", case.model, train)
    assert np.array_equal(loaded.attribute(queries).values, case.scores.values)
    case.scores.save(tmp_path / "scores")
    assert np.array_equal(uw.Scores.load(tmp_path / "scores").values, case.scores.values)


def test_another_training_set_does_not_load(case: Case, tmp_path: Any) -> None:
    train, _ = case.examples
    case.fitted.save(tmp_path / "fit")
    other = uw.Examples(train.x, train.y, ids=np.arange(len(train)))
    with pytest.raises(ValueError, match="another training set"):
        case.recipe.load(tmp_path / "fit", case.model, other)


def belongings(case: Case) -> tuple[bytes, bytes, bytes]:
    train, queries = case.examples
    data = pickle.dumps((train.x, train.y, queries.x))
    return case.problem.belongings(case.model), data, np.random.get_state()[1].tobytes()


def test_nothing_of_the_users_is_changed(case: Case) -> None:
    train, queries = case.examples
    before = belongings(case)
    case.recipe.fit(case.model, train).attribute(queries)
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        case.fitted.attribute(uw.Examples(np.full((2, 99), np.nan), queries.y[:2]))
    assert belongings(case) == before


def test_self_influence_is_the_score_of_each_example_on_itself(case: Case) -> None:
    train, _ = case.examples
    if isinstance(case.recipe, uw.Chance):
        assert case.fitted.self_influence().values.shape == (1, len(train))
        return
    diagonal = np.diagonal(case.fitted.attribute(train).values)
    assert_close(case.fitted.self_influence().values[0], diagonal, CLOSE)


def test_groups_are_column_sums(case: Case) -> None:
    train, _ = case.examples
    halves = np.where(np.arange(len(train)) % 2, "odd", "even")
    grouped = case.scores.group(halves)
    assert grouped.train_ids.tolist() == ["even", "odd"]
    assert_close(grouped.values[:, 1], case.scores.values[:, 1::2].sum(axis=1), 1e-12)


def test_it_agrees_with_true_retraining(case: Case) -> None:
    promises = case.recipe.promises
    if promises.correlation is None or not can(case.model, Retrainable):
        return
    train, queries = case.examples
    removals = {f"without {i}": [i] for i in train.ids[::3].tolist()}
    check = uw.verify(case.model, train, queries, case.scores, removals, retraining=uw.Retraining(processes=1))
    assert check.pearson >= promises.correlation
    low, high = promises.slope
    assert case.scores.unit == uw.Unit.EFFECT
    assert low <= check.slope <= high


@pytest.mark.parametrize("problem", PROBLEMS[:2], ids=lambda p: p.name)
def test_two_processes_are_one(problem: Problem) -> None:
    train, queries = problem.examples()
    model = problem.model(train)
    one, two = (uw.LeaveOneOut(processes=p).fit(model, train).attribute(queries) for p in (1, 2))
    assert_close(two.values, one.values, 1e-9)
    assert [a.id for a in two.proponents(queries.ids[0])] == [a.id for a in one.proponents(queries.ids[0])]
