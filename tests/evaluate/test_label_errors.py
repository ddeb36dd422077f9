import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import upweight as uw
from upweight.evaluate.baselines import bm25, held_out_loss, plain_loss, similar, unlike_neighbours
from upweight.evaluate.label_errors import detection_rates, plant

rng = np.random.default_rng(0)
TRAIN = uw.Examples(np.zeros((50, 1)), np.arange(50) % 3, ids=[f"t{i}" for i in range(50)])


@pytest.mark.parametrize("ties", [False, True])
def test_auc_is_scikit_learns(ties):
    values = rng.standard_normal(50).round(0 if ties else 9)
    planted = [f"t{i}" for i in range(0, 50, 4)]
    expected = roc_auc_score(np.isin(TRAIN.ids, planted), values)
    assert detection_rates(values, TRAIN, planted).auc == pytest.approx(expected)


def test_found_counts_the_planted_among_the_most_suspicious():
    values = -np.arange(50.0)
    detection = detection_rates(values, TRAIN, ["t0", "t3", "t4", "t30"], shares=(0.02, 0.1, 1.0))
    assert detection.recall == (0.25, 0.75, 1.0) and detection.planted == 4
    assert detection.as_dict()["found"] == {"0.02": 0.25, "0.1": 0.75, "1": 1.0}
    even = detection_rates(np.zeros(50), TRAIN, ["t0", "t3"], shares=(0.1, 0.5))
    assert even.recall == pytest.approx((0.1, 0.5)) and even.auc == 0.5
    assert "75%" in detection._repr_html_() and "75% in the first 10%" in repr(detection)


def test_bad_suspicions_are_refused():
    for values in (np.zeros(49), np.full(50, np.nan)):
        with pytest.raises(ValueError, match=r"one finite suspicion per training example \(50\)"):
            detection_rates(values, TRAIN, ["t1"])
    for planted in ([], TRAIN.ids.tolist()):
        with pytest.raises(ValueError, match="expected some planted errors and some unchanged examples"):
            detection_rates(np.zeros(50), TRAIN, planted)
    with pytest.raises(KeyError, match="no example has the id 'nobody'"):
        detection_rates(np.zeros(50), TRAIN, ["nobody"])
    with pytest.raises(ValueError, match="shares above 0"):
        detection_rates(np.zeros(50), TRAIN, ["t1"], shares=(0.0,))


def test_planted_labels_are_other_labels_and_come_from_their_seed():
    changed, ids = plant(TRAIN, 0.2, seed=1)
    different = changed.ids[changed.y != TRAIN.y].tolist()
    assert ids == different and len(ids) == 10 and set(changed.y.tolist()) == {0, 1, 2}
    assert plant(TRAIN, 0.2, seed=1)[1] == ids != plant(TRAIN, 0.2, seed=2)[1]
    words = uw.Examples(TRAIN.x, np.where(TRAIN.y > 0, "a long label", "no"))
    assert set(plant(words, 0.5)[0].y.tolist()) == {"a long label", "no"}
    for other in (
        uw.Examples(TRAIN.x, np.linspace(0, 1, 50)),
        uw.Examples(TRAIN.x, np.zeros(50, int)),
        uw.Examples(TRAIN.x),
    ):
        with pytest.raises(ValueError, match="labels of at least two classes"):
            plant(other)
    with pytest.raises(ValueError, match="share between 0 and 1"):
        plant(TRAIN, 1.0)


def test_every_suspicion_finds_planted_labels_better_than_chance_does():
    x, y = load_breast_cancer(return_X_y=True)
    x = StandardScaler().fit_transform(x)[:300, :10]
    train, ids = plant(uw.Examples(x, y[:300]), 0.1)
    model = uw.explainable(LogisticRegression(tol=1e-10).fit(x, train.y), train)
    self_influence = uw.Influence().fit(model, train).self_influence().values
    auc = {name: detection_rates(values, train, ids).auc for name, values in {
        "influence": self_influence, "loss": plain_loss(model, train), "held out": held_out_loss(model, train),
        "neighbours": unlike_neighbours(train),
    }.items()}  # fmt: skip
    assert min(auc.values()) > 0.85, auc
    chance = uw.Chance().fit(model, train).self_influence().values
    assert abs(detection_rates(chance, train, ids).auc - 0.5) < 0.15


