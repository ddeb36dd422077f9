"""Figures show the numbers of the results that they draw, and change nothing of the user's."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

plt = pytest.importorskip("matplotlib.pyplot")
pytest.importorskip("pandas")

import matplotlib  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression  # noqa: E402

import upweight as uw  # noqa: E402
from upweight.evaluate.removal_curve import RemovalCurve  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = (X[:, 0] + 0.4 * RNG.normal(size=60) > 0).astype(int)
TRAIN = uw.Examples(X[:50], Y[:50], ids=[f"t{i}" for i in range(50)], labels={0: "no", 1: "yes"})
QUERIES = uw.Examples(X[50:], Y[50:], ids=[f"q{i}" for i in range(10)], labels={0: "no", 1: "yes"})


@pytest.fixture(autouse=True)
def without_a_screen() -> Any:
    plt.switch_backend("Agg")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def model() -> Any:
    return uw.explainable(LogisticRegression(tol=1e-8).fit(TRAIN.x, TRAIN.y), TRAIN)


@pytest.fixture(scope="module")
def scores(model: Any) -> uw.Scores:
    return uw.Influence().fit(model, TRAIN).attribute(QUERIES)


@pytest.fixture(scope="module")
def check(model: Any, scores: uw.Scores) -> uw.Check:
    return uw.verify(model, TRAIN, QUERIES, scores, removals=8, retraining=uw.Retraining(processes=1))


def test_bars_are_the_strongest_scores_of_the_query(scores: uw.Scores) -> None:
    display = scores.plot("q3", train=TRAIN, queries=QUERIES, k=4)
    expected = [*scores.proponents("q3", 4), *reversed(scores.opponents("q3", 4))]
    assert display.ids.tolist() == [a.id for a in expected]
    assert [bar.get_width() for bar in display.ax_.patches] == [a.score for a in expected]
    assert display.ax_.get_yticklabels()[0].get_text() == f"{expected[0].id} ({TRAIN.label(expected[0].id)})"
    assert "q3" in display.ax_.get_title() and display.ax_.get_xlabel() == "effect on −loss (nats)"


def test_an_estimator_is_drawn_as_its_scores_are(scores: uw.Scores) -> None:
    estimator = LogisticRegression(tol=1e-8).fit(TRAIN.x, TRAIN.y)
    display = uw.InfluenceDisplay.from_estimator(estimator, TRAIN, QUERIES, "q2", k=2)
    assert display.ids.tolist() == scores.plot("q2", k=2).ids.tolist()


def test_rankings_have_no_sizes_and_no_intervals(model: Any) -> None:
    ranking = uw.GradCos().fit(model, TRAIN).attribute(QUERIES)
    display = ranking.plot(k=2)
    assert "sign and order only" in display.ax_.get_xlabel() and not display.ax_.texts
    checked = uw.verify(model, TRAIN, QUERIES, ranking, removals=4, retraining=uw.Retraining(processes=1)).plot()
    assert checked.low is None and len(checked.ax_.collections) == 2


def test_given_axes_are_drawn_on_and_a_figure_with_several_is_kept(scores: uw.Scores, check: uw.Check) -> None:
    figure, (left, right) = plt.subplots(1, 2)
    assert scores.plot(ax=left).ax_ is left and check.plot(ax=right).figure_ is figure
    assert len(plt.get_fignums()) == 1


def test_points_of_a_check_are_its_pairs_with_the_intervals_of_its_coverage(check: uw.Check) -> None:
    display = check.plot(level=0.8)
    points = np.concatenate([c.get_offsets() for c in display.ax_.collections if len(c.get_offsets()) > 1])
    pairs = np.stack([check.predicted.ravel(), check.actual.ravel()], axis=1)
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(pairs, axis=0))
    np.testing.assert_array_equal(display.low, check.coverage(level=0.8).low)
    assert str(check.verdict) in display.ax_.get_title()


def test_leverage_and_distance_are_those_of_the_summary_frame() -> None:
    y = X @ [1.0, -2.0, 0.5] + RNG.normal(size=60)
    y[7] += 9
    train = uw.Examples(X, y)
    estimator = LinearRegression().fit(X, y)
    display = uw.LeverageDisplay.from_estimator(estimator, train, k=1)
    table = uw.Influence().fit(uw.explainable(estimator, train), train).summary_frame()
    np.testing.assert_allclose(display.cooks_distance, table["cooks_d"])
    assert display.ax_.texts[0].get_text() == "7"
    h, r = display.leverage, display.residuals
    np.testing.assert_allclose(display.cooks_distance, r**2 * h / (1 - h) / display.parameters, rtol=1e-8)


def test_several_outputs_have_no_residual_to_draw() -> None:
    train = uw.Examples(X, np.stack([X[:, 0], X[:, 1] ** 2], axis=1))
    with pytest.raises(TypeError, match="one output"):
        uw.LeverageDisplay.from_estimator(LinearRegression().fit(train.x, train.y), train)


def test_curves_of_two_methods_share_the_random_removals() -> None:
    effects: Any = {
        "proponents": np.array([[1.0, 2.0]]),
        "opponents": np.array([[-1.0, -2.0]]),
        "random": np.zeros((1, 2)),
    }
    curve = RemovalCurve((1, 2), effects, np.full((1, 2), 0.1), np.array(["q"]))
    labels = uw.RemovalCurveDisplay.from_curves({"A": curve, "B": curve}).ax_.get_legend_handles_labels()[1]
    assert labels == ["A, proponents", "A, opponents", "random", "B, proponents", "B, opponents"]
    np.testing.assert_array_equal(curve.plot().ax_.lines[0].get_ydata(), [1.0, 2.0])
    with pytest.raises(ValueError, match="at least one curve"):
        uw.RemovalCurveDisplay.from_curves({})


def test_label_errors_are_found_as_detection_rates_says() -> None:
    suspicion = np.arange(50.0)
    planted = TRAIN.ids[-5:].tolist()
    display = uw.LabelErrorDisplay.from_rankings({"age": suspicion, "no": -suspicion}, TRAIN, planted)
    line = display.ax_.lines[0]
    np.testing.assert_allclose(np.interp(0.1, line.get_xdata(), line.get_ydata()), 1.0)
    assert display.detections["age"].auc == 1.0 and "AUC 0.000" in display.ax_.lines[1].get_label()
    assert len(uw.detection_rates(suspicion, TRAIN, planted).plot().ax_.lines) == 3


def test_a_course_is_drawn_with_summed_contributions() -> None:
    contributions = np.zeros((3, 1, 2), dtype=np.float32)
    contributions[:, 0] = [[1, -1], [2, 0], [0, -4]]
    measured, of_train = np.array([[-2.0], [-1.0], [-0.5]]), np.zeros((3, 2))
    course = uw.Course(np.arange(3), np.array(["q"]), np.array(["a", "b"]), measured, of_train, contributions)
    display = course.plot()
    assert display.ids.tolist() == ["a", "b"]
    np.testing.assert_array_equal(display.contributions, [[1, -1], [3, -1], [3, -5]])
    with pytest.raises(KeyError, match="no query has the id 'z'"):
        course.plot("z")


@pytest.mark.parametrize("shown", [RNG.random((60, 5, 5)), [f"text number {i} of many words" for i in range(60)], None])
def test_strips_show_pictures_texts_and_rows(scores: uw.Scores, shown: Any) -> None:
    of = {"train": slice(50), "queries": slice(50, 60)}
    train, queries = (
        e.replaced(shown=None if shown is None else shown[of[n]]) for n, e in (("train", TRAIN), ("queries", QUERIES))
    )
    display = uw.StripDisplay.from_scores(scores, train, queries, ["q4"], k=2)
    first, *others = display.figure_.axes
    assert "q4" in first.get_title() and len(others) == 4
    assert bool(first.images) == isinstance(shown, np.ndarray)
    if not isinstance(shown, np.ndarray):
        assert ("text number" if shown else "x0") in first.texts[0].get_text()


def test_settings_of_matplotlib_are_left_alone(scores: uw.Scores) -> None:
    before = dict(matplotlib.rcParams)
    scores.plot()
    assert dict(matplotlib.rcParams) == before


def test_without_matplotlib_the_way_to_install_it_is_said(scores: uw.Scores, monkeypatch: Any) -> None:
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"upweight\[plots\]"):
        scores.plot()


def test_bad_input_is_refused_in_a_sentence(model: Any, scores: uw.Scores) -> None:
    with pytest.raises(KeyError, match="no query has the id 'z'"):
        scores.plot("z")
    with pytest.raises(ValueError, match="k"):
        scores.plot(k=0)
    with pytest.raises(TypeError, match="expected Influence fitted on a linear model, got"):
        uw.LeverageDisplay.from_fitted(uw.GradDot().fit(model, TRAIN))
