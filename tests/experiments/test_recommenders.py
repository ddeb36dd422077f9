"""The recommenders: attention over relations by its formula, histories without a film, and the search for sets."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from experiments.recommenders import rcf, relations, table, trials  # noqa: E402
from experiments.recommenders.attention import film_weights, scores_without  # noqa: E402
from experiments.recommenders.counterfactuals import Case, by_influence, one_by_one  # noqa: E402
from experiments.recommenders.outcomes import Outcome, Outcomes  # noqa: E402

import upweight as uw  # noqa: E402

LINES = ["1|7|1|1,2", "2|7,8|1|3", "3|8|2|4", "4|9|3|5", "5|7|4|2", "6|9|3|6", "7|8,7|5|7"]
TRIPLES = [(1, 1, 4), (1, 2, 6), (1, 3, 4), (2, 2, 3), (2, 5, 4), (2, 6, 3), (3, 4, 1), (3, 7, 2)]


def tiny(triples=TRIPLES) -> relations.Relations:
    rated = {user: frozenset(i for u, *items in triples if u == user for i in items) for user, _, _ in triples}
    return relations.Relations(uw.Examples(np.array(triples)), relations.attributes_of(LINES), rated)


def untrained(data: relations.Relations) -> rcf.RCF:
    torch.manual_seed(0)
    net = rcf.RCF(data, np.ones(len(data.train))).eval()
    for parameter in net.parameters():  # scores and weights that differ
        torch.nn.init.normal_(parameter, std=0.7)
    return net


def score_of(net: rcf.RCF, user: int, item: int, films: list[int]) -> tuple[float, dict[int, float]]:
    """(the score, the weight of every film), by loops in float64."""
    data, p = net.relations, {name: t.detach().double().numpy() for name, t in net.named_parameters()}

    def gelu(values):
        return np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in values])

    by_type: dict[int, list[tuple[int, float]]] = {t: [] for t in range(4)}
    q, A = p["item.weight"], rcf.ATTENTION
    for film in films:
        for kind, value in data.attributes[item] & data.attributes[film] or {(0, 0)}:
            of_type = slice(kind * A, (kind + 1) * A)
            inner = p["of_item.weight"][of_type] @ q[item] + p["of_film.weight"][of_type] @ q[film]
            logit = p["of_entry.weight"][kind] @ np.tanh(inner + p["value.weight"][value])
            by_type[kind].append((film, math.exp(logit)))
    hidden = [p["of_kinds.0.weight"] @ (p["user.weight"][user] * t) + p["of_kinds.0.bias"] for t in p["kind.weight"]]
    of_types = np.exp([float(p["of_kinds.2.weight"][0] @ gelu(h)) for h in hidden])
    of_types /= of_types.sum()
    weights = dict.fromkeys(films, 0.0)
    for kind, pairs in by_type.items():
        for film, size in pairs:
            weights[film] += of_types[kind] * size / math.sqrt(sum(s for _, s in pairs))
    mixed = (p["user.weight"][user] + sum(w * q[film] for film, w in weights.items())) * q[item]
    score = p["head.2.weight"][0] @ gelu(p["head.0.weight"] @ mixed + p["head.0.bias"])
    return float(score), weights


def test_entries_name_every_shared_attribute_of_a_users_other_films() -> None:
    data = tiny()
    pair, film, member, kind, _ = data.entries(np.array([[1, 1], [1, 4], [2, 7]]))
    assert list(zip(pair, film, member, kind, strict=True)) == [
        (0, 2, 1, 1),  # genre 7
        (0, 2, 1, 2),  # director 1
        (0, 3, 2, 0),
        (1, 1, 0, 0),
        (1, 2, 1, 0),
        (1, 3, 2, 0),
        (2, 2, 3, 1),  # genres 7 and 8
        (2, 2, 3, 1),
        (2, 5, 4, 1),
        (2, 6, 5, 0),
    ]
    known = data.entries(np.array([[3, 4], [1, 1]]))  # these are in the training set
    built = data._built(np.array([[3, 4], [1, 1]]))
    assert [part.tolist() for part in known] == [part.tolist() for part in built]


def test_scores_and_weights_are_those_of_the_formula() -> None:
    net = untrained(tiny())
    liked, disliked = net(torch.tensor([(1, 3, 6), (2, 7, 2)]))
    expected = [score_of(net, *pair)[0] for pair in [(1, 3, [1, 2]), (2, 7, [2, 5, 6]), (1, 6, [1, 2, 3])]]
    np.testing.assert_allclose([*liked.tolist(), disliked[0].item()], expected, rtol=1e-4)
    weights = film_weights(net, 2, 7, np.array([3, 4, 5]))
    np.testing.assert_allclose(weights, list(score_of(net, 2, 7, [2, 5, 6])[1].values()), rtol=1e-4)


def test_a_film_that_left_the_history_counts_for_nothing() -> None:
    net = untrained(tiny())
    without = scores_without(net, 2, np.array([7, 1]), np.array([4]))
    np.testing.assert_allclose(without, [score_of(net, 2, i, [2, 6])[0] for i in (7, 1)], rtol=1e-4)
    assert np.abs(without - scores_without(net, 2, np.array([7, 1]), np.array([], dtype=int))).min() > 1e-3
    alone = scores_without(net, 3, np.array([1]), np.array([6, 7]))
    np.testing.assert_allclose(alone, [score_of(net, 3, 1, [])[0]], rtol=1e-4)


def test_a_triple_of_weight_zero_is_neither_fitted_nor_remembered() -> None:
    weights = np.ones(len(TRIPLES))
    weights[1] = 0.0
    other = [(1, 5, 7) if i == 1 else triple for i, triple in enumerate(TRIPLES)]
    nets = [rcf.train_net(tiny(triples), weights, seed=3) for triples in (TRIPLES, other)]
    for name, parameter in nets[0].named_parameters():
        torch.testing.assert_close(parameter, dict(nets[1].named_parameters())[name])
    all_in = rcf.train_net(tiny(), np.ones(len(TRIPLES)), seed=3)
    assert not torch.allclose(all_in.user.weight[1], nets[0].user.weight[1])


def test_the_influence_of_a_film_is_that_on_the_user_and_that_on_the_history() -> None:
    data = tiny()
    net, items = untrained(data), np.array([5, 7])
    case = trials.OfRCF(data).explained(net, 1)
    assert sorted(case.items.tolist()) == items.tolist() and case.mine.tolist() == [0, 1, 2]
    np.testing.assert_allclose(case.scores, [score_of(net, 1, int(i), [1, 2, 3])[0] for i in case.items], rtol=1e-4)
    films, triples = [1, 2, 3], np.stack([np.full(2, 1), case.items, case.items], axis=1)
    recipe = uw.Influence(modules={"user": [1]}, damping=1e-6)
    of_user = recipe.fit(rcf.model(net), data.train).attribute(uw.Examples(triples)).values[:, :3]
    for row, (item, score) in enumerate(zip(case.items.tolist(), case.scores, strict=True)):
        for column, film in enumerate(films):
            by_history = score - score_of(net, 1, item, [f for f in films if f != film])[0]
            assert case.influence[row, column] == pytest.approx(of_user[row, column] + by_history, abs=1e-4)
    np.testing.assert_allclose(case.without([0, 2]), scores_without(net, 1, case.items, np.array([0, 2])))


def test_sets_are_those_of_the_definitions() -> None:
    scores = np.array([3.0, 2.0, 1.95])
    influence = np.array([[0.9, 0.6, 0.3, 0.0], [0.8, 0.1, 0.4, -0.6], [0.0, 0.5, 0.0, 0.0]])
    case = Case(0, np.arange(3), scores, influence, np.arange(4), (0.0, 0.0))
    # without each rating the gap to item 1 falls by .1, .5, −.1, .6, and that to item 2 by .9, .1, .3, 0
    assert by_influence(case, "ACCENT", 2) == ((3, 1), 1)
    assert by_influence(case, "ACCENT", 3) == ((0, 2), 2)  # as small, and further ahead
    assert by_influence(case, "pure FIA", 3) == ((0, 1, 2), 2)
    assert by_influence(case, "pure FIA", 2) == ((0, 1, 2, 3), 1)
    assert by_influence(case, "FIA", 2) == ((0, 1, 3), 1)
    seen = []

    def after(removed):
        seen.append(list(removed))
        return np.array([2.0 - (2 in removed) - 0.5 * (0 in removed), 1.0 - 0.9 * (1 in removed)])

    assert one_by_one([1, 0, 2], np.array([2.0, 1.0]), after, only_shrinking=True) == ((0, 2), 1)
    assert seen == [[1], [0], [0, 2]]
    assert one_by_one([1, 0], np.array([2.0, 1.0]), after, only_shrinking=False) is None


def test_the_table_tests_pairs_of_outcomes() -> None:
    class Two(trials.OfNCF):
        methods, rivals = ("ACCENT", "FIA"), ("FIA",)

    outcomes = Outcomes([], [(1.0, 0.5)], [(1.0, 2.0), (2.0, 4.0), (3.0, 6.5)])
    for k in (5, 10, 20):
        for user in range(10):
            outcomes.sets.append(Outcome(user, 0, "ACCENT", k, 2, user < 8, True))
            outcomes.sets.append(Outcome(user, 0, "FIA", k, None if user == 9 else 3, user < 2, False))
    outcomes.sets.append(Outcome(0, 0, "random", 10, 2, False, False))
    made = table.table(Two(uw.Examples(np.zeros((1, 2)))), outcomes, notes=[], title="", claim="", settings="")
    assert [row.ours for row in made.rows[:2]] == [
        "ACCENT 2.0, 2.0, 2.0; FIA 3.0, 3.0, 3.0",
        "6 / 0, 6 / 0, 6 / 0 of 10 cases",
    ]
    assert [row.met for row in made.rows[:2]] == [True, True]
    assert (
        "alone holds in 6, that of FIA alone in 0 (McNemar's exact test p = 0.031; difference 60 points"
        in made.notes[0]
    )
    assert "ACCENT's is smaller by 1.0 ratings (1.0 to 1.0)" in made.notes[0]
    assert made.rows[4].ours.endswith("3.0 (3.0 to 3.0); none for 1 of 10")