def test_a_held_out_loss_is_measured_by_models_without_the_fold():
    x, y = load_breast_cancer(return_X_y=True)
    x, y = StandardScaler().fit_transform(x)[:60, :4], y[:60]
    train = uw.Examples(x, y)
    model = uw.explainable(LogisticRegression(tol=1e-12).fit(x, y), train)
    losses = held_out_loss(model, train, folds=60)
    for i in (0, 7):
        remaining = np.arange(60) != i
        p = LogisticRegression(tol=1e-12).fit(x[remaining], y[remaining]).predict_proba(x[[i]])[0, y[i]]
        assert losses[i] == pytest.approx(-np.log(p), rel=1e-4)
    with pytest.raises(ValueError, match="expected between 2 and 60 folds, got 1"):
        held_out_loss(model, train, folds=1)


TEXTS = ["the cat sat on the mat", "a dog barked", "the dog and the cat", "rain all day long"]


def test_bm25_is_the_formula():
    train, queries = uw.Examples(TEXTS, [0, 1, 0, 1]), uw.Examples(["cat cat rain", "nothing known"], [0, 1])
    words, n = [t.split() for t in TEXTS], 4
    words[1] = words[1][1:]  # a word of one letter is none
    mean = np.mean([len(w) for w in words])

    def term(word, text):
        holders = sum(word in w for w in words)
        tf = text.count(word)
        return np.log(1 + (n - holders + 0.5) / (holders + 0.5)) * tf * 2.2 / (
            tf + 1.2 * (0.25 + 0.75 * len(text) / mean)
        )  # fmt: skip

    expected = np.array([2 * term("cat", w) + term("rain", w) for w in words]) * [1, -1, 1, -1]
    scores = bm25(train, queries)
    np.testing.assert_allclose(scores.values[0], expected)
    assert (scores.values[1] == 0).all() and scores.unit == uw.Unit.RANK
    with pytest.raises(TypeError, match="expected examples that are texts"):
        bm25(TRAIN, TRAIN)


def test_likeness_is_signed_by_labels():
    x = rng.standard_normal((30, 3)) * [1, 10, 100]
    train, queries = uw.Examples(x, np.arange(30) % 2), uw.Examples(x[:2], [0, 0])
    scores = similar(train, queries)
    assert scores.values[0, 0] == pytest.approx(1) and scores.values[1, 1] == pytest.approx(-1)
    amounts = similar(uw.Examples(x, x[:, 0]), uw.Examples(x[:2], x[:2, 0]))
    assert amounts.values[0, 0] > 0 and np.isfinite(amounts.values).all()


def test_likeness_of_texts_tables_and_sparse_inputs():
    pd = pytest.importorskip("pandas")
    texts = similar(uw.Examples(TEXTS, [0, 1, 0, 1]), uw.Examples(["the cat"], [0])).values[0]
    assert texts[2] > texts[3] and texts[1] <= 0
    frame = pd.DataFrame({"a": [1.0, 2.0, np.nan, 4.0], "b": ["u", "v", "u", "v"]})
    assert np.isfinite(similar(uw.Examples(frame), uw.Examples(frame.iloc[:1], ids=["q"])).values).all()
    sparse = TfidfVectorizer().fit_transform(TEXTS)
    assert similar(uw.Examples(sparse), uw.Examples(sparse[:1])).values[0, 0] == pytest.approx(1)
    with pytest.raises(TypeError, match="inputs that are numbers or texts"):
        similar(uw.Examples(frame[["b"]]), uw.Examples(frame[["b"]]))


def test_neighbours_of_another_label_are_suspicious():
    x = np.concatenate([np.zeros(20), np.full(20, 9.0)])[:, None] + 0.1 * rng.standard_normal((40, 1))
    y = np.repeat([0, 1], 20)
    y[3] = 1
    suspicion = unlike_neighbours(uw.Examples(x, y))
    assert suspicion[3] == 1 and suspicion[[0, 1, 25]].max() <= 0.1
    assert unlike_neighbours(uw.Examples(x, y.astype(float)))[3] == pytest.approx(1)
    with pytest.raises(ValueError, match="one label per training example"):
        unlike_neighbours(uw.Examples(x))


def test_a_text_pipeline_shares_its_texts_with_the_baseline():
    train = uw.Examples(TEXTS * 4, [0, 1, 0, 1] * 4)
    model = uw.explainable(make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(train.x, train.y), train)
    assert held_out_loss(model, train, folds=4).shape == plain_loss(model, train).shape == (16,)
