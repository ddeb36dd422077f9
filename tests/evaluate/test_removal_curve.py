from dataclasses import replace

import numpy as np
import pytest

import upweight as uw
from support.additive_game import game
from upweight.evaluate.removal_curve import removal_curve


def curve(removals=5, **more):
    model, train, queries, scores = game(queries=3, players=40)
    retraining = uw.Retraining(processes=1, **more)
    shares = (0.05, 0.1, 0.25)
    return model, removal_curve(model, train, queries, scores, shares, removals=removals, retraining=retraining)


def test_in_an_additive_game_the_curves_are_sums_of_the_ends():
    model, result = curve()
    assert result.sizes == (2, 4, 10)
    ordered = np.sort(model.worth, axis=1)
    for point, size in enumerate(result.sizes):
        np.testing.assert_allclose(result.effects["proponents"][:, point], ordered[:, -size:].sum(axis=1))
        np.testing.assert_allclose(result.effects["opponents"][:, point], ordered[:, :size].sum(axis=1))
        assert (result.effects["opponents"][:, point] < result.effects["random"][:, point]).all()
        assert (result.effects["random"][:, point] < result.effects["proponents"][:, point]).all()
    assert (result.spread > 0).all() and result.warnings == ()


def test_random_removals_are_the_same_for_all_queries_and_average_to_the_mean():
    model, result = curve(removals=200)
    expected = np.outer(model.worth.mean(axis=1), result.sizes)
    np.testing.assert_allclose(result.effects["random"], expected, atol=0.7)


def test_the_effect_of_a_refused_removal_is_nan():
    model, train, queries, scores = game(queries=3, players=40)
    best = int(model.worth[0].argmax())
    stuck = replace(model, refuses=frozenset({best}))
    result = removal_curve(
        stuck, train, queries, scores, (0.05, 0.1), retraining=uw.Retraining(processes=1), removals=1
    )
    assert np.isnan(result.effects["proponents"][0]).all() and np.isfinite(result.effects["proponents"][1:]).any()
    assert any("was left out" in w for w in result.warnings)
    json = result.as_dict()
    assert json["sizes"] == [2, 4] and all(v is None or np.isfinite(v) for v in json["proponents"])


def test_it_resumes_from_its_folder(tmp_path):
    model, first = curve(folder=tmp_path)
    model.log.clear()
    _, again = curve(folder=tmp_path)
    np.testing.assert_array_equal(first.effects["random"], again.effects["random"])
    assert "up to 10 removed" in repr(first) and "<td>10</td>" in first._repr_html_()


def test_bad_requests_are_refused():
    model, train, queries, scores = game()
    for shares, removals in (((), 5), ((0.0,), 5), ((1.0,), 5), ((0.1,), 0)):
        with pytest.raises(ValueError, match="expected shares between 0 and 1 and at least one random removal"):
            removal_curve(model, train, queries, scores, shares, removals=removals)
    with pytest.raises(ValueError, match="expected scores of exactly these queries"):
        removal_curve(model, train, queries.take([1]), scores)
    with pytest.raises(KeyError, match="no example has the id"):
        removal_curve(model, train, queries, scores.group(["a", "b"] * 15))
