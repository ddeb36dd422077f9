"""The overview counts, for every training example, the queries and the mistakes that it is behind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import upweight as uw
from upweight.core.model import Predictions
from upweight.core.scores import Scores, Unit


@pytest.fixture
def queries() -> uw.Examples:
    return uw.Examples(np.zeros((5, 1)), [0, 1, 1, 0, 1], ids=list("abcde"), labels={0: "ham", 1: "spam"})


@pytest.fixture
def scores(queries: uw.Examples) -> Scores:
    """Forty training examples; 7 harms a and c, 3 helps everybody, 5 helps half and harms half."""
    values = np.random.default_rng(0).normal(size=(5, 40)) / 100
    values[[0, 2], 7] = -1.0
    values[:, 3] = 0.5
    values[:, 5] = [2.0, -2.0, 2.0, -2.0, 0.0]
    predictions = Predictions((1, 1, "ham", 0, 1), (0, 1), np.full((5, 2), 0.5))
    return Scores(values, queries.ids, np.arange(100, 140), Unit.EFFECT, "−loss (nats)", predictions=predictions)


def test_examples_are_ranked_by_strength_help_harm_and_mistakes(scores: Scores, queries: uw.Examples) -> None:
    overview = uw.overview(scores, queries)
    assert overview.strongest(3) == [105, 103, 107]
    assert overview.strongest(1, by="helped") == [103] and overview.strongest(1, by="harmed") == [107]
    assert overview.strongest(1, by="mistakes") == [107]
    np.testing.assert_allclose(overview.mean, scores.values.mean(axis=0))
    np.testing.assert_allclose(overview.strength, np.abs(scores.values).mean(axis=0))
    among = [{a.id for q in "abcde" for a in side(q, 10)} for side in (scores.proponents, scores.opponents)]
    assert {overview.train_ids[i].item() for i in np.flatnonzero(overview.helped)} == among[0]
    assert {overview.train_ids[i].item() for i in np.flatnonzero(overview.harmed)} == among[1]
    assert overview.helped.sum() == overview.harmed.sum() == 50
    assert overview.to_pandas().index[0] == 105


def test_mistakes_are_grouped_by_true_and_predicted_label_whether_named_or_not(
    scores: Scores, queries: uw.Examples
) -> None:
    overview = uw.overview(scores, queries)
    assert {group.name: group.query_ids for group in overview.groups} == {"ham → spam": ("a",), "spam → ham": ("c",)}
    assert all(group.opponents[0] == (107, -1.0) for group in overview.groups)
    assert overview.mistakes[7] == 2 and overview.mistakes.sum() == 20


def test_queries_may_come_in_another_order_and_others_are_refused(scores: Scores, queries: uw.Examples) -> None:
    shuffled = uw.overview(scores, queries.take([4, 2, 0, 1, 3]))
    assert [group.query_ids for group in shuffled.groups] == [("a",), ("c",)]
    with pytest.raises(ValueError, match="expected the queries of these scores"):
        uw.overview(scores, queries.take([0, 1]))


def test_the_largest_errors_are_the_mistakes_of_a_regression(scores: Scores) -> None:
    queries = uw.Examples(np.zeros((5, 1)), [1.0, 2.0, 3.0, 4.0, 5.0], ids=list("abcde"))
    overview = uw.overview(replace(scores, predictions=Predictions((1.1, 2.1, 9.0, 4.0, 5.0))), queries)
    assert [(group.name, group.query_ids) for group in overview.groups] == [("predicted too high", ("c",))]
    exact = uw.overview(replace(scores, predictions=Predictions((1.0, 2.0, 3.0, 4.0, 5.0))), queries)
    assert exact.groups == () and exact.strongest(3, by="mistakes") == []


def test_what_is_not_known_is_no_mistake_and_is_noted(scores: Scores, queries: uw.Examples) -> None:
    for other in (
        uw.overview(replace(scores, predictions=None), queries),
        uw.overview(scores, queries.replaced(y=None)),
        uw.overview(replace(scores, predictions=Predictions((None,) * 5)), queries),
        uw.overview(replace(scores, measurement="probability of ham"), queries),
    ):
        assert other.groups == () and other.mistakes.sum() == 0 and len(other.notes) == 1


def test_the_size_of_a_querys_rank_scores_does_not_matter(scores: Scores, queries: uw.Examples) -> None:
    ranks = replace(scores, unit=Unit.RANK)
    scaled = replace(ranks, values=ranks.values * np.array([[1.0], [1e6], [1e-6], [3.0], [0.5]]))
    np.testing.assert_allclose(uw.overview(ranks, queries).mean, uw.overview(scaled, queries).mean)
    assert "divided by the root mean square" in uw.overview(ranks, queries).notes[0]


def test_undefined_scores_are_not_called_strong(scores: Scores, queries: uw.Examples) -> None:
    values = scores.values.copy()
    values[:, 0] = np.nan
    overview = uw.overview(replace(scores, values=values, diagnostics={"undefined": [100]}), queries)
    assert 100 not in overview.strongest(40) and 100 not in overview.strongest(40, by="harmed")
    assert np.isnan(overview.mean[0]) and overview.helped[0] == overview.harmed[0] == 0


def test_no_example_is_listed_without_an_effect(scores: Scores, queries: uw.Examples) -> None:
    nothing = uw.overview(replace(scores, values=np.zeros((5, 40)), unit=Unit.RANK), queries)
    assert nothing.strongest() == [] and nothing.groups[0].opponents == ()
    with pytest.raises(ValueError, match='expected by="strength", "helped", "harmed" or "mistakes", got \'loss\''):
        nothing.strongest(by="loss")  # type: ignore[arg-type]
